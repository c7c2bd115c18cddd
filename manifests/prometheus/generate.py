#!/usr/bin/env python3
"""Writes prometheusrule.yaml, the Kubernetes form of rules.yml. `--check` fails when it is not what this writes."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
HEAD = """\
# Made by generate.py from rules.yml; edit that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: scaleset-medic
  labels:
    app.kubernetes.io/name: scaleset-medic
spec:
"""


def main():
    rules = (HERE / "rules.yml").read_text()
    body = rules[rules.index("groups:"):]
    text = HEAD + "".join(f"  {line}".rstrip() + "\n" for line in body.splitlines())
    target = HERE / "prometheusrule.yaml"
    if "--check" in sys.argv:
        if not target.exists() or target.read_text() != text:
            sys.exit(f"{target} is not current: run {pathlib.Path(__file__).name}")
    else:
        target.write_text(text)


main()
