#!/usr/bin/env python3
"""Writes the bill of materials of the production binary (no lab) as CycloneDX 1.5 JSON, from `cargo metadata` and the
checksums of Cargo.lock: what is compiled into it, and what is used to build it (scope `excluded`). One commit gives the
same document: its date is the commit's, its serial number is made from the lock file.

  sbom.py [--target TRIPLE] [--output FILE]
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


def metadata(target):
    command = [
        "cargo", "metadata", "--locked", "--format-version=1", "--no-default-features", f"--filter-platform={target}",
    ]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def checksums():
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def reach(nodes, root, kinds, barred=frozenset()):
    """What the root is built of, by dependencies of these kinds (None is a normal one), never through a barred package."""
    found, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            package = dependency["pkg"]
            wanted = kinds & {kind["kind"] for kind in dependency["dep_kinds"]}
            if wanted and package not in found and package not in barred:
                found.add(package)
                waiting.append(package)
    return found


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, inside, checksum):
    entry = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
        "scope": "required" if inside else "excluded",
    }
    if package["license"]:
        # The registry has old expressions with `/` for OR.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def moment():
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        command = ["git", "log", "-1", "--format=%ct"]
        epoch = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bill(target=TARGET):
    """The document."""
    known = metadata(target)
    packages = {package["id"]: package for package in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    root, sums = known["resolve"]["root"], checksums()
    found = reach(nodes, root, {None, "build"})
    # A macro runs in the compiler, and so does everything that is only reached through one.
    inside = reach(nodes, root, {None}, {id for id, package in packages.items() if is_macro(package)})
    listed = sorted((packages[id] for id in found if id != root), key=lambda package: (package["name"], package["version"]))
    graph = [
        {
            "ref": purl(packages[id]),
            "dependsOn": sorted({purl(packages[d["pkg"]]) for d in nodes[id]["deps"] if d["pkg"] in found}),
        }
        for id in sorted(found, key=lambda id: purl(packages[id]))
    ]
    main = packages[root]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, target + (ROOT / 'Cargo.lock').read_text())}",
        "version": 1,
        "metadata": {
            "timestamp": moment(),
            "component": {
                "type": "application",
                "bom-ref": purl(main),
                "name": main["name"],
                "version": main["version"],
                "purl": purl(main),
                "licenses": [{"expression": main["license"]}],
            },
            "properties": [{"name": "target", "value": target}],
        },
        "components": [
            component(package, package["id"] in inside, sums.get((package["name"], package["version"])))
            for package in listed
        ],
        "dependencies": graph,
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
