#!/usr/bin/env python3
"""Writes tests.yml for `promtool test rules`. Every alert has four cases: it fires, it does not fire, it resolves, and
its series are missing. `--check` fails when the file is not what this writes, or when an alert lacks a case."""

import json
import pathlib
import sys

from alerts import alerts, seconds

TARGET = pathlib.Path(__file__).parent / "tests.yml"
P = "scaleset_medic_"
SET = {"manager": "garm", "scale_set": "7"}
MANAGER = {"manager": "garm"}
STEP = 60


def series(name, labels, **more):
    inner = ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items())
    return f"{P}{name}{{{inner}}}"


def state(value):
    return series("scale_set_state", SET, state=value)


def flag(of, ill, well, **more):
    """A gauge: its ill and its well value; the alert keeps `more` of its labels."""
    return {"ill": {of: ill}, "well": {of: well}, "labels": more}


HEALTHY = series("scale_set_healthy", SET)
ENABLED = series("scale_set_enabled", SET)
FAILED = series("probe_failures_total", MANAGER, target="github", operation="read_forge_set", reason="timeout")
ASKED = series("probe_duration_seconds_count", MANAGER, target="github", operation="read_forge_set")
ABLE = {"ill": {HEALTHY: 0, ENABLED: 1}, "well": {HEALTHY: 1, ENABLED: 1}, "labels": MANAGER}


def remedies(outcome, mode):
    return series("remedies_total", MANAGER, remedy="toggle", outcome=outcome, mode=mode)


# How each alert is made to fire. `ill` and `well` are values of series; "+n" grows by n in each minute, "=" stands
# still. `few` minutes of illness are not enough: so many events of a count. `after` is how long the expression stays true once all is well, in minutes: the window that it looks back on.
CASES = {
    "ScaleSetStuck": flag(HEALTHY, 0, 1, **SET),
    "ScaleSetStuckLong": flag(HEALTHY, 0, 1, **SET),
    "ScaleSetUnheld": flag(state("unheld"), 1, 0, **SET, state="unheld"),
    "ScaleSetNeverPolled": {"ill": {ENABLED: 1, state("listening"): 0}, "well": {ENABLED: 1, state("listening"): 1},
                            "labels": SET, "before": 61},
    "ScaleSetLeftDisabled": flag(series("scale_set_disabled_by_medic", SET), 1, 0, **SET),
    "ScaleSetHeldElsewhere": flag(state("held_elsewhere"), 1, 0, **SET, state="held_elsewhere"),
    "ScaleSetMissing": flag(state("missing"), 1, 0, **SET, state="missing"),
    "ScaleSetFlapping": flag(state("flapping"), 1, 0, **SET, state="flapping"),
    "ScaleSetUnauthorized": flag(state("unauthorized"), 1, 0, **SET, state="unauthorized"),
    "AllScaleSetsStuck": ABLE,
    "TreatmentUnverified": {**flag(remedies("unverified", "heal"), "+1", "=", **MANAGER), "before": 3, "after": 62, "few": 1},
    "HealBudgetExhausted": {
        "ill": {series("budget_remaining", MANAGER, scope="manager"): 0, HEALTHY: 0},
        "well": {series("budget_remaining", MANAGER, scope="manager"): 0, HEALTHY: 1},
        "labels": {**MANAGER, "scope": "manager"}},
    "HealBreakerOpen": flag(series("breaker_open", MANAGER), 1, 0, **MANAGER),
    "HealBreakerOpenLong": flag(series("breaker_open", MANAGER), 1, 0, **MANAGER),
    "HealIntentsOpen": flag(series("open_intents", MANAGER), 1, 0, **MANAGER),
    "DryRunWouldHeal": {**flag(remedies("would_act", "dry_run"), "+1", "=", **MANAGER), "before": 2, "after": 17},
    "ManagerUnseen": flag(series("manager_up", MANAGER), 0, 1, **MANAGER),
    "ManagerCrashLoop": {**flag(series("manager_restarts_total", MANAGER, kind="crash"), "+1", "=", **MANAGER),
                         "before": 4, "after": 32, "few": 2},
    "EvidenceSourceDown": flag(series("source_up", MANAGER, source="broker"), 0, 1, **MANAGER, source="broker"),
    "ProbesBlind": {
        "ill": {FAILED: "+3", ASKED: "+4"}, "well": {FAILED: "=", ASKED: "+4"},
        "labels": {**MANAGER, "target": "github"}, "before": 32, "after": 32},
    "SweepStalled": {**flag(series("last_sweep_timestamp_seconds", MANAGER), "=", "now", **MANAGER), "before": 4},
    "MedicAbsent": {"ill": {series("build_info", {"version": "1"}): None}, "well": {series("build_info", {"version": "1"}): 1},
                    "labels": {}, "missing_fires": True, "before": 6},
    "GithubQuotaLow": flag(series("github_rate_limit_remaining", MANAGER, endpoint="github.com"), 12, 4000,
                           **MANAGER, endpoint="github.com"),
    "ScaleSetSloBurnFast": {**ABLE, "before": 6, "after": 7},
    "ScaleSetSloBurnSlow": {**ABLE, "before": 16, "after": 32},
}


def samples(phases, of):
    """The values of one series, a sample a minute, over phases of (minutes, value)."""
    values, last, minute = [], 0, 0
    for minutes, series_values in phases:
        value = series_values.get(of)
        for _ in range(minutes):
            if isinstance(value, str) and value.startswith("+"):
                last += int(value)
            elif value == "now":
                last = minute * STEP
            elif isinstance(value, int):
                last = value
            values.append("_" if value is None else str(last))
            minute += 1
    return " ".join(values)


def group(alert, kind, phases, checks):
    """One test: its series, and what is expected at which minute."""
    names = sorted({name for _, values in phases for name in values})
    out = [f"  - name: {json.dumps(f'{alert.name}: {kind}')}", f"    interval: {STEP}s"]
    out.append("    input_series:" if names else "    input_series: []")
    for name in names:
        out += [f"      - series: '{name}'", f"        values: '{samples(phases, name)}'"]
    out.append("    alert_rule_test:")
    for minute, labels in checks:
        out += [f"      - eval_time: {minute}m", f"        alertname: {alert.name}"]
        if labels is None:
            out.append("        exp_alerts: []")
            continue
        out += ["        exp_alerts:", "          - exp_labels:"]
        out += [f"              {key}: {json.dumps(value)}" for key, value in {"severity": alert.severity, **labels}.items()]
        out.append("            exp_annotations:")
        out += [f"              {key}: {json.dumps(value)}" for key, value in alert.says(labels).items()]
    return out


def cases(alert):
    case = CASES[alert.name]
    wait = -(-seconds(alert.wait) // STEP)
    calm, labels, after = 3, case["labels"], case.get("after", 1)
    ill_for = wait + case.get("before", 1) + 2
    if alert.name == "ScaleSetNeverPolled":
        ill_for += 1
    well, ill = case["well"], case["ill"]
    firing, over = calm + ill_for - 1, calm + ill_for + after
    yield group(alert, "fires", [(calm, well), (ill_for, ill)], [(calm - 1, None), (firing, labels)])
    short = max(wait - 1, 0)
    if few := case.get("few"):
        yield group(alert, "does not fire", [(calm, well), (few, ill), (90, well)],
                    [(minute, None) for minute in (calm + few + 2, calm + few + 20, calm + few + 55)])
    else:
        yield not_firing(alert, case, calm, wait, short)
    yield group(alert, "resolves", [(calm, well), (ill_for, ill), (after + wait + 2, well)], [(firing, labels), (over, None)])
    other = {series("sweeps_total", MANAGER, result="seen"): 1}
    yield group(alert, "series missing", [(ill_for + 5, other)], [(wait + 3 if case.get("missing_fires") else ill_for + 3, labels if case.get("missing_fires") else None)])


def not_firing(alert, case, calm, wait, short):
    """An illness that ends before the alert's wait is over; where it looks back on a window, no illness at all."""
    well, ill = case["well"], case["ill"]
    phases = [(calm, well), (short, ill), (wait + 2, well)] if short and "after" not in case else [(calm + wait + 5, well)]
    return group(alert, "does not fire", phases, [(minute, None) for minute in (calm - 1, calm + wait, calm + wait + 2)])


def main():
    found = alerts()
    lacking = {alert.name for alert in found} ^ set(CASES)
    if lacking:
        sys.exit(f"alerts without cases, or cases without an alert: {sorted(lacking)}")
    out = ["# Made by make_tests.py from its table of cases and rules.yml; run by `promtool test rules`.", "rule_files: [rules.yml]",
           f"evaluation_interval: {STEP}s", "tests:"]
    for alert in found:
        for lines in cases(alert):
            out += lines
    text = "\n".join(out) + "\n"
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.exit(f"{TARGET} is not current: run {pathlib.Path(__file__).name}")
        return
    TARGET.write_text(text)


main()
