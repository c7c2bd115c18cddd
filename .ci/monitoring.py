#!/usr/bin/env python3
"""The alerts and the dashboard on the real thing: medics of `lab --serve`, Debian's Prometheus and Alertmanager.

Several labs run at once, each scraped as a manager of its own, and faults are typed into them. Every alert must fire and
resolve in Prometheus, and reach a receiver through Alertmanager unless a graver one inhibits it. Every expression of the
rules and of the dashboard must return data at some point of the run. Waits shorter than the shipped ones are made by
`rules_in_a_hurry`: they are the only difference to the shipped rules.

Usage: monitoring.py [path of the medic]"""

import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "manifests/prometheus"), str(ROOT / "grafana")]
import alerts as shipped  # noqa: E402

# Real seconds in which anything that is waited for must come.
PATIENCE = 75
RANGES = {"5m": "6s", "15m": "10s", "30m": "15s", "1h": "15s", "6h": "20s"}
# Expressions that no run of this length can give data for, with the reason.
WAIVED = {}


def rules_in_a_hurry():
    """The shipped rules with every wait, window and age shortened."""
    text = shipped.RULES.read_text()
    text = re.sub(r"^(        for: )\w+$", r"\g<1>1s", text, flags=re.M)
    text = re.sub(r"\[(\w+)\]", lambda found: f"[{RANGES[found[1]]}]", text)
    return text.replace("timestamp_seconds > 180", "timestamp_seconds > 6")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, **query):
    """A JSON answer."""
    full = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(full, timeout=10) as answer:
        return json.load(answer)


def until(what, holds, patience=PATIENCE):
    """Waits until `holds()` is true, and gives what it gave."""
    end = time.monotonic() + patience
    while True:
        try:
            found = holds()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not within {patience} s: {what}")
        time.sleep(0.1)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Alertmanager's webhook: notes (alert, manager, status, receiver)."""

    got = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for alert in body["alerts"]:
            labels = alert["labels"]
            self.got.append((labels["alertname"], labels.get("manager", ""), alert["status"], self.path.strip("/")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Lab:
    """A lab with its medic."""

    def __init__(self, stage, name, *flags):
        self.stage, self.name, self.port = stage, name, free_port()
        self.flags, self.process = flags, None

    def start(self):
        command = [self.stage.medic, "lab", "--serve", "--scenario", "quiet", "--listen", f"127.0.0.1:{self.port}", *self.flags]
        self.out = open(self.stage.dir / f"{self.name}.log", "a")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out, stderr=self.out, text=True)
        until(f"{self.name} serves", lambda: self.metric("last_sweep_timestamp_seconds") > 0)

    def type(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def metric(self, start):
        """The sum of the values of all series that begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            rows = answer.read().decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(f"scaleset_medic_{start}"))

    def well(self):
        sets = self.metric("scale_set_info")
        until(f"all sets of {self.name} listen", lambda: self.metric('scale_set_state{') and self.listening() == sets)

    def listening(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            rows = answer.read().decode().splitlines()
        return sum(row.endswith(" 1") and 'state="listening"' in row for row in rows)

    def tool(self, *words):
        """A command of the tool on this lab's medic."""
        config = re.search(r"--config (\S+)", pathlib.Path(self.out.name).read_text())[1]
        subprocess.run([self.stage.medic, "--config", config, *words], check=True, stdout=subprocess.DEVNULL, timeout=20)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def fires(self, *names):
        for name in names:
            until(f"{name} of {self.name} fires", lambda name=name: self.stage.is_firing(name, self.name))

    def resolves(self, *names):
        for name in names:
            until(f"{name} of {self.name} resolves", lambda name=name: not self.stage.is_firing(name, self.name))


class Stage:
    """Everything that runs, and what is known of it."""

    def __init__(self, medic, directory):
        self.medic, self.dir = medic, directory
        self.labs, self.processes, self.fired, self.inhibited = {}, [], {}, {}
        self.firing_now, self.over = set(), threading.Event()

    def run(self, name, *command):
        out = open(self.dir / f"{name}.log", "w")
        self.processes.append(subprocess.Popen(command, stdout=out, stderr=out))

    def open(self, labs):
        """Starts the receiver, Alertmanager and Prometheus; the labs are scraped once they run."""
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        prometheus, alertmanager = free_port(), free_port()
        self.prometheus, self.alertmanager = f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}"
        config = (ROOT / "manifests/prometheus/alertmanager.yml").read_text()
        config = config.replace("127.0.0.1:9095", f"127.0.0.1:{receiver.server_port}")
        config = config.replace("group_wait: 10s", "group_wait: 1s").replace("group_interval: 1m", "group_interval: 1s")
        (self.dir / "alertmanager.yml").write_text(config)
        (self.dir / "rules.yml").write_text(rules_in_a_hurry())
        (self.dir / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
            "scrape_configs": [{
                "job_name": lab.name, "static_configs": [{"targets": [f"127.0.0.1:{lab.port}"]}],
                # Every lab calls its manager "garm": here they are managers of different names.
                "metric_relabel_configs": [{"source_labels": ["manager"], "regex": "garm", "target_label": "manager",
                                            "replacement": lab.name}],
            } for lab in labs],
        }))
        self.run("alertmanager", "prometheus-alertmanager", f"--config.file={self.dir}/alertmanager.yml",
                 f"--storage.path={self.dir}/am", f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=")
        self.run("prometheus", "prometheus", f"--config.file={self.dir}/prometheus.yml", f"--storage.tsdb.path={self.dir}/tsdb",
                 f"--web.listen-address=127.0.0.1:{prometheus}", "--rules.alert.resend-delay=2s")
        for url in (self.prometheus, self.alertmanager):
            until(f"{url} is ready", lambda url=url: urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200)
        self.begun = time.time()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """Notes what fires in Prometheus and what Alertmanager inhibits."""
        while not self.over.wait(0.4):
            try:
                alerts = get(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
                held = get(f"{self.alertmanager}/api/v2/alerts", inhibited="true", active="true")
            except OSError:
                continue
            firing = {(a["labels"]["alertname"], a["labels"].get("manager", "")) for a in alerts if a["state"] == "firing"}
            for key in firing:
                self.fired.setdefault(key, time.time() - self.begun)
            by_print = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in held}
            for alert in held:
                for source in alert["status"]["inhibitedBy"]:
                    key = (alert["labels"]["alertname"], alert["labels"].get("manager", ""))
                    self.inhibited.setdefault(key, set()).add(by_print.get(source, "?"))
            self.firing_now = firing

    def is_firing(self, name, manager):
        return (name, manager) in self.firing_now

    def has_data(self, expression, end):
        """Whether an expression gives anything at any second of the run."""
        data = get(f"{self.prometheus}/api/v1/query_range", query=expression, start=self.begun, end=end, step=1)
        return bool(data["data"]["result"])

    def close(self):
        self.over.set()
        for lab in self.labs.values():
            lab.stop()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)


def dashboard_expressions():
    """Every expression of the dashboard, its variables filled in, by the panel's title."""
    board = json.loads((ROOT / "grafana/scaleset-medic.json").read_text())
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    found += [(f"annotation {note['name']}", note["expr"]) for note in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", re.match(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]))
    fill = {"$__rate_interval": "10s", "$manager": ".+", "$scale_set": ".+", "$__interval": "10s"}
    for title, expression in found:
        for name, value in fill.items():
            expression = expression.replace(name, value)
        yield title, expression
