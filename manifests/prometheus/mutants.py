#!/usr/bin/env python3
"""Changes each part of each rule, one at a time, and lets the tests of cases.py find it: a limit, a wait, a window, a
label, a value of a label, a comparison, a clause. Fails if a change goes unnoticed.

  mutants.py [ALERT...]"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import make_tests
from alerts import RULES, alerts, field, seconds

# Changes that no test can notice, with the reason.
SAME = {
    ("ManagerCrashLoop", "sum to min"): "one series, because one kind counts",
}
# Changes that were once unnoticed, as they were found.
FOUND = [
    ("ProbesBlind", "0.5 *", "0.01 *"), ("ProbesBlind", '{reason!~"conflict|not_found|not_enabled|held_back"}', ""),
    ("ScaleSetSloBurnFast", "14.4", "0.1"), ("ScaleSetSloBurnSlow", "> 6 *", "> 0.01 *"),
    ("GithubQuotaLow", "< 500", "< 13"), ("GithubQuotaLow", "< 500", "< 3999"),
    ("ScaleSetMissing", "missing|mismatched", "missing"), ("SweepStalled", "> 180", "> 61"),
    ("ScaleSetNeverPolled", "[1h]", "[20m]"), ("AllScaleSetsStuck", "== 0", "<= 0.9"),
    ("DryRunWouldHeal", 'mode="dry_run"', ""), ("TreatmentUnverified", ',mode="heal"', ""), ("ManagerCrashLoop", '{kind="crash"}', ""),
    ("HealBudgetExhausted", "ignoring (scope)", "on (manager)"), ("SweepStalled", "5 *", "1000 *"),
]


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
    """(who, what, the alert that must notice, rules): every change of a record or an alert."""
    text = RULES.read_text()
    head = text[:text.index("  - name: scaleset-medic.sets")]
    bodies = {body.split("\n", 1)[0]: body for body in re.split(r"^      - alert: ", text, flags=re.M)[1:]}
    bodies = {name: re.sub(r"^  - name:.*|^    (?:#|rules:).*", "", body, flags=re.M) for name, body in bodies.items()}

    def rules(name, body=None, records=head):
        return f"{records}  - name: alert\n    rules:\n      - alert: {body or bodies[name]}"

    def with_expr(block, expr):
        rows = "\n".join(f"          {row}" for row in expr.split("\n"))
        old = re.search(r"^        expr: (?:\|(?:\n {10}.*)+|.*)$", block, re.M)
        return block[:old.start()] + f"        expr: |\n{rows}" + block[old.end():]

    for alert in alerts():
        yield alert.name, None, alert.name, rules(alert.name)
        minutes = seconds(alert.wait) // 60
        for wait in (minutes - 1, minutes + 1):
            yield alert.name, f"for {wait}m", alert.name, rules(alert.name, bodies[alert.name].replace(f"for: {alert.wait}\n", f"for: {wait}m\n"))
        for what, expr in parts(alert.expr):
            yield alert.name, what, alert.name, rules(alert.name, with_expr(bodies[alert.name], expr))
    record = re.search(r"record: (\S+)", head)[1]
    for what, expr in parts(field(head[head.index("- record"):], "expr")):
        for name in ("AllScaleSetsStuck", "ScaleSetSloBurnFast"):
            yield record, what, name, rules(name, records=with_expr(head, expr))
    for name, old, new in FOUND:
        if old not in bodies[name]:
            sys.exit(f"{name} has no {old} any more: change FOUND")
        yield name, f"{old} to {new}", name, rules(name, bodies[name].replace(old, new))


def passes(place, number, alert, rules):
    """Whether the alert's tests find nothing wrong with the rules."""
    (place / f"rules{number}.yml").write_text(rules)
    tests = make_tests.text(alert, f"rules{number}.yml")
    tests = re.sub(r"group_eval_order: .*", "group_eval_order: [scaleset-medic.records, alert]", tests)
    (place / f"tests{number}.yml").write_text(tests)
    return subprocess.run(["promtool", "test", "rules", place / f"tests{number}.yml"], capture_output=True).returncode == 0


def main():
    wanted = [case for case in mutants() if not sys.argv[1:] or {case[0], case[2]} & set(sys.argv[1:])]
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda case: passes(place, case[0], case[1][2], case[1][3]), enumerate(wanted)))
    broken = [who for (who, what, _, _), passed in zip(wanted, found) if what is None and not passed]
    if broken:
        sys.exit(f"the rules as they are fail their tests: {broken}")
    # A change of a record is noticed if one of its alerts notices it.
    noticed = {(who, what) for (who, what, _, _), passed in zip(wanted, found) if not passed}
    every = {(who, what) for who, what, _, _ in wanted if what}
    survived = sorted(every - noticed - set(SAME))
    for who, what in survived:
        print(f"unnoticed: {who}: {what}")
    print(f"{len(every & noticed)} of {len(every)} changes of the rules are noticed")
    if survived or not every:
        sys.exit(1)


if __name__ == "__main__":
    main()
