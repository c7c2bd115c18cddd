"""Finds faults of the dashboard: rules of Grafana's dashboard-linter that apply, and our own. (The dashboard-linter itself is
in no registry that the gate can use.)"""

import pathlib
import re

ALERTS = pathlib.Path(__file__).parent.parent / "manifests/prometheus/prometheusrule.yaml"


def faults(board):
    """One line for each fault."""
    found = []
    if not re.fullmatch(r"[a-z0-9-]{1,40}", board.get("uid") or ""):
        found.append("the uid is not stable")
    if board["templating"]["list"][0].get("type") != "datasource":
        found.append("the first variable is not the datasource")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    found += [f"no variable {name}" for name in ("datasource", "namespace", "manager", "scale_set") if name not in variables]
    if not board["annotations"]["list"]:
        found.append("no annotations")
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    if len(ids) != len(set(ids)):
        found.append("panels share an id")
    titles = [panel["title"] for panel in panels]
    found += [f"two panels are called {title}" for title in set(titles) if titles.count(title) > 1]
    for panel in panels:
        if panel["type"] != "row":
            found += [f"{panel['title']}: {fault}" for fault in panel_faults(panel, variables)]
    found += overlaps(panels)
    linked = {link["url"].rsplit("/", 1)[1].removesuffix(".md") for panel in panels for link in panel.get("links", [])}
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    found += [f"a link leads to no alert's runbook: {name}" for name in sorted(linked - alerts)]
    found += [f"no panel links to the runbook of {name}" for name in sorted(alerts - linked)]
    return found


def panel_faults(panel, variables):
    if not panel.get("description"):
        yield "no description"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "no unit"
    if panel["datasource"].get("uid") != "${datasource}":
        yield "its datasource is not the variable"
    if not panel.get("targets"):
        yield "no query"
    references = [target["refId"] for target in panel["targets"]]
    if len(references) != len(set(references)):
        yield "two queries share a refId"
    for target in panel["targets"]:
        expression = target["expr"]
        if target["datasource"].get("uid") != "${datasource}":
            yield f"query {target['refId']} does not use the variable datasource"
        if re.search(r"\b(rate|increase|irate)\([^\[]*\[(?!\$__rate_interval|1h)", expression):
            yield "a rate is not over $__rate_interval"
        if "scaleset_medic_" in expression and "$manager" not in expression and "build_info" not in expression:
            yield "it does not use the variable manager"
        for labels in re.findall(r"\bon \(([^)]*)\)", expression):
            # Two managers may have one name, and two medics may be scraped for one manager.
            if lacking := {"cluster", "namespace", "job", "instance"} - set(labels.split(", ")):
                yield f"a join without {', '.join(sorted(lacking))}"
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            if "manager" in labels and not {"cluster", "namespace", "job"} <= set(labels.split(", ")):
                yield f"managers of the same name are not distinguished: by ({labels})"
        for name in re.findall(r"\$\{?(\w+)", expression):
            if name not in variables and not name.startswith("__"):
                yield f"unknown variable {name}"
        for opening, closing in ("()", "{}", "[]"):
            if expression.count(opening) != expression.count(closing):
                yield f"unbalanced {opening}{closing}"
        if panel["type"] not in ("table", "row") and not target.get("legendFormat"):
            yield "no legend"


def overlaps(panels):
    """Panels that overlap or exceed the 24 columns."""
    places = {}
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            yield f"{panel['title']} is too wide"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = places.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']} overlaps {other}"
                    return
