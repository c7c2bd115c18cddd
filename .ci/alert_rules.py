"""Reads the alert rules of manifests/prometheus/prometheusrule.yaml."""

import json
import pathlib
import re

import yaml

RULES = pathlib.Path(__file__).parent.parent / "manifests/prometheus/prometheusrule.yaml"


class Alert:
    """One alert with its annotations."""

    def __init__(self, rule):
        self.name, self.wait, self.severity = rule["alert"], rule["for"], rule["labels"]["severity"]
        self.expr, self.annotations = trimmed(rule["expr"]), rule["annotations"]

    def filled(self, labels):
        """The annotations as Prometheus fills them in for a series with these labels."""
        place = r"\{\{ (?:or )?\$labels\.(\w+) (?:`(.*?)` )?\}\}"
        fill = lambda text: re.sub(place, lambda m: labels.get(m[1]) or m[2] or "", text)
        return {name: fill(text) for name, text in self.annotations.items()}


def trimmed(expr):
    """An expression without indentation."""
    return "\n".join(row.strip() for row in expr.strip().splitlines())


def groups():
    """A fresh copy of the rule groups."""
    return yaml.safe_load(RULES.read_text())["spec"]["groups"]


def rules(of=None):
    """All rules of the groups, in their order."""
    return [rule for group in of or groups() for rule in group["rules"]]


def alerts():
    return [Alert(rule) for rule in rules() if "alert" in rule]


def rule_file(of=None):
    """The text of a rule file for Prometheus. JSON is YAML."""
    return json.dumps({"groups": of or groups()}, indent=1)


def seconds(duration):
    """A Prometheus duration in seconds."""
    return sum(int(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))
