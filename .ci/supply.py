#!/usr/bin/env python3
"""Checks what cargo-deny does not: every dependency has a comment that says why it is needed, and the SBOM fits its schema
and is the same each time.

  supply.py       in an environment that has the packages of requirements.txt
"""

import json
import pathlib
import re
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "packaging"))
import sbom  # noqa: E402


def dependencies(manifest):
    """The entries of [workspace.dependencies], else of [dependencies], that come from a registry; with their comments: at
    the end of a line or on the lines above it."""
    tables = re.split(r"^\[(.+)\]$", manifest, flags=re.M)
    named = dict(zip(tables[1::2], tables[2::2]))
    table = named.get("workspace.dependencies") or named["dependencies"]
    entry = r"^((?:#.*\n)*)([\w-]+) = ((?:[^#\n\[]|\[[^\]]*\])*)(#.*)?$"
    for above, name, value, beside in re.findall(entry, table, re.M):
        if not re.search(r"\bpath = ", value):
            yield name, re.sub(r"[#\s]+", " ", above + beside).strip()


def prove_the_rule():
    text = """[package]
name = "x"
[dependencies]
a = "1" # why a
# why b
b = { version = "1", features = [
  "c", # why c
] }
d = "1"

e = "1"
f = { path = "crates/f" }
[profile.dev]
debug = 1
"""
    found = dict(dependencies(text))
    expected = {"a": "why a", "b": "why b", "d": "", "e": ""}
    if found != expected or list(dependencies(text + "[workspace.dependencies]\nz = '1' # why\n")) != [("z", "why")]:
        sys.exit(f"the rule for comments is wrong: {found}")


def main():
    prove_the_rule()
    direct = dict(dependencies((ROOT / "Cargo.toml").read_text()))
    wrong = [f"Cargo.toml has no comment that says why {name} is needed" for name, why in direct.items() if not why]
    if not direct:
        wrong.append("Cargo.toml has no dependencies")
    bill = json.dumps(sbom.bill())
    if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill):
        wrong.append(f"the SBOM is not CycloneDX: {str(error)[:300]}")
    if bill != json.dumps(sbom.bill()):
        wrong.append("two SBOMs of one commit differ")
    if wrong:
        sys.exit("\n".join(wrong))
    components = json.loads(bill)["components"]
    inside = sum(component["scope"] == "required" for component in components)
    print(f"{len(direct)} direct dependencies, each with its reason; the SBOM lists {inside} packages in the binary and "
          f"{len(components) - inside} that build it")


if __name__ == "__main__":
    main()
