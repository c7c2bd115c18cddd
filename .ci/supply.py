#!/usr/bin/env python3
"""What comes from others: licences, bans and sources as deny.toml says, for every package that any feature or test uses;
a reason for every direct dependency; a bill of materials that fits its schema.

This reads deny.toml itself, in a second, so that the gate needs no cargo-deny, which is to be had only by compiling it
for a quarter of an hour. Where cargo-deny is installed the gate runs it as well. Advisories need its database from outside
the registries: they are part of a release (CONTRIBUTING.md).
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "packaging"))
import sbom  # noqa: E402

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def allowed(expression, licences):
    """Whether an SPDX expression can be met with these licences. A `/` of old manifests is an OR."""
    tokens = re.findall(r"[()]|[\w.+-]+", expression.replace("/", " OR "))

    def either():
        holds = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            holds = both() or holds
        return holds

    def both():
        holds = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            holds = one() and holds
        return holds

    def one():
        token = tokens.pop(0)
        if token == "(":
            holds = either()
            if tokens.pop(0) != ")":
                raise ValueError(expression)
            return holds
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in licences

    holds = either()
    if tokens:
        raise ValueError(expression)
    return holds


def prove_the_rule():
    for expression, expected in [
        ("MIT", True), ("MIT OR GPL-3.0", True), ("MIT AND GPL-3.0", False), ("GPL-3.0", False),
        ("(MIT OR GPL-3.0) AND ISC", True), ("GPL-3.0/MIT", True), ("ISC AND (GPL-3.0 OR AGPL-3.0)", False),
        ("Apache-2.0 WITH LLVM-exception", False), ("GPL-2.0 OR MIT AND GPL-3.0", False),
    ]:
        if allowed(expression, {"MIT", "ISC", "Apache-2.0"}) != expected:
            sys.exit(f"the licence rule is wrong about {expression}")


def packages():
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version=1"]
    for triple in tomllib.loads((ROOT / "deny.toml").read_text())["graph"]["targets"]:
        known = json.loads(
            subprocess.run([*command, f"--filter-platform={triple}"], cwd=ROOT, check=True, capture_output=True).stdout
        )
        used = {node["id"] for node in known["resolve"]["nodes"]}
        yield from (package for package in known["packages"] if package["id"] in used)


def main():
    prove_the_rule()
    deny = tomllib.loads((ROOT / "deny.toml").read_text())
    licences, banned = set(deny["licenses"]["allow"]), {ban["name"] for ban in deny["bans"]["deny"]}
    found = {(package["name"], package["version"]): package for package in packages()}
    wrong = []
    for (name, version), package in found.items():
        licence = package["license"]
        if not licence or not allowed(licence, licences):
            wrong.append(f"{name} {version} has the licence {licence}")
        if name in banned:
            wrong.append(f"{name} is banned")
        if package["source"] not in (REGISTRY, None) or package["source"] is None and name != "scaleset-medic":
            wrong.append(f"{name} comes from {package['source']}")
    reasons = (ROOT / "CONTRIBUTING.md").read_text()
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    for name in manifest["dependencies"]:
        if not re.search(rf"^\| .*`{re.escape(name)}`.* \|", reasons, re.M):
            wrong.append(f"CONTRIBUTING.md has no reason for {name}")
    bill = json.dumps(sbom.bill())
    if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill):
        wrong.append(f"the bill of materials is not CycloneDX: {str(error)[:300]}")
    if bill != json.dumps(sbom.bill()):
        wrong.append("the bill of materials is another each time")
    if wrong:
        sys.exit("supply chain: not so:\n  " + "\n  ".join(wrong))
    components = json.loads(bill)["components"]
    inside = sum(component["scope"] == "required" for component in components)
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    print(
        f"supply chain: {len(found)} packages with tests, {len(manifest['dependencies'])} direct, {inside} in the binary; "
        f"licences, bans and sources hold; in two versions: {', '.join(twice) or 'none'}"
    )


if __name__ == "__main__":
    main()
