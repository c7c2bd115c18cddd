#!/usr/bin/env python3
"""What it costs to watch: CPU seconds and resident memory per hour, requests and bytes per sweep.

Each watcher looks at the same simulated GARM (examples/lab_servers.rs, a process of its own) at a 15 s interval, through
a proxy that counts requests and bytes: the medic; Prometheus, which scrapes GARM's /metrics and probes every scale set
through the blackbox exporter; monit, which checks every scale set and /metrics. The run is short; CPU is taken from
after the first sweeps to the end and extrapolated to an hour. Memory is the largest resident set seen (VmHWM).

    python3 benches/watching.py --medic target/release/scaleset-medic --servers target/release/examples/lab_servers \
        --seconds 120 --sets 4 50 500 10000 [--tools /path/with/usr/bin]
"""

import argparse, json, os, pathlib, re, signal, socket, socketserver, subprocess, sys, tempfile, threading, time
import urllib.request

INTERVAL = 15
TICKS = os.sysconf("SC_CLK_TCK")


class Proxy(socketserver.ThreadingTCPServer):
    """Counts what goes through: requests by their request lines, bytes of both directions."""

    allow_reuse_address, daemon_threads, request_queue_size = True, True, 1024

    def __init__(self, goal):
        self.goal, self.requests, self.sent, self.received, self.connections = goal, 0, 0, 0, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Through)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]

    def totals(self):
        with self.lock:
            return (self.requests, self.sent, self.received)


REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE) /\S* HTTP/1\.[01]\r\n")


class Through(socketserver.BaseRequestHandler):
    def handle(self):
        server = self.server
        try:
            up = socket.create_connection(server.goal)
        except OSError:
            return
        with up:
            back = threading.Thread(target=self.copy, args=(up, self.request, False), daemon=True)
            back.start()
            self.copy(self.request, up, True)
            back.join()

    def copy(self, source, sink, asks):
        server = self.server
        try:
            while data := source.recv(65536):
                with server.lock:
                    if asks:
                        server.requests += len(REQUEST.findall(data))
                        server.sent += len(data)
                    else:
                        server.received += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


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


def measure(args, watcher, sets):
    servers = subprocess.Popen([args.servers, str(sets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running = []
    try:
        told = json.loads(servers.stdout.readline())
        host, port = told["garm"].removeprefix("http://").split(":")
        proxy = Proxy((host, int(port)))
        time.sleep(1)
        with tempfile.TemporaryDirectory() as place:
            place = pathlib.Path(place)
            for command in watcher(args, place, proxy.url(), told["password"], sets):
                log = open(place / f"log{len(running)}", "wb")
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(INTERVAL * 2 + 2)
            pids = [one.pid for one in running]
            for one in running:
                if one.poll() is not None:
                    sys.exit("it ended: " + "".join(p.read_text() for p in place.glob("log*")))
            began, cpu0, before = time.monotonic(), [cpu(pid) for pid in pids], proxy.totals()
            time.sleep(args.seconds)
            spent, after = time.monotonic() - began, proxy.totals()
            used = sum(cpu(pid) for pid in pids) - sum(cpu0)
            memory = sum(peak(pid) for pid in pids)
            stored = sum(p.stat().st_size for p in place.rglob("*") if p.is_file() and "state" in str(p))
            for one in running:
                one.send_signal(signal.SIGTERM)
                one.wait(20)
        sweeps = spent / INTERVAL
        per_sweep = [(b - a) / sweeps for a, b in zip(before, after)]
        return used * 3600 / spent, memory, *per_sweep, stored
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
        servers.stdin.close()
        servers.wait(20)
        proxy.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medic", required=True)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--tools", default="/usr/bin", help="where monit and the exporter are")
    parser.add_argument("--prometheus", default="/usr/bin/prometheus")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--sets", type=int, nargs="+", default=[4, 50, 500])
    parser.add_argument("--watchers", nargs="+", default=["medic", "blackbox", "monit"])
    args = parser.parse_args()
    watchers = {"medic": medic, "blackbox": blackbox, "monit": monit}
    print(f"{args.seconds} s each at an interval of {INTERVAL} s, extrapolated to an hour\n")
    print("| sets | watcher | CPU s/h | RSS MiB | requests/sweep | sent/sweep | received/sweep |")
    print("|---:|---|---:|---:|---:|---:|---:|", flush=True)
    for sets in args.sets:
        for name in args.watchers:
            used, memory, requests, sent, received, _ = measure(args, watchers[name], sets)
            print(f"| {sets} | {name} | {used:.1f} | {memory:.1f} | {requests:.1f} | {sent / 1024:.1f} KiB | "
                  f"{received / 1024:.1f} KiB |", flush=True)


if __name__ == "__main__":
    main()
