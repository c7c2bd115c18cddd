#!/usr/bin/env python3
"""Renders every overlay, validates the result against the Kubernetes schemas, and checks what no schema knows: our own rules
for a deployment of the medic.

  manifests.py KUBECTL        in an environment that has the packages of requirements.txt
"""

import copy
import pathlib
import re
import subprocess
import sys
import tomllib

import kubernetes_validate
import pydantic
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "manifests"
# The oldest version with all features used here (native sidecars are enabled by default since 1.29), and the newest.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
# The kinds of the Prometheus operator 0.80, the newest in a package for Python 3.11. `v1` is only extended: what is valid
# there stays valid.
OPERATORS = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}
# Volumes used here; the `restricted` standard allows them.
VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
# Mistakes that the schemas of the operator must refuse.
MISTAKES = {
    "PodMonitor": [
        ("spec.podMetricsEndpoints.0.interval", "15 seconds"), ("spec.podMetricsEndpoints.0.intervall", "15s"),
        ("spec.podMetricsEndpoints.0.port", 9810), ("spec.selector.matchExpressions.0.values", "garm"),
        ("spec.selector", None), ("spec.podMetricEndpoints", []), ("apiVersion", "monitoring.coreos.com/v2"),
    ],
    "PrometheusRule": [
        ("spec.groups.0.name", None), ("spec.groups.0.rules.0.expr", None), ("spec.groups.1.rules.0.for", "5 minutes"),
        ("spec.groups.1.rules.0.labels.severity", 1), ("spec.groups.1.rules.0.annotation", {}), ("spec.group", []),
        ("spec.groups.1.interval", "often"), ("kind", "PrometheusRules"),
    ],
}
wrong = []


def rule(place, holds, words):
    if not holds:
        wrong.append(f"{place}: {words}")


def source(name):
    """The text of a source file of any crate."""
    (path,) = [*ROOT.glob(f"src/{name}"), *ROOT.glob(f"crates/*/src/{name}")]
    return path.read_text()


def seconds(text):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def pods(resource):
    """The pod specification within a resource, and its labels, if it has one."""
    kind, spec = resource["kind"], resource.get("spec", {})
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if kind in ("CronJob", "Deployment"):
        yield spec["template"]["spec"], spec["template"]["metadata"]["labels"]


def check_restricted(place, pod):
    """The Pod Security Standard `restricted`, and read-only roots, limits and requests besides."""
    context = pod.get("securityContext", {})
    rule(place, context.get("runAsNonRoot") is True and context.get("runAsUser") == 65532, "runs as 65532")
    rule(place, context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has a seccomp profile")
    rule(place, pod.get("automountServiceAccountToken") is False, "mounts no token")
    rule(place, not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")), "does not use namespaces of the host")
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    rule(place, kinds <= VOLUMES, f"mounts {kinds - VOLUMES}")
    for container in pod.get("initContainers", []) + pod["containers"]:
        own, name = container.get("securityContext", {}), container["name"]
        rule(place, own.get("allowPrivilegeEscalation") is False, f"{name} gains no privilege")
        rule(place, own.get("capabilities") == {"drop": ["ALL"]}, f"{name} has no capability")
        rule(place, own.get("readOnlyRootFilesystem") is True, f"{name} has a read-only root")
        rule(place, "privileged" not in own and "runAsUser" not in own, f"{name} overrides nothing of the pod")
        resources = container.get("resources", {})
        rule(place, {"cpu", "memory"} <= resources.get("requests", {}).keys(), f"{name} requests what it needs")
        rule(place, "memory" in resources.get("limits", {}), f"{name} is bounded in memory")
        rule(place, re.search(r":v?\d", container["image"]), f"{name} is pinned to a version")


def medic_of(pod):
    (found,) = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == "scaleset-medic"]
    return found


def mount(container, path):
    """The volume that holds a path, by its longest mount."""
    mounts = [m for m in container["volumeMounts"] if path.startswith(m["mountPath"].rstrip("/") + "/")]
    return max(mounts, key=lambda m: len(m["mountPath"]), default=None)


def check_medic(place, pod, config, facts):
    """Its configuration fits the pod it is in."""
    medic, volumes = medic_of(pod), {volume["name"]: volume for volume in pod["volumes"]}
    rule(place, medic["image"].endswith(":" + facts["version"]), f"the image is of version {facts['version']}")
    rule(place, medic["args"][1:3] == ["--config", "/etc/scaleset-medic/config.toml"], "names its configuration")
    state = mount(medic, config["run"]["state_dir"] + "/medic.db")
    claim = volumes[state["name"]].get("persistentVolumeClaim", {}).get("claimName") if state else None
    rule(place, claim == "scaleset-medic-state" and not state.get("readOnly"), "the state outlives the pod")
    rule(place, config["run"]["mode"] == "observe", "has the mode observe")
    for manager in config["manager"]:
        folder, _, key = manager["password_file"].rpartition("/")
        secret = mount(medic, manager["password_file"])
        rule(place, secret and volumes[secret["name"]].get("secret", {}).get("secretName") == "scaleset-medic",
             f"{folder} is the secret")
        rule(place, key in facts["secret"], f"the example secret has {key}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = medic.get(probe, {}).get("httpGet")
        # /readyz says whether the medic has completed a sweep, not what it found (src/web/server.rs).
        paths = {"/healthz", "/readyz"} if probe == "readinessProbe" else {"/healthz"}
        rule(place, asked is None or asked["path"] in paths and asked["port"] == "medic", f"{probe} asks the medic only")
    if medic["args"][0] == "run":
        port = int(config["http"]["listen"].rpartition(":")[2])
        ports = {"containerPort": port, "name": "medic"}
        rule(place, medic.get("ports") == [ports], "its port is the configured one")
        rule(place, "livenessProbe" in medic and "startupProbe" in medic, "is probed")
    return medic


def check_deployment(place, resource, pod, facts):
    spec = resource["spec"]
    rule(place, spec.get("replicas") == 1 and spec.get("strategy") == {"type": "Recreate"}, "has one replica, and never two at once")
    longest = facts["longest treatment"]
    rule(place, pod["terminationGracePeriodSeconds"] > longest, f"the grace period is longer than {longest} s")


def check_sidecar(place, pod, config, native, facts):
    """The medic reads the log that GARM writes, as GARM's example configuration says."""
    medic = medic_of(pod)
    (garm,) = [container for container in pod["containers"] if container["name"] == "garm"]
    inits = pod.get("initContainers", [])
    if native:
        rule(place, [c["name"] for c in inits] == ["scaleset-medic"], "the medic is an init container")
        rule(place, medic.get("restartPolicy") == "Always", "and restarts: a native sidecar")
    else:
        rule(place, not inits and "restartPolicy" not in medic, "the medic is an ordinary container")
    rule(place, "readinessProbe" not in medic, "the medic does not make GARM unready")
    logging = facts["garm"]["logging"]
    (manager,) = config["manager"]
    rule(place, logging["log_file"] == manager["log_file"], "GARM writes the log that the medic reads")
    rule(place, logging["log_level"] == "debug" and logging["log_format"] == "json", "the log has session ids")
    rule(place, facts["garm"]["metrics"]["enable"] is True, "GARM has metrics")
    # /debug/ asks for no credential, and GARM's port is open to runners.
    counted = facts["garm"]["default"]["debug_server"], manager.get("debug_server", False)
    rule(place, counted == (False, False), "GARM's debug server is off, and not asked")
    ours, theirs = mount(medic, manager["log_file"]), mount(garm, logging["log_file"])
    rule(place, ours and theirs and ours["name"] == theirs["name"], "both have the log's volume")
    rule(place, ours.get("readOnly") is True and not theirs.get("readOnly"), "only GARM writes the log")
    port = facts["garm"]["apiserver"]["port"]
    rule(place, manager["url"] == f"http://127.0.0.1:{port}", "the medic asks GARM in its pod")
    rule(place, garm["ports"] == [{"containerPort": port, "name": "api"}], "GARM's port is the configured one")


def check_cronjob(place, resource, pod):
    spec, job = resource["spec"], resource["spec"]["jobTemplate"]["spec"]
    rule(place, spec["concurrencyPolicy"] == "Forbid", "is never two at once")
    rule(place, spec["startingDeadlineSeconds"] >= 60, "starts in time or not at all")
    once = source("engine/once.rs")
    bound = sum(int(n) * {"mins": 60, "secs": 1}[u] for u, n in re.findall(r"LIMIT: Span = Span::(\w+)\((\d+)\)", once))
    rule(place, bound and job["activeDeadlineSeconds"] > bound, f"has longer than the {bound} s that `once` may take")
    rule(place, job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never", "is not repeated")
    # The enum `ExitCode` only: the codes of --nagios are others, and 14 is of `replay` alone.
    exits = source("exit.rs").partition("pub enum ExitCode")[2].partition("\n}")[0]
    codes = {int(code) for code in re.findall(r"^    \w+ = (\d+),", exits, re.M)} - {0, 14}
    rules = job["podFailurePolicy"]["rules"]
    fails = [set(r["onExitCodes"]["values"]) for r in rules if r["action"] == "FailJob" and "onExitCodes" in r]
    rule(place, fails == [{code for code in codes if code < 128}], f"every exit code of {codes} has its meaning")
    rule(place, pod["containers"][0]["args"][0] == "once", "runs `once`")


def check_policy(place, resources, labels, pod):
    policies = [r["spec"] for r in resources if r["kind"] == "NetworkPolicy"]
    rule(place, len(policies) == 1, "has a network policy")
    for policy in policies:
        wanted = policy["podSelector"]["matchLabels"].items()
        rule(place, wanted <= labels.items(), "the policy is for this pod")
        rule(place, "Ingress" in policy["policyTypes"], "restricts ingress")
        # Network plugins resolve the names of a container's ports; those of an init container not everywhere.
        named = {p["name"]: p["containerPort"] for c in pod["containers"] for p in c.get("ports", [])}
        held = {p["containerPort"] for c in pod.get("initContainers", []) + pod["containers"] for p in c.get("ports", [])}
        medics = {port["containerPort"] for port in medic_of(pod).get("ports", [])}
        open_ports = set()
        for way in policy["ingress"]:
            ports = {named.get(port["port"], port["port"]) for port in way["ports"]}
            open_ports |= ports
            rule(place, ports <= held, f"the policy names ports that are there, no init container's by name: {ports}")
            rule(place, not ports & medics or way.get("from"), "metrics are restricted")
        rule(place, medics <= open_ports, "Prometheus has access")


def check_scraped(place, pod, labels):
    """The PodMonitor finds the pod and its port."""
    spec = yaml.safe_load((MANIFESTS / "prometheus/podmonitor.yaml").read_text())["spec"]
    for wanted in spec["selector"]["matchExpressions"]:
        rule(place, labels.get(wanted["key"]) in wanted["values"], "the PodMonitor selects the pod")
    names = {port["name"] for port in medic_of(pod)["ports"]}
    rule(place, {end["port"] for end in spec["podMetricsEndpoints"]} <= names, "the PodMonitor names the medic's port")


def facts():
    page = (ROOT / "docs/configuration.md").read_text()
    policy = dict(re.findall(r'^\| `(\w+)` \| duration \| `"([^"]+)"`', page, re.MULTILINE))
    (late,) = re.findall(r"const LATE: Span = Span::secs\((\d+)\)", source("model/treatment.rs"))
    examples = {path.name: yaml.safe_load(path.read_text()) for path in (MANIFESTS / "examples").glob("*.yaml")}
    garm = tomllib.loads(examples["garm-config.yaml"]["stringData"]["config.toml"])
    return {
        "version": tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"],
        # The last read before the disable may fail for as long as an unanswered one is waited for.
        "longest treatment": 2 * int(late) + seconds(policy["disabled_limit"]) + seconds(policy["verify_timeout"]),
        "secret": examples["secret.yaml"]["stringData"],
        "garm": garm,
    }


def check_overlay(overlay, kubectl, known):
    command = [kubectl, "kustomize", str(overlay)]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    resources, place = list(yaml.safe_load_all(rendered)), overlay.name
    validate(place, resources)
    maps = {resource["metadata"]["name"]: resource["data"] for resource in resources if resource["kind"] == "ConfigMap"}
    found = [(resource, pod, labels) for resource in resources for pod, labels in pods(resource)]
    rule(place, len(found) == 1, "has one workload")
    for resource, pod, labels in found:
        (held,) = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
        config = tomllib.loads(maps[held]["config.toml"])
        check_restricted(place, pod)
        check_medic(place, pod, config, known)
        check_policy(place, resources, labels, pod)
        if resource["kind"] == "Deployment":
            check_deployment(place, resource, pod, known)
            check_scraped(place, pod, labels)
        if place.startswith("sidecar"):
            check_sidecar(place, pod, config, place == "sidecar", known)
        if place == "standalone":
            rule(place, len(config["manager"]) > 1, "watches several managers")
        if place == "oneshot":
            check_cronjob(place, resource, pod)
    print(f"{place}: {', '.join(resource['kind'] for resource in resources)}")


def validate(place, resources):
    for resource in resources:
        for version in VERSIONS:
            # The plain form is for clusters before native sidecars.
            version = "1.27" if place == "sidecar-plain" and version == VERSIONS[0] else version
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                rule(place, False, f"{resource['kind']} is not valid in {version}: {error.message}")


def operator_errors(resource):
    """What the operator's definition of this kind has against it. A cluster would drop an unknown field without a word."""
    if resource["apiVersion"] != "monitoring.coreos.com/v1" or resource["kind"] not in OPERATORS:
        return [f"{resource['apiVersion']} {resource['kind']} has no schema here"]
    try:
        OPERATORS[resource["kind"]].model_validate(resource, extra="forbid")
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return []


def check_operator():
    for name in ("podmonitor.yaml", "prometheusrule.yaml"):
        (resource,) = yaml.safe_load_all((MANIFESTS / "prometheus" / name).read_text())
        for error in operator_errors(resource):
            rule(name, False, error)
        # The same resource with one mistake each, all of which must be found.
        for path, value in MISTAKES[resource["kind"]]:
            *way, last = path.split(".")
            broken = copy.deepcopy(resource)
            place = broken
            for step in way:
                place = place[int(step) if step.isdigit() else step]
            if value is None:
                del place[last]
            else:
                place[last] = value
            rule(name, operator_errors(broken), f"the schema does not see the mistake {path}: {value}")
        print(f"{name}: {resource['kind']}")


def main():
    (kubectl,) = sys.argv[1:]
    known = facts()
    overlays = sorted((MANIFESTS / "overlays").iterdir())
    wanted = {"oneshot", "sidecar", "sidecar-plain", "standalone"}
    rule("overlays", {overlay.name for overlay in overlays} == wanted, f"there are {sorted(wanted)}")
    for overlay in overlays:
        check_overlay(overlay, kubectl, known)
    for path in sorted((MANIFESTS / "examples").glob("*.yaml")):
        validate(path.name, list(yaml.safe_load_all(path.read_text())))
        print(f"example {path.name}")
    check_operator()
    if wrong:
        sys.exit("manifests: these rules do not hold:\n  " + "\n  ".join(wrong))
    print(f"manifests: valid for Kubernetes {' and '.join(VERSIONS)} and the Prometheus operator, restricted, and as the "
          "medic needs them")


if __name__ == "__main__":
    main()
