#!/usr/bin/env python3
"""Runs cargo-mutants' mutants of one pure room from a single build.

cargo-mutants builds the crate anew for each mutant. Here all mutants of a room are built into one test binary: each
function that has mutants begins with a switch, and its body stands there once per mutant, changed as cargo-mutants
would change it. `MUTANT=n` chooses one, so a mutant costs one run of the room's unit tests. Which mutants there are is
cargo-mutants' word (`--list --json`); those that do not compile are found by the compiler's errors and left out. A
function that returns `impl Trait` has one body only, so its mutants are built one by one.

    run.py ROOM [--only REGEX] [--quick] [--jobs N]        ROOM: decide, diagnose or treat

Writes ROOM.caught, .missed, .timeout and .unviable beside the copied room and prints the figures. Exit 1: some missed.
"""

import argparse, collections, concurrent.futures, itertools, json, os, pathlib, re, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The slow tests run only against what the others miss.
SLOW = [
    "decide::tests::ten_thousand",
    "diagnose::soak::",
    "diagnose::life::",
    "diagnose::properties::",
    "treat::explore::",
    "treat::world::",
]
SWITCH = """
/// Which mutant is alive.
pub fn mutant(n: u32) -> bool {
    static ALIVE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ALIVE.get_or_init(|| std::env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)) == n
}
"""


class Text:
    """A file, addressed by line and column as cargo-mutants does (both from 1, in characters)."""

    def __init__(self, text):
        self.text = text
        self.lines = [0]
        for line in text.split("\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)

    def at(self, place):
        return self.lines[place["line"] - 1] + place["column"] - 1

    def span(self, span):
        return self.at(span["start"]), self.at(span["end"])


def body_of(text, start, end):
    """The body's braces in a function's text: the first `{` outside of brackets, and the last `}`."""
    depth, at = 0, start
    while at < end:
        if text.startswith("//", at):
            at = text.index("\n", at)
        elif text[at] in "([":
            depth += 1
        elif text[at] in ")]":
            depth -= 1
        elif text[at] == "{" and depth == 0:
            return at, end
        at += 1
    raise ValueError(f"no body in {text[start:end]!r}")


def is_single(mutant):
    return "impl " in mutant["function"]["return_type"]


def woven(path, mutants):
    """The file with every mutant in it, and for each mutant its first and last line there."""
    text = Text(path.read_text())
    functions = collections.defaultdict(list)
    for mutant in mutants:
        functions[text.span(mutant["function"]["span"])].append(mutant)
    out, done, marks = [], 0, {}
    for (start, end), group in sorted(functions.items()):
        if start < done:
            raise SystemExit(f"{path}: a function within a function has mutants")
        first, last = body_of(text.text, start, end)
        head = re.sub(r"\bconst fn\b", "fn", text.text[start:first])
        out.append(text.text[done:start] + head + "{\n")
        for mutant in group:
            a, b = text.span(mutant["span"])
            changed = text.text[first:a] + mutant["replacement"] + text.text[b:last]
            if mutant["genre"] == "FnValue":
                changed = "{ " + mutant["replacement"] + " }"
            if is_single(mutant):
                out.append(changed + "\n}")
                break
            lines = sum(piece.count("\n") for piece in out) + 1
            out.append(f"if crate::mutant({mutant['n']}) {changed} else\n")
            marks[mutant["n"]] = (lines, lines + changed.count("\n"))
        else:
            out.append(text.text[first:last] + "\n}")
        done = end
    out.append(text.text[done:])
    return "".join(out), marks


def weave(here, mutants, originals):
    marks = {}
    for path, original in originals.items():
        (here / path).write_text(original)
        here_mutants = [mutant for mutant in mutants if mutant["file"] == path]
        if here_mutants:
            text, lines = woven(here / path, here_mutants)
            (here / path).write_text(text)
            marks[path] = lines
    return marks


def cargo(here, *args):
    env = {**os.environ, "CARGO_TARGET_DIR": str(here / "target"), "RUSTFLAGS": "--cap-lints=allow"}
    return subprocess.run(["cargo", *args, "--lib", "--message-format=json"], cwd=here, env=env, stdout=subprocess.PIPE)


def messages(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]


def build(here, mutants, originals):
    """Drops what does not compile until the rest does; returns the test binary, the viable and the unviable."""
    unviable = []
    while True:
        marks = weave(here, mutants, originals)
        done = cargo(here, "test", "--no-run")
        if done.returncode == 0:
            binary = next(m["executable"] for m in messages(done) if m.get("executable"))
            return binary, mutants, unviable
        wrong = set()
        for message in messages(done):
            if message["reason"] != "compiler-message" or message["message"]["level"] != "error":
                continue
            for span in message["message"]["spans"]:
                if span["is_primary"]:
                    for n, (first, last) in marks.get(span["file_name"], {}).items():
                        if first <= span["line_start"] <= last:
                            wrong.add(n)
        if not wrong:
            for message in messages(done):
                if message["reason"] == "compiler-message":
                    sys.stderr.write(message["message"]["rendered"])
            raise SystemExit("the woven room does not compile, and no mutant is to blame")
        print(f"{len(wrong)} do not compile", flush=True)
        unviable += [mutant for mutant in mutants if mutant["n"] in wrong]
        mutants = [mutant for mutant in mutants if mutant["n"] not in wrong]


def tests(here, binary, n, args, limit):
    env = {**os.environ, "MUTANT": str(n), "CARGO_MANIFEST_DIR": str(here), "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run([binary, *args], cwd=here, env=env, timeout=limit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return "timeout", ""
    return ("missed" if done.returncode == 0 else "caught"), done.stdout.decode(errors="replace")


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("room", choices=["decide", "diagnose", "treat"])
    asked.add_argument("--only", default="", help="only mutants whose name matches")
    asked.add_argument("--quick", action="store_true", help="without the slow tests")
    asked.add_argument("--jobs", type=int, default=2)
    asked = asked.parse_args()

    listed = subprocess.run([ROOT / "mutants/run.sh", asked.room, "--list", "--json"], check=True, stdout=subprocess.PIPE)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    here = (target / "mutants" / asked.room).resolve()
    mutants = [{**mutant, "n": n} for n, mutant in enumerate(json.loads(listed.stdout), 1)]
    mutants = [mutant for mutant in mutants if re.search(asked.only, mutant["name"])]
    originals = {path: (here / path).read_text() for path in {mutant["file"] for mutant in mutants}}
    (here / "src/lib.rs").write_text((here / "src/lib.rs").read_text() + SWITCH)

    found = len(mutants)
    singles = [mutant for mutant in mutants if is_single(mutant)]
    mutants = [mutant for mutant in mutants if not is_single(mutant)]
    binary, mutants, unviable = build(here, mutants, originals)
    room = f"{asked.room}::"
    slow = [name for name in SLOW if name.startswith(room)]
    quick = [room, *(part for name in slow for part in ("--skip", name))]
    runs = []
    for args in [quick] if asked.quick or not slow else [quick, slow]:
        began = time.monotonic()
        verdict, output = tests(here, binary, 0, args, 600)
        if verdict != "missed":
            raise SystemExit(f"the tests fail without any mutant:\n{output}")
        runs.append((args, 30 + 5 * (time.monotonic() - began)))

    def judge(mutant, binary=binary):
        for args, limit in runs:
            verdict, _ = tests(here, binary, mutant["n"], args, limit)
            if verdict != "missed":
                break
        return mutant, verdict

    def judge_single(mutant):
        weave(here, [mutant], originals)
        done = cargo(here, "test", "--no-run")
        if done.returncode != 0:
            return mutant, "unviable"
        return judge(mutant, next(m["executable"] for m in messages(done) if m.get("executable")))

    verdicts = collections.defaultdict(list)
    verdicts["unviable"] = [mutant["name"] for mutant in unviable]
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        judged = concurrent.futures.as_completed([pool.submit(judge, mutant) for mutant in mutants])
        for mutant, verdict in itertools.chain((done.result() for done in judged), map(judge_single, singles)):
            verdicts[verdict].append(mutant["name"])
            if verdict == "missed":
                print(f"missed  {mutant['name']}", flush=True)
    kinds = ["caught", "unviable", "timeout", "missed"]
    for kind in kinds:
        (here.parent / f"{asked.room}.{kind}").write_text("".join(f"{name}\n" for name in verdicts[kind]))
    print(f"{asked.room}: {found} mutants: " + ", ".join(f"{len(verdicts[kind])} {kind}" for kind in kinds))
    sys.exit(1 if verdicts["missed"] else 0)


main()
