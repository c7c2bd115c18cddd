"""The checks that run in the assembled image; see image.py. Each prints what it proves."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

from container import UID, Container
from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "manifests"
PASSWORD = "correct horse battery staple"  # of the lab's administrator
LAB_TIMEOUT = 120


def expect(done, code, *words):
    text = done.stdout + done.stderr
    missing = [word for word in words if word not in text]
    if done.returncode != code or missing:
        sys.exit(f"exit {done.returncode} where {code} was expected; missing in the output: {missing}; output:\n{text}")
    return text


@contextlib.contextmanager
def lab(binary):
    """GARM's simulator with listening sets, served on loopback: its address."""
    # This scenario ends with listening sets, without the medic; then everything keeps running.
    command = [binary, "lab", "--scenario", "graceful-restart", "--sets", "2", "--serve", "--speed", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    overdue = threading.Timer(LAB_TIMEOUT, process.kill)
    overdue.start()
    try:
        address, said = None, []
        for line in process.stdout:
            said.append(line)
            found = re.search(r"simulated GARM \((http://[^)]+)\)", line)
            address = found[1] if found else address
            if "keeps running" in line:
                break
        else:
            sys.exit("the lab ended early:\n" + "".join(said))
        overdue.cancel()
        yield address
    finally:
        overdue.cancel()
        process.terminate()
        process.communicate(timeout=30)


def certificates(folder):
    """A CA of our own, and its certificate for localhost: paths of the CA, the certificate and its key."""
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=image check CA")
    openssl("req", *new, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "leaf.ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n")
    openssl(
        "x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf.pem",
        "-days", "2", "-extfile", "leaf.ext",
    )
    return folder / "ca.pem", folder / "leaf.pem", folder / "leaf.key"


@contextlib.contextmanager
def behind_tls(address, certificate, key):
    """The same server, over HTTPS: its address. Every connection is carried by two threads until either end closes."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def meet(plain):
        with contextlib.suppress(OSError):
            client = context.wrap_socket(plain, server_side=True)
            server = socket.create_connection((host, int(port)))
            threading.Thread(target=carry, args=(server, client), daemon=True).start()
            carry(client, server)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=meet, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        listener.close()


def configure(tree, address):
    """The configuration in the tree, where the Dockerfile says it is, and the password that it names."""
    folder = tree / "etc/scaleset-medic"
    (folder / "garm-password").write_text(PASSWORD + "\n")
    os.chown(folder / "garm-password", UID, UID)
    (folder / "garm-password").chmod(0o400)
    (folder / "config.toml").write_text(
        '[run]\nmode = "observe"\nstate_dir = "/var/lib/scaleset-medic"\n'
        f'[http]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[[manager]]\nname = "garm"\nurl = "{address}"\nusername = "admin"\n'
        'password_file = "/etc/scaleset-medic/garm-password"\n'
    )


def run_all(folder, tree, lab_binary, image, needed):
    entry, state = image["entrypoint"], folder / "state"
    state.mkdir(mode=0o700)
    os.chown(state, UID, UID)
    container = Container(tree, (state, image["volume"]), image["environment"])

    def medic(*args, **environment):
        return container.run([*entry, *args], environment)

    print(expect(medic("--version"), 0, image["version"]).strip(), "starts as", UID, "on a read-only root")
    expect(medic("config", "schema"), 0, '"$schema"')
    # `localhost` by name: the resolver of the C library works in the tree.
    configure(tree, "http://localhost:1")
    expect(medic("config", "check"), 0)
    print("config check: finds the file where the image expects it")
    shipped(tree, medic)
    configure(tree, "http://localhost:1")
    expect(medic("once", SCALESET_MEDIC_RUN_STATE_DIR="/elsewhere"), 1, "Read-only file system")
    print("only the volume is writable, and an error says so")
    expect(container.run(image["health"]), 1, "no medic listens")
    no_lab = medic("lab")
    expect(no_lab, 2, "unrecognized subcommand")
    print("the lab is not in it")

    with lab(lab_binary) as garm:
        configure(tree, garm.replace("127.0.0.1", "localhost"))
        begun = time.monotonic()
        expect(medic("once", TZ="Europe/Berlin"), 0)
        print(f"once: finds the healthy sets of the lab, in {time.monotonic() - begun:.1f} s")
        diagnosed(tree, medic)
        over_tls(folder, tree, image, garm)
        try:
            live(container, image)
        finally:
            if container.process.poll() is None:
                container.kill()
    owners = {path.name: path.stat().st_uid for path in state.iterdir()}
    if not owners or set(owners.values()) != {UID}:
        sys.exit(f"the state is not {UID}'s: {owners}")
    print(f"state on the volume: {', '.join(sorted(owners))}")
    if needed:
        without(folder, tree, image)


def diagnosed(tree, medic):
    """`doctor` reports what the deployment lacks: here the log, first not configured, then configured but not mounted."""
    config = tree / "etc/scaleset-medic/config.toml"
    without_log = config.read_text()
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    expect(medic("doctor", **pod), 0, 'log_file = "/var/log/garm/garm.log"', 'log_level = "debug"')
    config.write_text(without_log + 'log_file = "/var/log/garm/garm.log"\n')
    expect(medic("doctor", **pod), 10, "mountPath: /var/log/garm, readOnly: true")
    config.write_text(without_log)
    print("doctor: reports the missing log and how to mount it")


def shipped(tree, medic):
    """The configurations of manifests/ and packaging/ are valid in the image when their secrets are mounted."""
    place, secrets = tree / "etc/scaleset-medic", tree / "run/secrets/scaleset-medic"
    secrets.mkdir(parents=True)
    files = sorted([*MANIFESTS.rglob("config.toml"), ROOT / "packaging/systemd/config.toml"])
    for path in files:
        text = path.read_text()
        for name in re.findall(r'^password_file = ".*/(.+)"', text, re.M):
            for folder in (secrets, place):
                (folder / name).write_text(PASSWORD + "\n")
        (place / "config.toml").write_text(text)
        expect(medic("config", "check"), 0)
    print(f"config check: {len(files)} shipped configurations are valid")
    shutil.rmtree(tree / "run")


def over_tls(folder, tree, image, garm):
    """The CA bundle of the image is used: a server becomes trusted when its CA is added to the bundle."""
    ca, certificate, key = certificates(folder)
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    known = bundle.read_text()
    state = folder / "state-tls"
    state.mkdir(mode=0o700)
    os.chown(state, UID, UID)
    container = Container(tree, (state, image["volume"]), image["environment"])
    command = [*image["entrypoint"], "once", "--observe", "1"]
    with behind_tls(garm, certificate, key) as address:
        configure(tree, address)
        expect(container.run(command), 12, "its CA is not trusted here")
        bundle.write_text(known + ca.read_text())
        expect(container.run(command), 0)
        bundle.write_text(known)
    roots = known.count("BEGIN CERTIFICATE")
    if roots < 100:
        sys.exit(f"only {roots} CA certificates")
    print(f"TLS: the image's bundle ({roots} CAs) decides which servers are trusted")
    configure(tree, garm)


def live(container, image):
    """The command of the image, its health check from inside, and the stop request of an engine."""
    container.start([*image["entrypoint"], *image["command"]])
    begun = time.monotonic()
    while (health := container.execute(image["health"])).returncode != 0:
        if time.monotonic() - begun > 30 or container.process.poll() is not None:
            sys.exit(f"never healthy: {health.stderr}{container.kill()}")
        time.sleep(0.2)
    status = pathlib.Path(f"/proc/{container.first()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    ids = {number for name in ("Uid", "Gid") for number in fields[name].split()}
    held = {name: int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    if ids != {str(UID)} or any(held.values()) or fields["NoNewPrivs"] != "1" or fields["NSpid"].split()[-1] != "1":
        sys.exit(f"the process has other rights than expected: {status}")
    peak = int(fields["VmHWM"].split()[0]) / 1024
    code, output, took = container.stop(15)
    if code not in (0, 143):
        sys.exit(f"exit {code} after SIGTERM: {output}")
    print(f"run: healthy by its own HEALTHCHECK, process 1, no capability, {peak:.0f} MiB at most; ends "
          f"{took:.1f} s after SIGTERM")


def without(folder, tree, image):
    """The checks fail if a library is missing."""
    for library in ("libgcc_s.so.1", "libc.so.6"):
        poorer = folder / f"without-{library}"
        shutil.copytree(tree, poorer)
        found = list(poorer.rglob(library))
        if not found:
            continue
        for path in found:
            path.unlink()
        done = Container(poorer, (folder / "state", image["volume"])).run([*image["entrypoint"], "--version"])
        if done.returncode == 0:
            sys.exit(f"it starts without {library}: the checks prove nothing")
    print("without a library it does not start, and the checks notice")
