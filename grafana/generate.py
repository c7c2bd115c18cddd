#!/usr/bin/env python3
"""Writes grafana/scaleset-medic.json, if lint.py finds no fault. `--check` fails if the file differs from what this script
writes."""

import json
import pathlib
import sys

import lint

HERE = pathlib.Path(__file__).parent
TARGET = HERE / "scaleset-medic.json"
RUNBOOKS = "https://github.com/scaleset-medic/scaleset-medic/blob/main/docs/runbooks"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The labels that distinguish managers: every overlay calls its GARM "garm".
BY = "cluster, namespace, job, manager"
# The same within one scrape, to join two metrics of one medic.
JOIN = "cluster, namespace, job, instance, manager, scale_set"
PICK = 'namespace=~"$namespace",manager=~"$manager"'
PICK_SET = PICK + ',scale_set=~"$scale_set"'


class Board:
    """Places panels from left to right, row by row, on Grafana's 24 columns."""

    def __init__(self):
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, title):
        self.y += self.height
        self.x, self.height = 0, 1
        self.panels.append({
            "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1}, "id": len(self.panels) + 1,
        })
        self.y += 1
        self.height = 0

    def add(self, kind, title, description, queries, width, height=8, unit="short", options=None, defaults=None, links=None, form=None,
            transformations=None):
        if self.x + width > 24:
            self.x, self.y, self.height = 0, self.y + self.height, 0
        field = {"unit": unit}
        # A table shows the present; a heatmap needs its buckets as they are.
        shape = {"table": {"format": "table", "instant": True}, "heatmap": {"format": "heatmap"}}.get(form or kind, {})
        field.update(defaults or {})
        self.panels.append({
            "type": kind, "title": title, "description": description, "datasource": SOURCE,
            "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height}, "id": len(self.panels) + 1,
            "targets": [
                {"datasource": SOURCE, "refId": chr(65 + n), "expr": expr, "legendFormat": legend, "editorMode": "code", **shape}
                for n, (expr, legend) in enumerate(queries)
            ],
            "fieldConfig": {"defaults": field, "overrides": []},
            "options": options or {}, "transformations": transformations or [],
            "links": [{"title": f"Runbook {name}", "url": f"{RUNBOOKS}/{name}.md", "targetBlank": True} for name in links or []],
        })
        self.x += width
        self.height = max(self.height, height)


def well_or_ill():
    return {
        "mappings": [{"type": "value", "options": {
            "0": {"text": "unhealthy", "color": "red", "index": 0}, "1": {"text": "healthy", "color": "green", "index": 1}}}],
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"color": "red", "value": None}, {"color": "green", "value": 1}]},
    }


def named(expr):
    """Joins a per-set expression with the set's name."""
    return f"{expr} * on ({JOIN}) group_left (name) scaleset_medic_scale_set_info"


def columns(hidden, names):
    """Which columns of a table are hidden, and what the others are called."""
    return [{"id": "organize", "options": {"excludeByName": {name: True for name in hidden}, "renameByName": names}}]


HIDDEN = ["Time", "__name__", "instance", "job", "pod", "container", "endpoint", "entity", "github_id"]


def build():
    board = Board()
    board.row("Health of scale sets")
    board.add("state-timeline", "Scale sets", "Green while a set listens, is in its grace period after a start, or was disabled by an operator.",
              [(named(f"scaleset_medic_scale_set_healthy{{{PICK_SET}}}"), "{{namespace}} {{manager}} / {{name}}")],
              12, 9, unit="bool", defaults=well_or_ill(), links=["AllScaleSetsStuck", "ScaleSetHeldElsewhere", "ScaleSetMissing", "ScaleSetFlapping", "ScaleSetUnauthorized"],
              options={"mergeValues": True, "showValue": "never", "rowHeight": 0.8})
    board.add("table", "Stuck since", "Unhealthy sets, with their diagnosis and the time it began.",
              [(named(f"(scaleset_medic_scale_set_stuck_since_timestamp_seconds{{{PICK_SET}}} > 0) * 1000 * on ({JOIN}) "
                      f"group_left (state) (scaleset_medic_scale_set_state{{{PICK_SET}}} == 1)"), "")],
              12, 9, unit="dateTimeAsIso", links=["ScaleSetStuck", "ScaleSetStuckLong", "ScaleSetNeverPolled", "ScaleSetUnheld"],
              transformations=columns(HIDDEN, {"Value": "stuck since", "name": "set", "scale_set": "id"}))
    board.add("table", "Last remedies", "The latest treatment of each set within a day: remedy, start, outcome.",
              [(named(f"(scaleset_medic_scale_set_last_remedy_timestamp_seconds{{{PICK_SET}}} > time() - 86400) * 1000"), "")],
              12, 7, unit="dateTimeAsIso", links=["TreatmentUnverified", "DryRunWouldHeal", "ScaleSetLeftDisabled"],
              transformations=columns(HIDDEN, {"Value": "began", "name": "set", "scale_set": "id"}))
    board.add("stat", "Breaker", "Open: healing is stopped.", [(f"max by ({BY}) (scaleset_medic_breaker_open{{{PICK}}})", "{{namespace}} {{manager}}")],
              4, 7, unit="bool_on_off", defaults={"mappings": [{"type": "value", "options": {
                  "0": {"text": "closed", "color": "green", "index": 0}, "1": {"text": "OPEN", "color": "red", "index": 1}}}]},
              links=["HealBreakerOpen", "HealBreakerOpenLong"])
    board.add("stat", "Treatments left", "What is left of the hourly budget of GARM, and the smallest budget of an unhealthy set that waits for a treatment.",
              [(f"min by ({BY}, scope) (scaleset_medic_budget_remaining{{{PICK}}})", "{{namespace}} {{manager}} {{scope}}")], 4, 7,
              links=["HealBudgetExhausted"])
    board.add("stat", "Able to receive jobs, 30 days", "Share of the minutes of enabled sets. The objective is 99.5 %.",
              [(f"avg_over_time(manager:scaleset_medic_able:ratio{{{PICK}}}[30d])", "{{namespace}} {{manager}}")], 4, 7, unit="percentunit",
              defaults={"decimals": 2, "thresholds": {"mode": "absolute", "steps": [
                  {"color": "red", "value": None}, {"color": "green", "value": 0.995}]}},
              links=["ScaleSetSloBurnFast", "ScaleSetSloBurnSlow"])

    board.row("Healing")
    board.add("timeseries", "Finished remedies", "By remedy and outcome, per interval.",
              [(f"sum by (remedy, outcome, mode) (increase(scaleset_medic_remedies_total{{{PICK}}}[$__rate_interval])) > 0",
                "{{remedy}} {{outcome}} {{mode}}")], 8, unit="short", links=["TreatmentUnverified", "DryRunWouldHeal"])
    board.add("timeseries", "Recoveries by cause", "Whether a set recovered automatically or by a remedy.",
              [(f"sum by (cause) (increase(scaleset_medic_recoveries_total{{{PICK}}}[$__rate_interval]))", "{{cause}}")], 8)
    board.add("timeseries", "Blocked", "Guards that started to block a remedy that was due.",
              [(f"sum by (guard) (increase(scaleset_medic_withheld_total{{{PICK}}}[$__rate_interval])) > 0", "{{guard}}")], 8)
    board.add("heatmap", "Time to recover", "From the first unhealthy finding until the set listened again.",
              [(f"sum by (le) (increase(scaleset_medic_time_to_recover_seconds_bucket{{{PICK}}}[$__rate_interval]))", "{{le}}")],
              12, unit="s")
    board.add("heatmap", "Stale session lifetime", "How long GitHub kept stale sessions that nobody deleted.",
              [(f"sum by (le) (increase(scaleset_medic_stale_session_lifetime_seconds_bucket{{{PICK}}}[$__rate_interval]))", "{{le}}")],
              12, unit="s")

    board.row("Managers and sources")
    board.add("state-timeline", "GARM", "Whether each GARM answers.",
              [(f"scaleset_medic_manager_up{{{PICK}}}", "{{namespace}} {{manager}}")], 8, unit="bool", defaults=well_or_ill(), links=["ManagerUnseen"])
    board.add("timeseries", "Restarts of GARM", "By how the previous run of GARM ended.",
              [(f"sum by ({BY}, kind) (increase(scaleset_medic_manager_restarts_total{{{PICK}}}[$__rate_interval]))", "{{namespace}} {{manager}} {{kind}}")], 8, links=["ManagerCrashLoop"])
    board.add("timeseries", "Sources", "1 while a source answers.",
              [(f"scaleset_medic_source_up{{{PICK}}}", "{{namespace}} {{manager}} {{source}}")], 8, unit="bool", links=["EvidenceSourceDown"])
    board.add("timeseries", "Instances that linger in `deleted`", "Only a running worker removes them.",
              [(f"sum by ({BY}) (scaleset_medic_lingering_instances{{{PICK_SET}}})", "{{namespace}} {{manager}}")], 8)
    board.add("timeseries", "GitHub quota left", "Of the credentials of the medic.",
              [(f"scaleset_medic_github_rate_limit_remaining{{{PICK}}}", "{{namespace}} {{manager}} {{endpoint}}")], 8, links=["GithubQuotaLow"])
    board.add("timeseries", "Open intents", "Unfinished treatments, whose requests may have taken effect.",
              [(f"scaleset_medic_open_intents{{{PICK}}}", "{{namespace}} {{manager}}")], 8, links=["HealIntentsOpen"])

    board.row("The medic itself")
    board.add("timeseries", "Failed requests", "Requests to GARM and GitHub without a usable answer.",
              [(f"sum by (target, operation, reason) (rate(scaleset_medic_probe_failures_total{{{PICK}}}[$__rate_interval])) > 0",
                "{{target}} {{operation}} {{reason}}")], 8, unit="ops", links=["MedicRequestsFailing"])
    board.add("timeseries", "Sweep duration, 95th percentile", "Reading all sources, diagnosis, decision and requests.",
              [(f"histogram_quantile(0.95, sum by (le, {BY}) (rate(scaleset_medic_sweep_duration_seconds_bucket{{{PICK}}}[$__rate_interval])))",
                "{{namespace}} {{manager}}")], 8, unit="s", links=["SweepStalled"])
    board.add("timeseries", "Own processor time", "Seconds of processor time per second.",
              [("rate(process_cpu_seconds_total[$__rate_interval]) and on (cluster, namespace, job, instance) scaleset_medic_build_info", "{{instance}}")], 4, unit="s")
    board.add("timeseries", "Own memory", "Resident memory.",
              [("process_resident_memory_bytes and on (cluster, namespace, job, instance) scaleset_medic_build_info", "{{instance}}")], 4, unit="bytes",
              links=["MedicAbsent"])
    board.add("timeseries", "Requests", "To GARM and GitHub, by operation: the load that the medic causes.",
              [(f"sum by (target, operation) (rate(scaleset_medic_probe_duration_seconds_count{{{PICK}}}[$__rate_interval])) > 0",
                "{{target}} {{operation}}")], 12, unit="reqps")
    board.add("timeseries", "Request duration, 95th percentile", "How long GARM and GitHub take to answer.",
              [(f"histogram_quantile(0.95, sum by (le, target) (rate(scaleset_medic_probe_duration_seconds_bucket{{{PICK}}}[$__rate_interval])))",
                "{{target}}")], 12, unit="s")

    def variable(name, label, query):
        return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
                "definition": query, "multi": True, "includeAll": True, "refresh": 2, "sort": 1,
                "current": {"text": "All", "value": "$__all"}}

    return {
        "uid": "scaleset-medic", "title": "scaleset-medic", "tags": ["scaleset-medic", "github-actions", "garm"],
        "schemaVersion": 39, "version": 1, "editable": True, "timezone": "", "refresh": "30s", "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "description": "Runner scale sets: which are healthy, which are stuck and why, and what was done.",
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
            # All: also where there are no namespaces.
            {**variable("namespace", "Namespace", "label_values(scaleset_medic_manager_up, namespace)"), "allValue": ".*"},
            variable("manager", "Manager", 'label_values(scaleset_medic_manager_up{namespace=~"$namespace"}, manager)'),
            variable("scale_set", "Scale set", f'label_values(scaleset_medic_scale_set_healthy{{{PICK}}}, scale_set)'),
        ]},
        "links": [{"title": "Runbooks", "type": "link", "url": f"{RUNBOOKS}/README.md", "targetBlank": True, "icon": "doc"}],
        "annotations": {"list": [{
            "name": "Remedies", "enable": True, "iconColor": "blue", "datasource": SOURCE,
            "expr": f'sum by ({BY}, remedy, outcome) (increase(scaleset_medic_remedies_total{{{PICK},mode="heal"}}[1m])) > 0',
            "titleFormat": "{{remedy}}: {{outcome}}", "tagKeys": "manager",
        }]},
        "panels": board.panels,
    }


def main():
    board = build()
    if wrong := lint.faults(board):
        sys.exit("\n".join(wrong))
    text = json.dumps(board, indent=1) + "\n"
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET} is not current: run grafana/generate.py")
        return
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
