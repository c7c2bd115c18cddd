#!/usr/bin/env python3
"""Tests the alerts and the dashboard with running programs: `lab --serve`, Debian's Prometheus and Alertmanager.

Several labs run at once, and faults are typed into them. Each is scraped in its own namespace, because all call their
manager "garm". Every alert must fire and resolve in Prometheus, and reach a receiver through Alertmanager unless a more
severe one inhibits it. Every expression of the rules and of the dashboard must return data at some point. The only
difference to the shipped rules are shorter waits (`rules_in_a_hurry`).

Usage: monitoring.py [path of the medic]     in an environment that has the packages of requirements.txt"""

import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import alert_rules
from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The limit for every wait, in real seconds.
TIMEOUT = 75
RANGES = {"5m": "6s", "15m": "10s", "30m": "25s", "1h": "15s", "6h": "20s", "1d": "20s"}
# Expressions that no run of this length can give data for, with the reason.
WAIVED = {}


# Alerts that must be inhibited at some point, and by which.
INHIBITIONS = [
    ("ScaleSetStuck", "AllScaleSetsStuck"), ("ScaleSetStuck", "ScaleSetStuckLong"), ("AllScaleSetsStuck", "ManagerUnseen"),
    ("EvidenceSourceDown", "ManagerUnseen"), ("HealBreakerOpen", "HealBreakerOpenLong"),
    ("ScaleSetSloBurnSlow", "ScaleSetSloBurnFast"),
]


def rules_in_a_hurry():
    """The groups of the shipped rules with every wait, window and age shortened."""
    groups = alert_rules.groups()
    for rule in alert_rules.rules(groups):
        name = rule.get("alert", "")
        if name:
            # The more severe alerts come later here too.
            rule["for"] = "6s" if name.endswith("Long") or name == "ManagerUnseen" else "1s"
        expr = re.sub(r"\[(\w+)\]", lambda found: f"[{RANGES[found[1]]}]", rule["expr"])
        expr = expr.replace("timestamp_seconds > 180", "timestamp_seconds > 6")
        rule["expr"] = expr.replace("5 * scaleset_medic_interval", "0.4 * scaleset_medic_interval")
    return groups


def get(url, **query):
    """A JSON answer."""
    full = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(full, timeout=10) as answer:
        return json.load(answer)


def until(what, holds, timeout=TIMEOUT):
    """Waits until `holds()` is true, and gives what it gave."""
    end = time.monotonic() + timeout
    while True:
        try:
            found = holds()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.1)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Alertmanager's webhook: notes (alert, namespace, status, receiver)."""

    got = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for alert in body["alerts"]:
            labels = alert["labels"]
            self.got.append((labels["alertname"], labels.get("namespace", ""), alert["status"], self.path.strip("/")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Lab:
    """A lab with its medic."""

    def __init__(self, programs, name, *flags):
        self.programs, self.name, self.port = programs, name, free_port()
        self.flags, self.process = flags, None

    def start(self):
        command = [self.programs.medic, "lab", "--serve", "--scenario", "quiet", "--listen", f"127.0.0.1:{self.port}", *self.flags]
        self.out = open(self.programs.dir / f"{self.name}.log", "a")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out, stderr=self.out, text=True)
        until(f"{self.name} serves", lambda: self.metric("last_sweep_timestamp_seconds") > 0)
        until(f"{self.name} is scraped", lambda: self.programs.has(f'up{{job="{self.name}"}} == 1'))

    def type(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def metric(self, start):
        """The sum of the values of all series that begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            rows = answer.read().decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(f"scaleset_medic_{start}"))

    def well(self):
        sets = self.metric("scale_set_info")
        until(f"all sets of {self.name} listen", lambda: self.metric('scale_set_state{') and self.listening() == sets)

    def listening(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            rows = answer.read().decode().splitlines()
        return sum(row.endswith(" 1") and 'state="listening"' in row for row in rows)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def fires(self, *names):
        """Waits until alerts fire and reach a receiver, unless Alertmanager inhibits them."""
        for name in names:
            until(f"{name} of {self.name} fires", lambda name=name: (name, self.name) in self.programs.fired)
        for name in names:
            until(f"{name} of {self.name} is received or inhibited", lambda name=name: self.arrived(name))

    def arrived(self, name):
        received = any(row[:3] == (name, self.name, "firing") for row in list(Receiver.got))
        return received or (name, self.name) in self.programs.inhibited

    def resolves(self, *names):
        for name in names:
            until(f"{name} of {self.name} resolves", lambda name=name: not self.programs.is_firing(name, self.name))


class Programs:
    """All running programs and what they reported."""

    def __init__(self, medic, directory):
        self.medic, self.dir = medic, directory
        self.labs, self.processes, self.fired, self.inhibited = {}, [], {}, {}
        self.firing_now, self.over = set(), threading.Event()

    def run(self, name, *command):
        out = open(self.dir / f"{name}.log", "w")
        self.processes.append(subprocess.Popen(command, stdout=out, stderr=out))

    def open(self, labs):
        """Starts the receiver, Alertmanager and Prometheus; the labs are scraped once they run."""
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        prometheus, alertmanager = free_port(), free_port()
        self.prometheus, self.alertmanager = f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}"
        config = (ROOT / "manifests/prometheus/alertmanager.yml").read_text()
        config = config.replace("127.0.0.1:9095", f"127.0.0.1:{receiver.server_port}")
        config = config.replace("group_wait: 10s", "group_wait: 1s").replace("group_interval: 1m", "group_interval: 1s")
        (self.dir / "alertmanager.yml").write_text(config)
        (self.dir / "rules.yml").write_text(alert_rules.rule_file(rules_in_a_hurry()))
        (self.dir / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
            "scrape_configs": [{
                "job_name": lab.name,
                "static_configs": [{"targets": [f"127.0.0.1:{lab.port}"], "labels": {"namespace": lab.name}}],
            } for lab in labs],
        }))
        self.run("alertmanager", "prometheus-alertmanager", f"--config.file={self.dir}/alertmanager.yml",
                 f"--storage.path={self.dir}/am", f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=")
        self.run("prometheus", "prometheus", f"--config.file={self.dir}/prometheus.yml", f"--storage.tsdb.path={self.dir}/tsdb",
                 f"--web.listen-address=127.0.0.1:{prometheus}", "--rules.alert.resend-delay=2s")
        for url in (self.prometheus, self.alertmanager):
            until(f"{url} is ready", lambda url=url: urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200)
        self.begun = time.time()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """Records what fires in Prometheus and what Alertmanager inhibits."""
        while not self.over.wait(0.4):
            try:
                alerts = get(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
                held = get(f"{self.alertmanager}/api/v2/alerts", inhibited="true", active="true")
            except OSError:
                continue
            firing = {(a["labels"]["alertname"], a["labels"].get("namespace", "")) for a in alerts if a["state"] == "firing"}
            for key in firing:
                self.fired.setdefault(key, time.time() - self.begun)
            by_print = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in held}
            for alert in held:
                for source in alert["status"]["inhibitedBy"]:
                    key = (alert["labels"]["alertname"], alert["labels"].get("namespace", ""))
                    self.inhibited.setdefault(key, set()).add(by_print.get(source, "?"))
            self.firing_now = firing

    def is_firing(self, name, namespace):
        return (name, namespace) in self.firing_now

    def has(self, expression):
        """Whether an expression gives anything now."""
        return bool(get(f"{self.prometheus}/api/v1/query", query=expression)["data"]["result"])

    def has_data(self, expression, end):
        """Whether an expression gives anything at any second of the run."""
        data = get(f"{self.prometheus}/api/v1/query_range", query=expression, start=self.begun, end=end, step=1)
        return bool(data["data"]["result"])

    def close(self):
        self.over.set()
        for lab in self.labs.values():
            lab.stop()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)


def dashboard_expressions():
    """Every expression of the dashboard, its variables filled in, by the panel's title."""
    board = json.loads((ROOT / "grafana/scaleset-medic.json").read_text())
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    found += [(f"annotation {note['name']}", note["expr"]) for note in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", re.match(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]))
    fill = {"$__rate_interval": "10s", "$namespace": ".*", "$manager": ".+", "$scale_set": ".+", "$__interval": "10s"}
    for title, expression in found:
        for name, value in fill.items():
            expression = expression.replace(name, value)
        yield title, expression


def crash_and_healing(lab):
    """The stuck phase and the healing: the sets' own alerts, all of them together, and the objective."""
    lab.well()
    lab.type("crash")
    names = ["ScaleSetStuck", "AllScaleSetsStuck", "ScaleSetStuckLong", "ScaleSetSloBurnFast", "ScaleSetSloBurnSlow"]
    lab.fires(*names)
    lab.well()
    lab.resolves(*names)


def dry_run(lab):
    """A medic that may not act."""
    lab.well()
    lab.type("crash")
    lab.fires("DryRunWouldHeal", "ScaleSetNeverPolled")
    lab.type("stop")
    until("the manager is down", lambda: lab.metric("manager_up") == 0)
    lab.type("start")
    lab.resolves("DryRunWouldHeal", "ScaleSetNeverPolled")


def slow_motion(lab):
    """A medic whose time hardly passes: no reconcile ends."""
    lab.fires("SweepStalled")
    lab.stop()
    lab.resolves("SweepStalled")


def manager_down(lab):
    """The manager dies, stays away, and dies again."""
    lab.well()
    lab.type("kill")
    lab.fires("ManagerUnseen", "EvidenceSourceDown")
    for _ in range(5):
        lab.type("start")
        until("the manager is up", lambda: lab.metric("manager_up") == 1)
        lab.type("kill")
        until("the manager is down", lambda: lab.metric("manager_up") == 0)
    lab.fires("ManagerCrashLoop")
    lab.type("start")
    lab.resolves("ManagerUnseen", "EvidenceSourceDown", "ManagerCrashLoop")


def actions_service_fails(lab):
    """The Actions service fails every poll."""
    lab.well()
    lab.type("polls-fail")
    lab.fires("ScaleSetFlapping")
    lab.type("clear")
    lab.resolves("ScaleSetFlapping")


def credential_refused(lab):
    """The manager's credential is refused while its sets poll."""
    lab.well()
    lab.type("revoke-garm")
    lab.fires("ScaleSetUnauthorized")
    lab.type("clear")
    lab.resolves("ScaleSetUnauthorized")


def nobody_listens(lab):
    """The manager's sets gave up at its start, because it was refused: nothing ever tries again."""
    lab.well()
    lab.type("revoke-garm")
    lab.type("crash")
    lab.fires("ScaleSetUnheld")
    lab.type("clear")
    lab.resolves("ScaleSetUnheld")


def another_owner(lab):
    """Another controller takes a set."""
    lab.well()
    lab.type("foreign 1h")
    lab.type("crash")
    lab.fires("ScaleSetHeldElsewhere")
    lab.type("clear")
    lab.resolves("ScaleSetHeldElsewhere")


def set_removed(lab):
    """A set that nobody polls is removed at GitHub; a clean restart of the manager creates it again."""
    lab.well()
    lab.type("crash")
    until("the sets are unhealthy", lambda: lab.listening() == 0)
    lab.type("remove")
    lab.fires("ScaleSetMissing")
    lab.type("stop")
    until("the manager is down", lambda: lab.metric("manager_up") == 0)
    lab.type("start")
    lab.resolves("ScaleSetMissing")


def quota_used_up(lab):
    """The medic's quota is used up, which it notices when it asks GitHub about unhealthy sets. Then its token is revoked."""
    lab.well()
    lab.type("no-quota 20m")
    lab.type("crash")
    lab.fires("GithubQuotaLow")
    lab.resolves("GithubQuotaLow")
    lab.type("revoke")
    lab.type("crash")
    lab.fires("MedicRequestsFailing")
    lab.type("clear")
    lab.type("crash")
    lab.resolves("MedicRequestsFailing")


def left_disabled(lab):
    """The manager refuses to enable what was disabled."""
    lab.well()
    lab.type("crash")
    lab.type("refuse-enable")
    lab.fires("ScaleSetLeftDisabled", "HealIntentsOpen")
    lab.type("clear")
    lab.resolves("ScaleSetLeftDisabled", "HealIntentsOpen")


def treatments_fail(lab):
    """Sessions stay refused whatever is done. When the cause is gone, the trial of the half-open breaker closes it."""
    lab.well()
    lab.type("phantom 10h")
    lab.type("crash")
    lab.fires("TreatmentUnverified", "HealBreakerOpen", "HealBreakerOpenLong")
    lab.type("clear")
    lab.well()
    lab.type("crash")
    lab.resolves("TreatmentUnverified", "HealBreakerOpen", "HealBreakerOpenLong")


def budget_spent(lab):
    """One crash after the other, until the set's treatments are used up."""
    for _ in range(3):
        lab.well()
        lab.type("crash")
        until("the set is unhealthy", lambda: lab.listening() == 0)
    lab.well()
    lab.type("crash")
    lab.fires("HealBudgetExhausted")
    lab.type("stop")
    lab.type("start")
    lab.resolves("HealBudgetExhausted")


SCENARIOS = [
    (crash_and_healing, ["--sets", "3", "--speed", "10", "--stale-session", "3m"]),
    (dry_run, ["--sets", "2", "--speed", "10", "--mode", "observe"]),
    (slow_motion, ["--sets", "1", "--speed", "0.1"]),
    (manager_down, ["--sets", "2", "--speed", "10"]),
    (actions_service_fails, ["--sets", "2", "--speed", "10", "--build", "postfix"]),
    (credential_refused, ["--sets", "2", "--speed", "20", "--ledger"]),
    (nobody_listens, ["--sets", "2", "--speed", "20", "--ledger"]),
    (another_owner, ["--sets", "4", "--speed", "20", "--ledger"]),
    (set_removed, ["--sets", "3", "--speed", "20", "--mode", "observe"]),
    (quota_used_up, ["--sets", "2", "--speed", "40"]),
    (left_disabled, ["--sets", "1", "--speed", "5"]),
    (treatments_fail, ["--sets", "3", "--speed", "50"]),
    (budget_spent, ["--sets", "1", "--speed", "40", "--stale-session", "60s"]),
]


def play(programs, failures):
    """All scenarios at once; then all labs stop, and then one starts again."""
    def act(scenario, lab):
        try:
            lab.start()
            scenario(lab)
            print(f"{time.time() - programs.begun:5.0f} s  {scenario.__name__} is over", flush=True)
        except (TimeoutError, OSError, subprocess.SubprocessError, TypeError) as error:
            failures.append(f"{scenario.__name__}: {error}")
            print(f"{time.time() - programs.begun:5.0f} s  {scenario.__name__} FAILED: {error}", flush=True)

    threads = [threading.Thread(target=act, args=(scenario, programs.labs[scenario.__name__])) for scenario, _ in SCENARIOS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lab in programs.labs.values():
        lab.stop()
    try:
        until("MedicAbsent fires for a manager", lambda: programs.is_firing("MedicAbsent", "crash_and_healing"))
        until("MedicAbsent fires and is received", lambda: ("MedicAbsent", "", "firing", "pager") in Receiver.got)
        programs.labs["crash_and_healing"].start()
        until("MedicAbsent resolves", lambda: not programs.is_firing("MedicAbsent", ""))
    except TimeoutError as error:
        failures.append(str(error))


def judge(programs, failures):
    """The table of alerts, and the expressions without data."""
    def received(name, status):
        return sorted({row[3] for row in Receiver.got if row[0] == name and row[2] == status})

    print(f"\n{'ALERT':<24}{'FIRED AFTER':<13}{'RECEIVED BY':<18}{'RESOLVED BY':<18}INHIBITED BY")
    for alert in alert_rules.alerts():
        fired = min((at for (name, _), at in programs.fired.items() if name == alert.name), default=None)
        by = sorted(set().union(*(found for (name, _), found in programs.inhibited.items() if name == alert.name), set()))
        came, went = received(alert.name, "firing"), received(alert.name, "resolved")
        print(f"{alert.name:<24}{f'{fired:.0f} s' if fired else '-':<13}{', '.join(came) or '-':<18}{', '.join(went) or '-':<18}{', '.join(by)}")
        if fired is None:
            failures.append(f"{alert.name} never fired")
        elif not (came and went):
            failures.append(f"{alert.name} did not reach a receiver, firing and resolved")
    end = time.time()
    rules = {f"rule {rule.get('alert') or rule['record']}": rule["expr"] for rule in alert_rules.rules(rules_in_a_hurry())}
    asked = [*rules.items(), *dashboard_expressions()]
    empty = [title for title, text in asked if not programs.has_data(text, end)]
    for title in empty:
        if title in WAIVED:
            print(f"no data, as expected: {title}: {WAIVED[title]}")
        else:
            failures.append(f"no data at any time: {title}")
    print(f"\n{len(asked) - len(empty)} of {len(asked)} expressions returned data; {len(Receiver.got)} notices were received.")
    for target, source in INHIBITIONS:
        if not any(name == target and source in found for (name, _), found in programs.inhibited.items()):
            failures.append(f"{source} did not inhibit {target}")


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / kind / "scaleset-medic" for kind in ("release", "debug") if (target / kind / "scaleset-medic").exists()]
    medic = sys.argv[1] if len(sys.argv) > 1 else str(built[0]) if built else shutil.which("scaleset-medic")
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        programs = Programs(medic, pathlib.Path(directory))
        programs.labs = {scenario.__name__: Lab(programs, scenario.__name__, *flags) for scenario, flags in SCENARIOS}
        try:
            programs.open(programs.labs.values())
            play(programs, failures)
            # Alertmanager sends the last notice a little later.
            try:
                until("the last notice is received", lambda: ("MedicAbsent", "", "resolved", "pager") in Receiver.got, 20)
            except TimeoutError as error:
                failures.append(str(error))
            judge(programs, failures)
            print(f"{time.time() - programs.begun:.0f} s")
        finally:
            programs.close()
            if keep := os.environ.get("KEEP"):
                shutil.copytree(directory, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tsdb", "am"))
    if failures:
        sys.exit("\n".join(["", *failures]))


if __name__ == "__main__":
    main()
