#!/usr/bin/env python3
"""Checks the systemd units: systemd accepts them, docs/install.md has the exposure level that systemd computes, and both
services have the same restrictions."""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNITS = ROOT / "packaging/systemd"
SERVICES = ["scaleset-medic.service", "scaleset-medic-once.service"]
# Settings that differ on purpose, because one service runs permanently and the other ends.
OWN = {"Type", "ExecStart", "Restart", "RestartSec", "RestartPreventExitStatus", "SuccessExitStatus", "TimeoutStartSec"}
# systemd calls a level below 2 "OK".
LIMIT = 1.9


def service(name):
    text = (UNITS / name).read_text().partition("[Service]")[2].partition("\n[")[0]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if line.partition("=")[0] not in OWN]


def verify():
    """Verifies a copy in which the programs exist, because systemd looks for them."""
    with tempfile.TemporaryDirectory() as folder:
        for path in UNITS.iterdir():
            if path.suffix in (".service", ".timer"):
                text = path.read_text().replace("/usr/local/bin/scaleset-medic", "/bin/true")
                pathlib.Path(folder, path.name).write_text(text)
        units = sorted(map(str, pathlib.Path(folder).iterdir()))
        done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        # Messages about other units of this machine do not count.
        ours = [line for line in done.stderr.splitlines() if "scaleset-medic" in line]
        if ours:
            sys.exit("systemd does not accept the units:\n" + "\n".join(ours))


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
        sys.exit(f"the services have different restrictions: {sorted(set(first) ^ set(second))}")
    text = (ROOT / "docs/install.md").read_text()
    stated = re.search(r"exposure level is ([\d.]+) of 10 by [^(]*\(systemd\s+(\d+)", text)
    version = subprocess.run(["systemd-analyze", "--version"], check=True, capture_output=True, text=True).stdout
    here = version.split()[1]
    # Each version of systemd computes it differently: exact for the stated version, a limit for others.
    exact = stated and stated[2] == here
    if not stated or exact and set(figures.values()) != {stated[1]} or max(map(float, figures.values())) > LIMIT:
        sys.exit(f"docs/install.md does not have the exposure level of systemd-analyze {here}: {figures}")
    print(f"systemd {here} accepts the units; exposure level {', '.join(sorted(set(figures.values())))} of 10")


if __name__ == "__main__":
    main()
