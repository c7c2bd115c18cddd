#!/usr/bin/env python3
"""What it costs to watch: CPU seconds and resident memory per hour, requests and bytes per sweep.

Each watcher looks at a simulated GARM (examples/lab_servers.rs, a process of its own) whose sets all listen, at a 15 s
interval: the medic; Prometheus, which scrapes GARM's /metrics and probes every scale set through the blackbox exporter;
monit, which checks every scale set and /metrics. GARM itself counts requests and bytes: nothing stands between that could
be the bottleneck. The run is short; CPU is taken from after the first sweeps to the end and extrapolated to an hour.
Memory is the largest resident set seen (VmHWM). A watcher that cannot keep up asks less than it should, and what it
needed is what it needed for that; the table says how much it asked of what it wanted to, and how busy the machine was.

    python3 benches/watching.py --medic target/release/scaleset-medic --servers target/release/examples/lab_servers \
        --seconds 60 --sets 4 50 500 10000 [--tools /path/with/usr/bin]
"""

import argparse, json, os, pathlib, re, signal, socket, subprocess, sys, tempfile, time
import urllib.request

INTERVAL = 15
TICKS = os.sysconf("SC_CLK_TCK")


class Servers:
    """The simulated servers, a process of their own, which counts what goes over GARM's connections."""

    def __init__(self, binary, sets):
        self.sets = sets
        self.process = subprocess.Popen([binary, str(sets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer = json.loads(self.process.stdout.readline())
        self.url, self.password = answer["garm"], answer["password"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    def ask(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def wait_until_all_listen(self, limit=300):
        until = time.monotonic() + limit
        while (answer := self.ask())["listening"] != self.sets:
            if time.monotonic() > until:
                sys.exit(f"only {answer['listening']} of {self.sets} sets listen after {limit} s")
            time.sleep(0.2)

    def totals(self):
        answer = self.ask()
        return answer["requests"], answer["received"], answer["sent"]


def cpu(pid):
    """Seconds on a processor by its living threads, to the nanosecond, and by children that were waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    on_cpu = sum(int(thread.read_text().split()[0]) for thread in threads)
    return on_cpu / 1e9 + sum(int(fields[n]) for n in (13, 14)) / TICKS


def peak(pid):
    """Largest resident set, in MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def machine():
    """Ticks of all cores: busy with whatever it is, and in all."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def token(url, password):
    body = json.dumps({"username": "admin", "password": password}).encode()
    request = urllib.request.Request(url + "/api/v1/auth/login", body, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["token"]


def medic(args, place, url, password, sets):
    (place / "password").write_text(password)
    port = free_port()
    (place / "medic.toml").write_text(
        f'[run]\ninterval = "{INTERVAL}s"\nmode = "heal"\nstate_dir = "{place}/state"\n[http]\nlisten = "127.0.0.1:{port}"\n'
        f'[[manager]]\nname = "garm"\nurl = "{url}"\nusername = "admin"\npassword_file = "{place}/password"\n'
        "metrics_auth = false\n"
    )
    os.chmod(place / "password", 0o600)
    return [[args.medic, "--config", str(place / "medic.toml"), "--log-level", "warn", "run"]]


def blackbox(args, place, url, password, sets):
    """Prometheus with one probe per set: the set answers, and is enabled."""
    exporter, prometheus = free_port(), free_port()
    modules = {"modules": {"set": {"prober": "http", "timeout": "10s", "http": {
        "headers": {"Authorization": "Bearer " + token(url, password)},
        "fail_if_body_not_matches_regexp": ['"enabled":true']}}}}
    (place / "blackbox.yml").write_text(json.dumps(modules))
    targets = [f"{url}/api/v1/scalesets/{n}" for n in range(1, sets + 1)]
    relabel = [{"source_labels": ["__address__"], "target_label": "__param_target"},
               {"source_labels": ["__param_target"], "target_label": "instance"},
               {"target_label": "__address__", "replacement": f"127.0.0.1:{exporter}"}]
    jobs = [{"job_name": "garm", "static_configs": [{"targets": [url.removeprefix("http://")]}]},
            {"job_name": "sets", "metrics_path": "/probe", "params": {"module": ["set"]},
             "static_configs": [{"targets": targets}], "relabel_configs": relabel}]
    config = {"global": {"scrape_interval": f"{INTERVAL}s"}, "scrape_configs": jobs}
    (place / "prometheus.yml").write_text(json.dumps(config))
    return [[args.tools + "/prometheus-blackbox-exporter", f"--config.file={place}/blackbox.yml",
             f"--web.listen-address=127.0.0.1:{exporter}", "--log.level=error"],
            [args.prometheus, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb",
             f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error"]]


def monit(args, place, url, password, sets):
    port, bearer = url.rsplit(":", 1)[1], token(url, password)
    check = ('check host {name} with address 127.0.0.1\n  if failed port {port} protocol http request "{path}"\n'
             '    http headers [Authorization: Bearer {bearer}]{content} then alert\n')
    text = f"set daemon {INTERVAL}\nset pidfile {place}/pid\nset idfile {place}/id\nset statefile {place}/state\n"
    text += check.format(name="metrics", port=port, path="/metrics", bearer=bearer, content="")
    for n in range(1, sets + 1):
        # monit's strings know no escapes: a dot stands for each quotation mark.
        content = '\n    content = ".enabled.:true"'
        text += check.format(name=f"set{n}", port=port, path=f"/api/v1/scalesets/{n}", bearer=bearer, content=content)
    (place / "monitrc").write_text(text)
    os.chmod(place / "monitrc", 0o600)
    return [[args.tools + "/monit", "-I", "-c", str(place / "monitrc")]]


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measure(args, watcher, sets):
    """What it needs per hour and per sweep, and what part of the machine was busy meanwhile."""
    running = []
    with Servers(args.servers, sets) as servers, tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        servers.wait_until_all_listen()
        try:
            for command in watcher(args, place, servers.url, servers.password, sets):
                log = open(place / f"log{len(running)}", "wb")
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(INTERVAL * 2 + 2)
            pids = [one.pid for one in running]
            if any(one.poll() is not None for one in running):
                sys.exit("it ended: " + "".join(p.read_text() for p in place.glob("log*")))
            began, cpu0, before, machine0 = time.monotonic(), sum(map(cpu, pids)), servers.totals(), machine()
            time.sleep(args.seconds)
            spent, after, machine1 = time.monotonic() - began, servers.totals(), machine()
            used, memory = sum(map(cpu, pids)) - cpu0, sum(map(peak, pids))
            servers.wait_until_all_listen(0)
        finally:
            for one in running:
                end(one)
    requests, sent, received = [(b - a) * INTERVAL / spent for a, b in zip(before, after)]
    busy, ticks = [b - a for a, b in zip(machine0, machine1)]
    return {"cpu": used * 3600 / spent, "rss": memory, "requests": requests, "sent": sent, "received": received,
            "busy": 100 * busy / ticks}


def verdict(sets, costs):
    """Whether the medic needs less than each of the others."""
    own, lines = costs["medic"], []
    for key, name, digits in [("requests", "requests/sweep", 1), ("cpu", "CPU s/h", 2), ("rss", "RSS MiB", 1)]:
        others = {watcher: cost[key] for watcher, cost in costs.items() if watcher != "medic"}
        met = "met" if all(own[key] < other for other in others.values()) else "MISSED"
        shown = ", ".join(f"{watcher} {other:.{digits}f}" for watcher, other in others.items())
        lines.append(f"- {sets} sets, {name}: {met}: medic {own[key]:.{digits}f}; {shown}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medic", required=True)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--tools", default="/usr/bin", help="where monit and the exporter are")
    parser.add_argument("--prometheus", default="/usr/bin/prometheus")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--sets", type=int, nargs="+", default=[4, 50, 500, 10000])
    parser.add_argument("--watchers", nargs="+", default=["medic", "blackbox", "monit"])
    args = parser.parse_args()
    if args.seconds <= 0 or args.seconds % INTERVAL:
        parser.error(f"--seconds: whole sweeps only, a multiple of {INTERVAL}")
    watchers = {"medic": medic, "blackbox": blackbox, "monit": monit}
    print(f"{args.seconds} s each at an interval of {INTERVAL} s, extrapolated to an hour\n")
    print("| sets | watcher | CPU s/h | RSS MiB | requests/sweep | of wanted | sent/sweep | received/sweep | cores busy |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    goals = []
    for sets in args.sets:
        costs = {}
        for name in args.watchers:
            costs[name] = cost = measure(args, watchers[name], sets)
            # The medic asks as much as it needs; the others want each set and /metrics.
            wanted = "" if name == "medic" else f"{100 * cost['requests'] / (sets + 1):.0f} %"
            print(f"| {sets} | {name} | {cost['cpu']:.1f} | {cost['rss']:.1f} | {cost['requests']:.1f} | {wanted} | "
                  f"{cost['sent'] / 1024:.1f} KiB | {cost['received'] / 1024:.1f} KiB | {cost['busy']:.0f} % |", flush=True)
        if "medic" in costs and len(costs) > 1:
            goals += verdict(sets, costs)
    if goals:
        print("\nGoals: the medic needs less than each of the others\n")
        print("\n".join(goals))


if __name__ == "__main__":
    main()
