#!/usr/bin/env python3
"""From exec to the first verdict, against a manager that is warm: until /api/v1/status answers 200, over many starts.

    python3 benches/start.py --medic target/release/scaleset-medic --servers target/release/examples/lab_servers
"""

import argparse, http.client, os, pathlib, signal, statistics, subprocess, tempfile, time
from watching import Servers, free_port


def first_verdict(medic, place, url, password):
    port = free_port()
    (place / "password").write_text(password)
    os.chmod(place / "password", 0o600)
    (place / "medic.toml").write_text(
        f'[run]\nmode = "heal"\nstate_dir = "{place}/state"\n[http]\nlisten = "127.0.0.1:{port}"\n[[manager]]\n'
        f'name = "garm"\nurl = "{url}"\nusername = "admin"\npassword_file = "{place}/password"\nmetrics_auth = false\n'
    )
    began = time.monotonic()
    running = subprocess.Popen([medic, "--config", str(place / "medic.toml"), "--log-level", "error", "run"])
    try:
        while time.monotonic() < began + 30:
            try:
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                asked.request("GET", "/api/v1/status")
                if asked.getresponse().status == 200:
                    return time.monotonic() - began
            except OSError:
                pass
            time.sleep(0.001)
        raise SystemExit("no verdict within 30 s")
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medic", required=True)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--sets", type=int, default=4)
    parser.add_argument("--starts", type=int, default=20)
    args = parser.parse_args()
    times = []
    with Servers(args.servers, args.sets) as servers:
        servers.wait_until_all_listen()
        for _ in range(args.starts):
            with tempfile.TemporaryDirectory() as place:
                times.append(first_verdict(args.medic, pathlib.Path(place), servers.url, servers.password) * 1e3)
    print(f"{args.starts} starts, {args.sets} sets: best {min(times):.0f} ms, median {statistics.median(times):.0f} ms, "
          f"worst {max(times):.0f} ms; binary {os.path.getsize(args.medic) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
