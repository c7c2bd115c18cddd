#!/usr/bin/env python3
"""Makes the terminal recording of the README, docs/screenshots/lab.svg: a real run on the lab, in two terminals.

`crash` is typed into the upper terminal, which runs `lab --serve`. The lower one runs `status` and `explain` while the sets
are stuck, and `status` when they listen again. Both are pseudo-terminals of fixed width. Waits are shortened. The picture is
one SVG, animated by CSS, that loads nothing. Without animation it shows the end.

Usage: recording.py BINARY           records and writes the picture
       recording.py --check BINARY   records and compares with the picture: the same steps, the same words

(svg-term and termtosvg draw one terminal in one colour scheme, and cannot check what it says; vhs needs a browser.)"""

import fcntl
import html
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
import xml.etree.ElementTree as ET

PICTURE = pathlib.Path(__file__).resolve().parent.parent / "docs/screenshots/lab.svg"
BYTES_MAX = 200_000
COLUMNS, ROWS = 114, (13, 25)
# A wait longer than SHOWN_WAIT seconds is shown as SHOWN_WAIT; the end is held for HOLD seconds before it begins again.
SHOWN_WAIT, HOLD = 3.0, 7.0
TIMEOUT = 90
CELL, LINE, MARGIN, BAR = 7.5, 17, 12, 26
TITLES = ("the lab: GARM and GitHub, simulated, twice as fast; waits are cut", "a second terminal")

IN_TIME = "Decision: toggle blocked by settle"
# What each terminal must say, in this order.
STEPS = (
    [
        "its status page is http", "Type a fault and watch the medic", "linux-3: listening", "Everything keeps running", "crash",
        "GARM is killed", "GARM starts again", "linux-3: conflict_abandoned", "linux-0: toggle: verifying", "linux-1: toggle: verifying",
        "linux-3: listening",
    ],
    [
        "scaleset-medic status", "GARM crashed or was killed", "cannot receive jobs", "conflict_abandoned (strong)",
        "toggle blocked by settle", "scaleset-medic explain linux-0", "Because:", IN_TIME,
        "scaleset-medic status", "nothing to do",
    ],
)
# Words that depend on the moment at which a set is read, so that one run has them and another may not.
PASSING = {"confirmation", "sweeps", "sweep", "must", "seen", "row", "ms", "min", "just", "now"}
# What a reconcile says in the second in which the manager is down.
PASSING |= {"asked", "be", "connect", "evidence", "unknown"}


class Terminal:
    """What programs wrote to one pseudo-terminal, with dates."""

    def __init__(self, rows):
        self.rows, self.said, self.chunks, self.children, self.open = rows, "", [], [], []

    def run(self, command, environment):
        """Starts a program in this terminal; `poll` reads it."""
        child, master = pty.fork()
        if child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, COLUMNS, 0, 0))
            os.execve(command[0], command, environment)
        self.children.append(child)
        self.open.append(master)
        return master

    def note(self, text):
        self.chunks.append((time.monotonic(), text))
        self.said += text

    def prompt(self, command):
        """A command as a person types it to a shell."""
        self.note("\x1b[1m$ \x1b[0m")
        for letter in command:
            time.sleep(0.03)
            self.note(letter)
        time.sleep(0.3)
        self.note("\r\n")


class Terminals:
    """Both terminals, read at once."""

    def __init__(self, binary):
        # On the search path, as where it is installed: the lab's hints then name it without its place.
        self.folder = tempfile.TemporaryDirectory()
        self.binary = shutil.copy(binary, os.path.join(self.folder.name, "scaleset-medic"))
        self.terminals = [Terminal(rows) for rows in ROWS]
        self.environment = {"PATH": self.folder.name + os.pathsep + os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC", "USER": "you"}

    def poll(self, timeout=0.05):
        """Reads what has been written, and forgets what has ended."""
        owner = {master: terminal for terminal in self.terminals for master in terminal.open}
        for master in select.select(list(owner), [], [], timeout)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                data = b""
            if data:
                owner[master].note(data.decode())
            else:
                os.close(master)
                owner[master].open.remove(master)

    def wait(self, what, holds):
        end = time.monotonic() + TIMEOUT
        while not holds():
            if time.monotonic() > end:
                sys.exit(f"not within {TIMEOUT} s: {what}\n" + "\n".join(terminal.said for terminal in self.terminals))
            self.poll()

    def pause(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll()

    def ask(self, *arguments):
        """Types a command into the lower terminal and waits for its end."""
        lower = self.terminals[1]
        lower.prompt(" ".join(["scaleset-medic", *arguments]))
        lower.run([self.binary, *arguments], self.environment)
        self.wait(f"{arguments} ends", lambda: not lower.open)

    def play(self):
        """The run itself; false if the machine was too slow to ask before the treatment began."""
        upper = self.terminals[0]
        flags = ["lab", "--serve", "--scenario", "quiet", "--stale-session", "60", "--speed", "2"]
        upper.prompt(" ".join(["scaleset-medic", *flags]))
        keyboard = upper.run([self.binary, *flags], self.environment)
        self.wait("the lab is ready", lambda: "Everything keeps running" in upper.said)
        self.wait("where its configuration is", lambda: re.search(r"--config (\S+config\.toml)", upper.said))
        self.environment["SCALESET_MEDIC_CONFIG"] = re.search(r"--config (\S+config\.toml)", upper.said)[1]
        self.pause(2)
        for letter in "crash\n":
            os.write(keyboard, letter.encode())
            self.pause(0.12)
        self.wait("the crash is seen", lambda: upper.said.count(": conflict_abandoned") >= 4)
        self.ask("status")
        self.pause(1)
        self.ask("explain", "linux-0")
        if IN_TIME not in self.terminals[1].said:
            return False
        healed = lambda: all(f"linux-{n}: listening" in upper.said.split("conflict_abandoned")[-1] for n in range(4))
        self.wait("all sets listen again", healed)
        self.pause(0.5)
        self.ask("status")
        self.pause(0.5)
        return True

    def stop(self):
        for terminal in self.terminals:
            for child in terminal.children:
                try:
                    os.kill(child, signal.SIGTERM)
                except ProcessLookupError:
                    pass
        end = time.monotonic() + 20
        while any(terminal.open for terminal in self.terminals) and time.monotonic() < end:
            self.poll()
        for terminal in self.terminals:
            for child in terminal.children:
                os.waitpid(child, 0)


def cells(chunks):
    """The pieces of text on the screen: [date, row, column, text, style]. Lines only ever come below others."""
    pieces, row, column, style = [], 0, 0, ""
    for date, text in chunks:
        for token in re.findall(r"\x1b\[[0-9;]*m|\r|\n|[^\x00-\x1f]|.", text, re.S):
            if token == "\n":
                row += 1
            elif token == "\r":
                column = 0
            elif token.startswith("\x1b["):
                style = styled(style, token[2:-1])
            elif token < " ":
                sys.exit(f"the terminal was sent {token!r}, which this does not draw")
            else:
                if column == COLUMNS:
                    row, column = row + 1, 0
                last = pieces[-1] if pieces else None
                joins = last and last[1] == row and last[2] + len(last[3]) == column and last[4] == style and date - last[0] < 0.02
                if joins:
                    last[3] += token
                else:
                    pieces.append([date, row, column, token, style])
                column += 1
    return pieces


def styled(style, codes):
    names = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y", "34": "u", "36": "c"}
    for code in codes.split(";"):
        if code in ("", "0"):
            style = ""
        elif code in names:
            style = f"{style} {names[code]}".strip()
        else:
            sys.exit(f"the terminal was sent the style {code}, which this does not draw")
    return style


def lines(pieces):
    """The text on the screen, line by line."""
    found = {}
    for _, row, column, text, _ in pieces:
        line = found.get(row, "")
        found[row] = line.ljust(column) + text
    return [found.get(row, "") for row in range(max(found, default=-1) + 1)]


def shortened(dates):
    """A function from real dates to shown ones: long waits are cut."""
    shown, at, before = {}, 0.4, None
    for date in sorted(dates):
        if before is not None:
            at += min(date - before, SHOWN_WAIT)
        shown[date], before = round(at, 1), date
    return shown


def draw(screens):
    """The picture."""
    shown = shortened({piece[0] for pieces in screens for piece in pieces})
    total = round(max(shown.values()) + HOLD, 1)
    percent = lambda at: f"{100 * at / total:.2f}%"
    css, body, top = [], [], 0
    width = round(COLUMNS * CELL + 2 * MARGIN)
    names = {at: f"t{n}" for n, at in enumerate(sorted(set(shown.values())))}
    for at, name in names.items():
        css.append(f"@keyframes {name}{{0%{{opacity:0}}{percent(at)}{{opacity:1}}}}.{name}{{animation-name:{name}}}")
    for number, (pieces, rows) in enumerate(zip(screens, ROWS)):
        height = rows * LINE
        steps, bottom = {0: 0}, 0
        for date, row, *_ in pieces:
            bottom = max(bottom, row)
            steps[shown[date]] = max(0, bottom + 1 - rows) * LINE
        moves = "".join(f"{percent(at)}{{transform:translateY(-{by}px)}}" for at, by in sorted(steps.items()))
        last = max(0, bottom + 1 - rows) * LINE
        css.append(f"@keyframes s{number}{{{moves}}}.s{number}{{transform:translateY(-{last}px);animation-name:s{number}}}")
        body.append(f'<text class="h" x="{MARGIN}" y="{top + 18}">{html.escape(TITLES[number])}</text>')
        body.append(f'<path class="l" d="M0 {top + BAR}H{width}"/>')
        body.append(f'<svg x="{MARGIN}" y="{top + BAR + 6}" width="{width - MARGIN}" height="{height}"><g class="s{number}" id="p{number}">')
        for date, row, column, text, style in pieces:
            if text.strip():
                words = f'<text class="{names[shown[date]]}{" " + style if style else ""}" x="{column * CELL:g}" y="{row * LINE + 13}"'
                length = f' textLength="{len(text) * CELL:g}"' if len(text) > 1 else ""
                body.append(f"{words}{length}>{html.escape(text, quote=False)}</text>")
        body.append("</g></svg>")
        top += BAR + height + 12
        if number == 0:
            body.append(f'<path class="l" d="M0 {top}H{width}"/>')
    colours = "--back:{};--text:{};--dim:{};--line:{};--red:{};--green:{};--yellow:{};--blue:{}".format
    light = colours("#fff", "#1f2328", "#59636e", "#d1d9e0", "#c21c25", "#116329", "#7d4e00", "#0550ae")
    dark = colours("#0d1117", "#e6edf3", "#9198a1", "#3d444d", "#ff7b72", "#56d364", "#e3b341", "#79c0ff")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" role="img" '
        'aria-labelledby="title desc"><title id="title">scaleset-medic in two terminals</title><desc id="desc">In the lab GARM is '
        "killed and starts again; its four scale sets are refused and given up. status and explain say so, and what is waited for. "
        "The medic toggles one set, then the others, and all listen again.</desc><style>"
        f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        ".k{fill:var(--back);stroke:var(--line)}.l{stroke:var(--line)}text{fill:var(--text);white-space:pre;"
        "font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}.h{fill:var(--dim);font-size:12px}"
        ".b{font-weight:bold}.d{fill:var(--dim)}.r{fill:var(--red)}.g{fill:var(--green)}.y{fill:var(--yellow)}.u,.c{fill:var(--blue)}"
        f"[class^=t],[class^=s]{{animation:{total}s step-end infinite}}"
        + "".join(css)
        + "@media(prefers-reduced-motion:reduce){*{animation:none!important}}</style>"
        f'<rect class="k" x=".5" y=".5" width="{width - 1}" height="{top - 1}" rx="6"/>'
    )
    return head + "\n" + "\n".join(body) + "\n</svg>\n"


def read(picture):
    """The lines of each terminal in a picture; its form is checked on the way."""
    if len(picture) > BYTES_MAX:
        sys.exit(f"the picture has {len(picture)} bytes, more than {BYTES_MAX}")
    root = ET.fromstring(picture)
    text = picture.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for foreign in ("href", "<script", "<image", "<foreignObject", "@import", "url("):
        if foreign in text:
            sys.exit(f"the picture has {foreign}: it must need nothing from elsewhere")
    space = "{http://www.w3.org/2000/svg}"
    groups = [group for group in root.iter(f"{space}g") if group.get("id", "").startswith("p")]
    if len(groups) != len(STEPS):
        sys.exit("the picture shows not as many terminals as are run")
    of = lambda text: [0, (int(text.get("y")) - 13) // LINE, round(float(text.get("x")) / CELL), text.text, ""]
    return [lines([of(text) for text in group.iter(f"{space}text")]) for group in groups]


def in_order(said, steps, whose):
    """Refuses what does not say all steps in their order."""
    at = 0
    for step in steps:
        found = said.find(step, at)
        if found < 0:
            sys.exit(f"{whose} does not say, or not in its place: {step}\n{said}")
        at = found + len(step)


def words(texts):
    return {word for text in texts for word in re.findall(r"[A-Za-z_]{2,}", re.sub(r"/tmp/\S+", "", text))}


def joined(screen):
    """Lines as they were written, before the terminal wrapped them."""
    return "".join(line if len(line) == COLUMNS else line + "\n" for line in screen)


def compare(fresh, kept):
    for whose, screens in (("this run", fresh), (PICTURE.name, kept)):
        for screen, steps in zip(screens, STEPS):
            in_order(joined(screen), steps, whose)
    # What the lab prints once it runs depends on when the medic reads: there only the steps are compared.
    of = lambda screens: words([joined(screens[0]).split(" the lab ends\n")[0], joined(screens[1])])
    gone, new = of(kept) - of(fresh) - PASSING, of(fresh) - of(kept) - PASSING
    if gone or new:
        sys.exit(f"{PICTURE.name} is not what the medic says today; record it again.\nno longer said: {sorted(gone)}\nnew: {sorted(new)}")


def main():
    check, binary = "--check" in sys.argv, sys.argv[-1]
    for attempt in (1, 2, 3):
        both = Terminals(binary)
        try:
            played = both.play()
        finally:
            both.stop()
        if played:
            break
        print(f"attempt {attempt}: the machine was too slow", flush=True)
    screens = [cells(terminal.chunks) for terminal in both.terminals]
    picture = draw(screens)
    if check:
        compare(read(picture), read(PICTURE.read_text()))
        print(f"{PICTURE.name}, {PICTURE.stat().st_size} bytes, shows what the medic says")
    else:
        compare(read(picture), read(picture))
        PICTURE.write_text(picture)
        print(f"{PICTURE}: {len(picture)} bytes")


main()
