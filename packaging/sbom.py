#!/usr/bin/env python3
"""Writes the SBOM of the shipped binary (without the lab) as CycloneDX 1.5 JSON: what is compiled into it, and what builds it
(scope `excluded`). One commit gives the same document: its date is the date of the commit, and its serial number is derived
from Cargo.lock.

  sbom.py [--target TRIPLE] [--output FILE]

(cargo-cyclonedx can only be had by compiling it; cdxgen reads Cargo.lock and so lists what features leave out.)
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
NAME = "scaleset-medic"


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def tree(target, edges):
    """The dependency graph of the shipped binary: (name, version) of each package, and of those it depends on directly."""
    options = ["--locked", "--package", NAME, "--no-default-features", f"--target={target}", f"--edges={edges}"]
    graph, above = {}, []
    for line in cargo("tree", *options, "--prefix=depth", "--format={p}").splitlines():
        depth, name, version = re.match(r"(\d+)(\S+) v(\S+)", line).groups()
        package = (name, version)
        above = [*above[: int(depth)], package]
        graph.setdefault(package, set())
        if len(above) > 1:
            graph[above[-2]].add(package)
    return graph


def component(package, checksum, scope):
    """A package; those of this repository have no address in a registry."""
    entry = {"type": "library", "bom-ref": ref(package), "name": package["name"], "version": package["version"], "scope": scope}
    if package["source"]:
        entry["purl"] = f"pkg:cargo/{ref(package)}"
    if package["license"]:
        # The registry has old expressions with `/` for OR.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def ref(package):
    return f"{package['name']}@{package['version']}"


def moment():
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        command = ["git", "log", "-1", "--format=%ct"]
        epoch = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bill(target=TARGET):
    """The document."""
    known = json.loads(cargo("metadata", "--locked", "--format-version=1", f"--filter-platform={target}"))["packages"]
    packages = {(package["name"], package["version"]): package for package in known}
    lock = (ROOT / "Cargo.lock").read_text()
    sums = {(package["name"], package["version"]): package.get("checksum") for package in tomllib.loads(lock)["package"]}
    graph = tree(target, "normal,build")
    # A macro runs in the compiler, and so does everything that only a macro depends on.
    inside = tree(target, "normal,no-proc-macro")
    (main,) = [key for key in graph if key[0] == NAME]
    application = component(packages[main], None, None)
    del application["scope"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, target + lock)}",
        "version": 1,
        "metadata": {
            "timestamp": moment(),
            "component": application | {"type": "application"},
            "properties": [{"name": "target", "value": target}],
        },
        "components": [
            component(packages[key], sums[key], "required" if key in inside else "excluded")
            for key in sorted(graph) if key != main
        ],
        "dependencies": [
            {"ref": ref(packages[key]), "dependsOn": [ref(packages[other]) for other in sorted(graph[key])]}
            for key in sorted(graph)
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=TARGET)
    parser.add_argument("--output", type=pathlib.Path)
    given = parser.parse_args()
    text = json.dumps(bill(given.target), indent=2) + "\n"
    if given.output:
        given.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
