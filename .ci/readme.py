#!/usr/bin/env python3
"""Runs every command that README.md shows in a `console` block, in its order. A comment `# exit N` on the line names
another exit code than 0 as the right one."""

import pathlib
import re
import subprocess
import sys
import time

README = pathlib.Path(__file__).parent.parent / "README.md"


def commands(text):
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                command, _, note = line[2:].partition("  # ")
                expected = re.search(r"exit (\d+)", note)
                yield command.strip(), int(expected[1]) if expected else 0


def main():
    found = list(commands(README.read_text()))
    if not any("test" in command for command, _ in found):
        sys.exit("README.md shows no command that runs the tests")
    for command, expected in found:
        print(f"$ {command}", flush=True)
        begun = time.monotonic()
        code = subprocess.run(command, shell=True, cwd=README.parent).returncode
        print(f"-- exit {code}, {time.monotonic() - begun:.0f} s", flush=True)
        if code != expected:
            sys.exit(f"expected exit {expected}")


main()
