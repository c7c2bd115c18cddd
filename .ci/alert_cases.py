"""When each alert must fire, and when it must not although it nearly does. alert_tests.py makes tests of these cases.

Values of series, sampled each minute: a number; "+n" grows by n; "=" does not change; "now" is the date, "now-90" ninety
seconds earlier; None is no sample. Phases are pairs of minutes and values. For each alert:

well, bad   values of its series
labels      of the alert
onset       minutes of `bad` before the expression is true and the `for` of the alert begins
after       minutes of `well` for which the expression stays true, because of the window it covers
near        must stay silent: a limit just not reached, another label, another manager. Values or phases, or phases and the
            number of minutes checked at their end
also        must fire: values or phases, and the labels of the alert at their end
without     what is expected without any series, if an alert is expected"""

import json
import pathlib

P = "scaleset_medic_"
MANAGER = {"manager": "garm"}
SET = {"manager": "garm", "scale_set": "7"}
# What distinguishes two managers of one name.
HERE = {"cluster": "c1", "namespace": "prod", "job": "medic", "manager": "garm"}
ELSEWHERE = [{**HERE, label: "another"} for label in HERE]
SCHEMA = pathlib.Path(__file__).resolve().parent.parent / "docs/status.schema.json"
DIAGNOSES = json.loads(SCHEMA.read_text())["$defs"]["Diagnosis"]["enum"]


def series(name, labels, **more):
    inner = ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items())
    return f"{P}{name}{{{inner}}}"


def gauge(name, bad, well, near, **labels):
    """A gauge with a value that fires, one that does not, and one that nearly does."""
    of = series(name, labels)
    return {"bad": {of: bad}, "well": {of: well}, "labels": labels, "near": {f"it is {near}": {of: near}}}


def state(*values):
    """Diagnoses that fire; all others are near."""
    def of(value):
        return series("scale_set_state", SET, state=value)

    return {
        "bad": {of(values[0]): 1}, "well": {of(values[0]): 0}, "labels": {**SET, "state": values[0]},
        "near": {"every other diagnosis": {of(value): int(value not in values) for value in DIAGNOSES}},
        "also": {value: ({of(value): 1}, {**SET, "state": value}) for value in values[1:]},
    }


def share(unhealthy, **labels):
    """Ten thousand enabled sets of which a share is unhealthy: a series stands for as many sets as its value says."""
    unhealthy = round(unhealthy * 10000)
    values = {}
    for number, healthy, weight in (("1", 1, 10000 - unhealthy), ("2", 0, unhealthy)):
        of = {**MANAGER, "scale_set": number, **labels}
        values |= {series("scale_set_healthy", of): healthy, series("scale_set_enabled", of): weight}
    return values


NONE_ENABLED = {name: 0 for name in share(0)}
ABLE = {"bad": share(1), "well": share(0), "labels": MANAGER}


def remedies(outcome, mode="heal", remedy="toggle"):
    return series("remedies_total", MANAGER, remedy=remedy, outcome=outcome, mode=mode)


def once(of, *pauses):
    """Events of a counter with pauses between; the first and the last pause are before and after all."""
    phases = [(pauses[0], {of: "="})]
    for pause in pauses[1:]:
        phases += [(1, {of: "+1"}), (pause, {of: "="})]
    return phases


UNVERIFIED = remedies("unverified")
CRASHES = series("manager_restarts_total", MANAGER, kind="crash")
WOULD = remedies("would_act", "dry_run")
ENABLED = series("scale_set_enabled", SET)
LISTENING = series("scale_set_state", SET, state="listening")
LAST = series("last_sweep_timestamp_seconds", MANAGER)
INTERVAL = series("interval_seconds", MANAGER)
BUILD = series("build_info", {"version": "1"})
QUOTA = {**MANAGER, "endpoint": "github.com"}
GITHUB = {**MANAGER, "target": "github"}


def failed(reason="timeout", operation="list_github_sets"):
    return series("probe_failures_total", MANAGER, target="github", operation=operation, reason=reason)


def asked(operation="list_github_sets", target="github"):
    return series("probe_duration_seconds_count", MANAGER, target=target, operation=operation)


def left(scope, labels=None):
    return series("budget_remaining", labels or MANAGER, scope=scope)


def never(here, *others):
    """A set that does not listen, beside others that do."""
    values = {series("scale_set_enabled", here): 1, series("scale_set_state", here, state="unheld"): 1}
    return values | {series("scale_set_state", {**here, **of}, state="listening"): 1 for of in others}


def gone(label, minutes=20):
    """One of two medics is gone; a label distinguishes their managers."""
    there = {**HERE, label: "another"}
    here = {BUILD: 1, series("manager_up", HERE): 1}
    return [(10, here | {series("manager_up", there): 1}), (minutes, here)], there


CASES = {
    "ScaleSetStuck": gauge("scale_set_healthy", 0, 1, 1, **SET),
    "ScaleSetStuckLong": gauge("scale_set_healthy", 0, 1, 1, **SET),
    "ScaleSetUnheld": state("unheld"),
    "ScaleSetNeverPolled": {
        "bad": {ENABLED: 1, LISTENING: 0}, "well": {ENABLED: 1, LISTENING: 1}, "labels": SET, "onset": 60,
        "near": {
            "it is disabled": [(80, {ENABLED: 0, LISTENING: 0})],
            "the medic was restarted half an hour ago": [
                (30, {series("scale_set_enabled", SET, instance="a"): 1, series("scale_set_state", SET, instance="a", state="listening"): 1}),
                (58, {series("scale_set_enabled", SET, instance="b"): 1, series("scale_set_state", SET, instance="b", state="listening"): 0})],
        },
        "also": {
            f"another {label} listens": ([(80, never({**HERE, "scale_set": "7"}, {label: "another"}))], {**HERE, "scale_set": "7"})
            for label in [*HERE, "scale_set"]
        },
    },
    "ScaleSetLeftDisabled": gauge("scale_set_disabled_by_medic", 1, 0, 0, **SET),
    "ScaleSetHeldElsewhere": state("held_elsewhere"),
    "ScaleSetMissing": state("missing", "mismatched"),
    "ScaleSetFlapping": state("flapping"),
    "ScaleSetUnauthorized": state("unauthorized"),
    "AllScaleSetsStuck": {
        **ABLE,
        "near": {"one of two is well": share(0.5), "one of twenty is well": share(0.95), "none is enabled": NONE_ENABLED},
        "also": {
            # Only the sets that are enabled count, by whichever pod they are seen.
            "a disabled set is well": ({**share(1), series("scale_set_healthy", MANAGER, scale_set="3"): 1,
                                        series("scale_set_enabled", MANAGER, scale_set="3"): 0}, MANAGER),
            "the only set": ({series("scale_set_healthy", SET): 0, series("scale_set_enabled", SET): 1}, MANAGER),
            "seen by a pod": (share(1, instance="10.0.0.1:9810", pod="garm-1"), MANAGER),
        },
    },
    "TreatmentUnverified": {
        "bad": {UNVERIFIED: "+1"}, "well": {UNVERIFIED: "="}, "labels": MANAGER, "onset": 1, "after": 58,
        "near": {
            "one": once(UNVERIFIED, 3, 20),
            "two, more than an hour apart": (once(UNVERIFIED, 3, 62, 15), 14),
            "a dry run": {remedies("unverified", "dry_run"): "+1"},
            "other outcomes": {remedies("recovered"): "+1", remedies("failed"): "+1"},
        },
        "also": {
            "two, less than an hour apart": (once(UNVERIFIED, 3, 45, 4), MANAGER),
            "one of each remedy": ([(3, {UNVERIFIED: "=", remedies("unverified", remedy="delete_session"): "="}),
                                    (1, {UNVERIFIED: "+1", remedies("unverified", remedy="delete_session"): "+1"}),
                                    (3, {UNVERIFIED: "=", remedies("unverified", remedy="delete_session"): "="})], MANAGER),
        },
    },
    "HealBudgetExhausted": {
        "bad": {left("manager"): 0, left("scale_set_min"): 2}, "well": {left("manager"): 0}, "labels": {**MANAGER, "scope": "manager"},
        "near": {
            "one is left": {left("manager"): 1, left("scale_set_min"): 1},
            "no set waits for a treatment": {left("manager"): 0},
            "the last treatment takes a while": [(3, {left("manager"): 0, left("scale_set_min"): 0}), (15, {left("manager"): 0})],
            **{f"another {label} waits": {left("manager", HERE): 0, left("scale_set_min", there): 2}
               for label, there in zip(HERE, ELSEWHERE)},
        },
        "also": {"the set's own": ({left("manager"): 5, left("scale_set_min"): 0}, {**MANAGER, "scope": "scale_set_min"})},
    },
    "HealBreakerOpen": gauge("breaker_open", 1, 0, 0, **MANAGER),
    "HealBreakerOpenLong": gauge("breaker_open", 1, 0, 0, **MANAGER),
    "HealIntentsOpen": gauge("open_intents", 1, 0, 0, **MANAGER),
    "DryRunWouldHeal": {
        "bad": {WOULD: "+1"}, "well": {WOULD: "="}, "labels": MANAGER, "after": 14,
        "near": {"treatments": {remedies("recovered"): "+1", remedies("would_act"): "+1"}, "none": {WOULD: "="}},
        "also": {"one of several remedies": ({WOULD: "+1", remedies("would_act", "dry_run", "session_check"): "="}, MANAGER)},
    },
    "ManagerUnseen": gauge("manager_up", 0, 1, 1, **MANAGER),
    "ManagerCrashLoop": {
        "bad": {CRASHES: "+1"}, "well": {CRASHES: "="}, "labels": MANAGER, "onset": 2, "after": 27,
        "near": {
            "two": once(CRASHES, 3, 1, 20),
            "two, and two long after": once(CRASHES, 3, 1, 32, 1, 10),
            "clean restarts": {series("manager_restarts_total", MANAGER, kind="clean"): "+1"},
        },
        "also": {"three within half an hour": (once(CRASHES, 5, 10, 10, 3), MANAGER)},
    },
    "EvidenceSourceDown": gauge("source_up", 0, 1, 1, **MANAGER, source="actions_service"),
    "MedicRequestsFailing": {
        "bad": {failed(): "+3", asked(): "+4"}, "well": {failed(): "=", asked(): "+4"}, "labels": GITHUB, "onset": 6, "after": 2,
        "near": {
            "just under half": [(45, {failed(): "+49", asked(): "+100"})],
            **{f"answers of a kind, {reason}": {failed(reason): "+90", failed(): "+1", asked(): "+100"}
               for reason in ("conflict", "not_found", "not_enabled", "held_back")},
        },
        "also": {
            "just over half": ([(45, {failed(): "+51", asked(): "+100"})], GITHUB),
            "several operations and reasons": ({failed(): "+26", failed("tls", "delete_session"): "+26", asked(): "+50",
                                                asked("delete_session"): "+50"}, GITHUB),
            "the manager answers": ({failed(): "+3", asked(): "+4", asked("list_scale_sets", "manager"): "+90"}, GITHUB),
        },
    },
    "SweepStalled": {
        "bad": {LAST: "=", INTERVAL: 15}, "well": {LAST: "now", INTERVAL: 15}, "labels": MANAGER, "onset": 3,
        "near": {
            "just under three minutes": {LAST: "now-175", INTERVAL: 15},
            "an interval of ten minutes": {LAST: "now-2900", INTERVAL: 600},
            "an interval of five minutes": {LAST: "now-300", INTERVAL: 300},
        },
        "also": {
            "just over three minutes": ({LAST: "now-190", INTERVAL: 15}, MANAGER),
            "more than five long intervals": ({LAST: "now-3100", INTERVAL: 600}, MANAGER),
            "an interval without a metric": ({LAST: "now-190"}, MANAGER),
        },
    },
    "MedicAbsent": {
        "bad": {}, "well": {BUILD: 1}, "labels": {}, "without": [(4, None), (5, {})],
        "near": {
            "it runs": {BUILD: 1, series("manager_up", HERE): 0},
            "it moved to another pod": [(10, {BUILD: 1, series("manager_up", HERE, instance="a"): 1}),
                                        (30, {BUILD: 1, series("manager_up", HERE, instance="b"): 1})],
            "a manager was taken away a day ago": (gone("manager", 1450)[0], 5),
        },
        "also": {
            **{f"the only one of a {label}": gone(label) for label in HERE},
            "for hours": gone("manager", 500),
            "all of them": ([(5, {BUILD: 1, series("manager_up", HERE): 1}), (15, {})], [{}, HERE]),
        },
    },
    "GithubQuotaLow": {
        **gauge("github_rate_limit_remaining", 12, 4000, 500, **QUOTA),
        "also": {"just below": ({series("github_rate_limit_remaining", QUOTA): 499}, QUOTA)},
    },
    "ScaleSetSloBurnFast": {
        **ABLE, "after": 5,
        "near": {
            "a burn of 14": [(75, share(0.07))],
            "the hour just below, five minutes above": ([(55, share(0.064)), (8, share(0.12))], 5),
            "the hour above, five minutes just below": ([(55, share(0.1)), (10, share(0.07))], 3),
            "the hour above, five minutes well": ([(50, share(0.2)), (8, share(0))], 2),
            "more than an hour ago": ([(30, share(0.5)), (62, share(0)), (5, share(0.2))], 4),
        },
        "also": {
            "a burn of 15": ([(75, share(0.075))], MANAGER),
            "most of it half an hour ago": ([(10, share(0)), (8, share(0.6)), (32, share(0)), (8, share(0.1))], MANAGER),
            "five minutes above, well now": ([(50, share(0.2)), (3, share(0))], MANAGER),
            "no set was enabled before": ([(10, NONE_ENABLED), (20, share(0.5))], MANAGER),
        },
    },
    "ScaleSetSloBurnSlow": {
        **ABLE, "after": 30,
        "near": {
            "a burn of 5.8": [(400, share(0.029))],
            "six hours just below, half an hour above": ([(360, share(0.028)), (21, share(0.06))], 3),
            "six hours above, half an hour just below": ([(300, share(0.05)), (40, share(0.029))], 3),
            "six hours above, half an hour well": ([(200, share(0.1)), (33, share(0))], 2),
            "more than six hours ago": ([(100, share(0.5)), (362, share(0)), (22, share(0.2))], 3),
        },
        "also": {
            "a burn of 6.2": ([(400, share(0.031))], MANAGER),
            "most of it four hours ago": ([(5, share(0)), (60, share(0.2)), (200, share(0)), (21, share(0.2))], MANAGER),
            "half an hour above, well now": ([(200, share(0.1)), (12, share(0))], MANAGER),
        },
    },
}
