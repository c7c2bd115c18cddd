#!/usr/bin/env python3
"""Tests the alert rules with `promtool test rules`, and then tests the tests.

1. The cases of alert_cases.py become tests. Every alert must fire in the first minute in which it may and not one minute
   earlier, must resolve, and must stay silent without its series and in every near case.
2. Each part of each rule is changed, one at a time: a limit, a wait, a window, a label, a label value, a comparison, a
   clause. Some test must fail for every change.

  alert_tests.py [ALERT...]     in an environment that has the packages of requirements.txt

Rules and tests are left in target/alert-tests. (pint, the linter for rules, is in no registry that the gate can use, and
it does not test.)"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

from alert_cases import CASES, series
from alert_rules import alerts, groups, rule_file, rules, seconds, trimmed

PLACE = pathlib.Path(__file__).resolve().parent.parent / "target/alert-tests"
STEP = 60
# Minutes of `well` before `bad`.
CALM = 3
# Changes that no test can notice, with the reason.
SAME = {
    ("ManagerCrashLoop", "sum to min"): "one series, because one kind counts",
}
# Changes that were once unnoticed, as they were found.
FOUND = [
    ("MedicRequestsFailing", "0.5 *", "0.01 *"), ("MedicRequestsFailing", '{reason!~"conflict|not_found|not_enabled|held_back"}', ""),
    ("ScaleSetSloBurnFast", "14.4", "0.1"), ("ScaleSetSloBurnSlow", "> 6 *", "> 0.01 *"),
    ("GithubQuotaLow", "< 500", "< 13"), ("GithubQuotaLow", "< 500", "< 3999"),
    ("ScaleSetMissing", "missing|mismatched", "missing"), ("SweepStalled", "> 180", "> 61"),
    ("ScaleSetNeverPolled", "[1h]", "[20m]"), ("AllScaleSetsStuck", "== 0", "<= 0.9"),
    ("DryRunWouldHeal", 'mode="dry_run"', ""), ("TreatmentUnverified", ',mode="heal"', ""), ("ManagerCrashLoop", '{kind="crash"}', ""),
    ("HealBudgetExhausted", "ignoring (scope)", "on (manager)"), ("SweepStalled", "5 *", "1000 *"),
]


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
            # Prometheus marks a series that ends as stale.
            yield "stale" if start else "_"
            if end > start:
                yield f"_x{end - start}"
        elif end == start:
            yield str(values[start])
        else:
            yield f"{values[start]}{f'{step:+}' if step else ''}x{end - start}"
        start = end + 1


def test(alert, kind, phases, checks):
    """One test: its series, and the expected alerts with their labels by minute; None for no alert."""
    names = sorted({name for _, values in phases for name in values})

    def expected(labels):
        return {"exp_labels": {"severity": alert.severity, **labels}, "exp_annotations": alert.filled(labels)}

    def every(labels):
        return [] if labels is None else [expected(one) for one in (labels if isinstance(labels, list) else [labels])]

    return {
        "name": f"{alert.name}: {kind}",
        "interval": f"{STEP}s",
        "input_series": [{"series": name, "values": samples(phases, name)} for name in names],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert.name, "exp_alerts": every(labels)} for minute, labels in checks
        ],
    }


def tests(alert):
    """All tests of an alert."""
    case = CASES[alert.name]
    wait = -(-seconds(alert.wait) // STEP)
    well, bad, labels = case["well"], case["bad"], case["labels"]
    begins = CALM + case.get("onset", 0)
    ends = begins + wait + 1
    over = ends + case.get("after", 0)
    fires = [(CALM, well), (ends - CALM, bad)]
    yield test(alert, "fires", fires, [(begins + wait, labels)])
    yield test(alert, "does not fire", fires, [(minute, None) for minute in (CALM - 1, begins + wait - 1)])
    yield test(alert, "resolves", [*fires, (over - ends + 2, well)], [(over - 1, labels), (over, None)])
    without = [(ends + 5, {series("sweeps_total", {"result": "seen"}): 1})]
    yield test(alert, "series missing", without, case.get("without", [(ends + 3, None)]))
    if not case.get("near"):
        sys.exit(f"{alert.name} has no case that is near")
    for title, phases in case["near"].items():
        phases, looks = phases if isinstance(phases, tuple) else (phases, 2)
        phases = phases if isinstance(phases, list) else [(ends + 5, phases)]
        last = sum(minutes for minutes, _ in phases)
        yield test(alert, f"near: {title}", phases, [(minute, None) for minute in range(last - looks, last)])
    for title, (phases, its_labels) in case.get("also", {}).items():
        phases = phases if isinstance(phases, list) else [(ends, phases)]
        last = sum(minutes for minutes, _ in phases) - 1
        yield test(alert, f"also: {title}", phases, [(last, its_labels)])


def parts(expr):
    """Every single change of an expression: what it is, and the changed expression."""
    def each(pattern, *changes):
        for found in re.finditer(pattern, expr):
            for change in changes:
                if (new := change(found)) is not None:
                    text = expr[:found.start()] + new + expr[found.end():]
                    yield f"{found[0]} to {new or 'nothing'}", text

    def scaled(factor):
        def change(found):
            number = float(found[0])
            # Counts are compared with halves, flags with 0 and 1.
            whole = number in (0, 1) or number % 1 == 0.5 and number > 1
            return f"{number + (1 if factor > 1 else -1):g}" if whole else f"{number * factor:.4g}"
        return change

    def window(factor):
        return lambda found: f"[{int(seconds(found[1]) * factor)}s]"

    def without(separator):
        """Drops one item of a list at a time."""
        def changes(found):
            items = re.split(separator, found[2])
            for item in items:
                rest = [other for other in items if other != item]
                yield item, expr[:found.start()] + found[1] + (", " if separator.startswith(",") else "|").join(rest) + found[3] + expr[found.end():]
        return changes

    yield from each(r"(?<![\w.\[\"])\d+(?:\.\d+)?(?![\w.\]])", scaled(0.9), scaled(1.1))
    yield from each(r"\[(\w+)\]", window(1 / 3), window(3))
    yield from each(r" (==|>|<|<=) ", lambda found: {"==": " != ", ">": " < ", "<": " > ", "<=": " > "}[found[1]])
    yield from each(r"\b(sum|group|max_over_time|last_over_time|avg_over_time|min)\b(?= ?[\w(])",
                    lambda found: {"sum": "min", "max_over_time": "min_over_time", "avg_over_time": "min_over_time"}.get(found[1]))
    for found in re.finditer(r"(\b(?:without|by|on) \()([\w, ]+)(\))", expr):
        for item, text in without(r",\s*")(found):
            yield f"{found[1]}…) without {item}", text
    for found in re.finditer(r"(\{)([^}]+)(\})", expr):
        for item, text in without(r",(?=\w+[=!])")(found):
            yield f"without {item}", text
    for found in re.finditer(r'([=!]~")([^"]+)(")', expr):
        if "|" in found[2]:
            for item, text in without(r"\|")(found):
                yield f"without the value {item}", text
    # One side of each operator between vectors.
    lines = expr.split("\n")
    for number, line in enumerate(lines):
        if re.match(r"(and|or|unless)\b", line.strip()):
            yield f"nothing from '{line.strip()}' on", "\n".join(lines[:number])
    yield from each(r" \* scaleset_medic_scale_set_enabled\b", lambda _: "")
    yield from each(r" > 0\)", lambda _: ")")


def mutants():
    """(rule, change, the alert whose tests must notice it, groups): every change of a record or an alert."""
    found = {alert.name: alert for alert in alerts()}
    records, bodies = groups()[0], {rule["alert"]: rule for rule in rules() if "alert" in rule}

    def changed(name, record=None, **fields):
        head = {**records, "rules": [{**rule, **(record or {})} for rule in records["rules"]]}
        return [head, {"name": "alert", "rules": [{**bodies[name], **fields}]}]

    for name, alert in found.items():
        yield name, None, name, changed(name)
        minutes = seconds(alert.wait) // 60
        for wait in (minutes - 1, minutes + 1):
            yield name, f"for {wait}m", name, changed(name, **{"for": f"{wait}m"})
        for what, expr in parts(alert.expr):
            yield name, what, name, changed(name, expr=expr)
    (record,) = records["rules"]
    for what, expr in parts(trimmed(record["expr"])):
        for name in ("AllScaleSetsStuck", "ScaleSetSloBurnFast"):
            yield record["record"], what, name, changed(name, {"expr": expr})
    for name, old, new in FOUND:
        expr = found[name].expr
        if old not in expr:
            sys.exit(f"{name} no longer contains {old}: change FOUND")
        yield name, f"{old} to {new}", name, changed(name, expr=expr.replace(old, new))


def promtool(number, of, tested):
    """Runs the tests of these alerts on these groups."""
    (PLACE / f"rules{number}.yml").write_text(rule_file(of))
    content = {
        "rule_files": [f"rules{number}.yml"],
        "evaluation_interval": f"{STEP}s",
        "group_eval_order": [group["name"] for group in of],
        "tests": [one for alert in tested for one in tests(alert)],
    }
    (PLACE / f"tests{number}.yml").write_text(json.dumps(content, indent=1))
    command = ["promtool", "test", "rules", PLACE / f"tests{number}.yml"]
    return subprocess.run(command, capture_output=True, text=True)


def main():
    PLACE.mkdir(parents=True, exist_ok=True)
    found = {alert.name: alert for alert in alerts()}
    if lacking := found.keys() ^ CASES.keys():
        sys.exit(f"alerts without cases, or cases without an alert: {sorted(lacking)}")
    wanted = sys.argv[1:] or list(found)
    done = promtool("", groups(), [found[name] for name in wanted])
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    print(f"{sum(1 for name in wanted for _ in tests(found[name]))} tests of {len(wanted)} alerts pass")

    changes = [change for change in mutants() if {change[0], change[2]} & set(wanted)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        run = lambda pair: promtool(f"-{pair[0]}", pair[1][3], [found[pair[1][2]]]).returncode == 0
        passed = list(pool.map(run, enumerate(changes)))
    for path in PLACE.glob("*-*.yml"):
        path.unlink()
    broken = [who for (who, what, _, _), fine in zip(changes, passed) if what is None and not fine]
    if broken:
        sys.exit(f"alerts whose tests fail when they are alone: {broken}")
    # A change of a record is noticed if the tests of one of its alerts notice it.
    noticed = {(who, what) for (who, what, _, _), fine in zip(changes, passed) if not fine}
    every = {(who, what) for who, what, _, _ in changes if what}
    survived = sorted(every - noticed - set(SAME))
    for who, what in survived:
        print(f"unnoticed: {who}: {what}")
    print(f"the tests notice {len(every & noticed)} of {len(every)} changes of the rules")
    if survived or not every:
        sys.exit(1)


if __name__ == "__main__":
    main()
