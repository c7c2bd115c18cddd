#!/usr/bin/env python3
"""Checks the systemd units: that systemd takes them, how exposed it finds them (a figure that docs/install.md states), and
that the two services are confined alike."""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNITS = ROOT / "packaging/systemd"
SERVICES = ["scaleset-medic.service", "scaleset-medic-once.service"]
# Settings that differ on purpose, because one runs on and the other ends.
OWN = {"Type", "ExecStart", "Restart", "RestartSec", "RestartPreventExitStatus", "SuccessExitStatus", "TimeoutStartSec"}


def service(name):
    text = (UNITS / name).read_text().partition("[Service]")[2].partition("\n[")[0]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if line.partition("=")[0] not in OWN]


def verify():
    """In a copy whose programs exist: systemd looks for them."""
    with tempfile.TemporaryDirectory() as folder:
        for path in UNITS.iterdir():
            if path.suffix in (".service", ".timer"):
                text = path.read_text().replace("/usr/local/bin/scaleset-medic", "/bin/true")
                pathlib.Path(folder, path.name).write_text(text)
        units = sorted(map(str, pathlib.Path(folder).iterdir()))
        done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        # Other units of this machine are none of ours.
        ours = [line for line in done.stderr.splitlines() if "scaleset-medic" in line]
        if ours:
            sys.exit("systemd does not take the units:\n" + "\n".join(ours))


def exposure(name):
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout + done.stderr)
    return found[1] if found else sys.exit(f"no figure: {done.stdout}{done.stderr}")


def main():
    verify()
    figures = {name: exposure(name) for name in SERVICES}
    first, second = map(service, SERVICES)
    if first != second:
        sys.exit(f"the services are not confined alike: {sorted(set(first) ^ set(second))}")
    stated = re.search(r"exposure level is ([\d.]+)", (ROOT / "docs/install.md").read_text())
    if not stated or set(figures.values()) != {stated[1]}:
        sys.exit(f"docs/install.md does not state what systemd-analyze says: {figures}")
    print(f"systemd takes the units; exposure level {stated[1]} of 10, as docs/install.md says")


if __name__ == "__main__":
    main()
