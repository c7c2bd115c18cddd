"""Reads rules.yml without a YAML library: its alerts, in the one form in which that file writes them."""

import pathlib
import re

RULES = pathlib.Path(__file__).parent / "rules.yml"


class Alert:
    """One alert: its parts as the file has them."""

    def __init__(self, text):
        self.name = re.match(r"(\w+)\n", text)[1]
        self.expr = field(text, "expr")
        self.wait = field(text, "for")
        self.severity = re.search(r"labels: \{ severity: (\w+) \}", text)[1]
        self.annotations = {name: value.replace('\\"', '"') for name, value in re.findall(r'^          (\w+): "(.*)"$', text, re.M)}

    def says(self, labels):
        """The annotations as Prometheus fills them in for a series with these labels."""
        place = r"\{\{ (?:or )?\$labels\.(\w+) (?:`(.*?)` )?\}\}"
        fill = lambda text: re.sub(place, lambda m: labels.get(m[1]) or m[2] or "", text)
        return {name: fill(text) for name, text in self.annotations.items()}


def field(text, name):
    """A field's value: the rest of its line, or the block below it."""
    line = re.search(rf"^        {name}: (.*)$", text, re.M)
    if line[1] != "|":
        return line[1]
    block = re.match(r"(?:\n {10}.*)+", text[line.end():])[0]
    return "\n".join(row.strip() for row in block.strip("\n").splitlines())


def alerts(text=None):
    """All alerts of the rules, in their order."""
    found = re.split(r"^      - alert: ", text or RULES.read_text(), flags=re.M)[1:]
    return [Alert(body) for body in found]


def groups(text=None):
    """The names of the groups, in their order."""
    return re.findall(r"^  - name: (\S+)", text or RULES.read_text(), re.M)


def expressions(text=None):
    """Every expression: of the records and of the alerts, by name."""
    found = re.split(r"^      - (?=alert: |record: )", text or RULES.read_text(), flags=re.M)[1:]
    return {re.match(r"\w+: (\S+)", body)[1]: field(body, "expr") for body in found}


def seconds(duration):
    """A Prometheus duration in seconds."""
    return sum(int(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))
