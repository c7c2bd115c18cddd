#!/usr/bin/env python3
"""Writes tests.yml for `promtool test rules`, from the cases of cases.py. Every alert is shown to fire in the minute in
which it must and not in the one before, to end, to be silent without its series, and to be silent in every case that is
near; mutants.py shows that no part of a rule can change unnoticed. `--check` fails when the file is not what this
writes, or when an alert lacks a case."""

import json
import pathlib
import sys

from alerts import alerts, groups, seconds
from cases import CASES, series

TARGET = pathlib.Path(__file__).parent / "tests.yml"
STEP = 60
# Minutes of health before an illness.
CALM = 3


def samples(phases, of):
    """The values of one series, a sample a minute, over phases of (minutes, values)."""
    values, last, minute = [], 0, 0
    for minutes, series_values in phases:
        value = series_values.get(of)
        for _ in range(minutes):
            if isinstance(value, str) and value.startswith("+"):
                last += int(value)
            elif isinstance(value, str) and value.startswith("now"):
                last = minute * STEP - int(value[4:] or 0)
            elif isinstance(value, (int, float)):
                last = value
            values.append(None if value is None else last)
            minute += 1
    return " ".join(shortened(values))


def shortened(values):
    """The values in promtool's notation: `3x4` is 3 five times, `3+1x4` grows by one four times."""
    start = 0
    while start < len(values):
        step = None
        if None not in values[start:start + 2] and len(values) > start + 1:
            step = values[start + 1] - values[start]
        end = start
        while end + 1 < len(values) and (values[end + 1] is None if values[start] is None else
                                         values[end + 1] is not None and values[end + 1] - values[end] == step):
            end += 1
        if values[start] is None:
            # A series that goes is marked as stale by Prometheus.
            yield "stale" if start else "_"
            if end > start:
                yield f"_x{end - start}"
        elif end == start:
            yield str(values[start])
        else:
            yield f"{values[start]}{f'{step:+}' if step else ''}x{end - start}"
        start = end + 1


def group(alert, kind, phases, checks):
    """One test: its series, and what is expected at which minute, nothing or an alert with its labels."""
    names = sorted({name for _, values in phases for name in values})
    out = [f"  - name: {json.dumps(f'{alert.name}: {kind}')}", f"    interval: {STEP}s"]
    out.append("    input_series:" if names else "    input_series: []")
    for series in names:
        out += [f"      - series: '{series}'", f"        values: '{samples(phases, series)}'"]
    out.append("    alert_rule_test:")
    for minute, labels in checks:
        out += [f"      - eval_time: {minute}m", f"        alertname: {alert.name}"]
        if labels is None:
            out.append("        exp_alerts: []")
            continue
        out.append("        exp_alerts:")
        for labels in labels if isinstance(labels, list) else [labels]:
            out.append("          - exp_labels:")
            out += [f"              {key}: {json.dumps(value)}" for key, value in {"severity": alert.severity, **labels}.items()]
            out.append("            exp_annotations:")
            out += [f"              {key}: {json.dumps(value)}" for key, value in alert.says(labels).items()]
    return out


def blocks(alert):
    """All tests of an alert."""
    case = CASES[alert.name]
    wait = -(-seconds(alert.wait) // STEP)
    well, ill, labels = case["well"], case["ill"], case["labels"]
    begins = CALM + case.get("onset", 0)
    ends = begins + wait + 1
    over = ends + case.get("after", 0)
    sick = [(CALM, well), (ends - CALM, ill)]
    yield group(alert, "fires", sick, [(begins + wait, labels)])
    yield group(alert, "does not fire", sick, [(minute, None) for minute in (CALM - 1, begins + wait - 1)])
    yield group(alert, "resolves", [*sick, (over - ends + 2, well)], [(over - 1, labels), (over, None)])
    without = [(ends + 5, {series("sweeps_total", {"result": "seen"}): 1})]
    yield group(alert, "series missing", without, case.get("without", [(ends + 3, None)]))
    if not case.get("near"):
        sys.exit(f"{alert.name} has no case that is near")
    for title, phases in case["near"].items():
        phases, looks = phases if isinstance(phases, tuple) else (phases, 2)
        phases = phases if isinstance(phases, list) else [(ends + 5, phases)]
        last = sum(minutes for minutes, _ in phases)
        yield group(alert, f"near: {title}", phases, [(minute, None) for minute in range(last - looks, last)])
    for title, (phases, its_labels) in case.get("also", {}).items():
        phases = phases if isinstance(phases, list) else [(ends, phases)]
        last = sum(minutes for minutes, _ in phases) - 1
        yield group(alert, f"also: {title}", phases, [(last, its_labels)])


def text(only=None, rules="rules.yml"):
    """The whole file, or that of one alert's tests."""
    found = alerts()
    if lacking := {alert.name for alert in found} ^ set(CASES):
        sys.exit(f"alerts without cases, or cases without an alert: {sorted(lacking)}")
    out = ["# Made by make_tests.py from cases.py and rules.yml; run by `promtool test rules`.", f"rule_files: [{rules}]",
           f"evaluation_interval: {STEP}s", f"group_eval_order: [{', '.join(groups())}]", "tests:"]
    for alert in found:
        if only in (None, alert.name):
            for lines in blocks(alert):
                out += lines
    return "\n".join(out) + "\n"


def main():
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text():
            sys.exit(f"{TARGET} is not current: run {pathlib.Path(__file__).name}")
        return
    TARGET.write_text(text())


if __name__ == "__main__":
    main()
