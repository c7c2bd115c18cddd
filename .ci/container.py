"""A container without an engine: a tree as read-only root, user 65532, no capability, no new privilege, in namespaces of
its own for mounts, processes, IPC and the host name. The network is the machine's: the lab serves on loopback.

Needs root, and Debian's util-linux and coreutils, which every Debian has.
"""

import pathlib
import shlex
import shutil
import signal
import subprocess
import time

UID = 65532
# setpriv: no way back to root. chroot (below it) still needs three capabilities, which the change of user takes away.
CONFINED = [
    "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+sys_chroot,+setuid,+setgid",
    shutil.which("chroot") or "/usr/sbin/chroot", f"--userspec={UID}:{UID}", "--groups=",
]
DEVICES = ["null", "zero", "random", "urandom"]


class Container:
    """A tree, with what an engine would mount into it: `/proc`, `/dev`, files that are only read, one writable volume."""

    def __init__(self, root, volume, environment=None):
        self.root, self.volume = pathlib.Path(root), volume
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/nonroot"} | (environment or {})
        self.process = None

    def _inside(self, command, environment):
        variables = [f"{name}={value}" for name, value in (self.environment | environment).items()]
        return ["env", "-i", *variables, *CONFINED, str(self.root), *command]

    def _outside(self, command, environment):
        """Mounts, then becomes the command: it is process 1 of its namespace, as in a container."""
        root = shlex.quote(str(self.root))
        # Volumes and devices are laid over after the root is made read-only; each is a mount of its own.
        steps = [
            "set -e",
            "mount --make-rprivate /",
            f"mount --bind {root} {root}",
            f"mount -o remount,bind,ro,nosuid,nodev {root}",
            f"mount -t tmpfs -o nosuid,mode=0755,size=64k dev {root}/dev",
            *(f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}" for name in DEVICES),
            f"mount -o remount,ro,nosuid {root}/dev",
            f"mount -t proc -o nosuid,nodev,noexec proc {root}/proc",
        ]
        for source, target, mode in self.mounts():
            target = shlex.quote(str(self.root / target.lstrip("/")))
            steps.append(f"mount --bind {shlex.quote(str(source))} {target}")
            steps.append(f"mount -o remount,bind,{mode},nosuid,nodev,noexec {target}")
        steps.append("exec " + shlex.join(self._inside(command, environment)))
        return [
            "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", "\n".join(steps),
        ]

    def mounts(self):
        source, target = self.volume
        yield source, target, "rw"
        for name in ("etc/hosts", "etc/resolv.conf"):
            if pathlib.Path("/", name).exists():
                yield f"/{name}", name, "ro"

    def run(self, command, environment=None, seconds=120):
        """Runs a command in a container of its own, to its end."""
        return subprocess.run(
            self._outside(command, environment or {}), capture_output=True, text=True, timeout=seconds
        )

    def start(self, command, environment=None):
        """Starts the container's long-running process."""
        self.process = subprocess.Popen(
            self._outside(command, environment or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def first(self):
        """The process that is number 1 inside."""
        listing = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = listing.read_text().split() if self.process.poll() is None else []
        return int(children[0]) if children else None

    def execute(self, command, seconds=30):
        """Runs a command in the started container, as an engine runs its health check."""
        enter = ["nsenter", "--target", str(self.first()), "--mount", "--pid", "--ipc", "--uts"]
        return subprocess.run(
            [*enter, *self._inside(command, {})], capture_output=True, text=True, timeout=seconds
        )

    def stop(self, seconds):
        """What `docker stop` does: SIGTERM to process 1. Its output, and how long it took; fails when it does not end."""
        begun = time.monotonic()
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(self.first())], check=True)
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"it did not end within {seconds} s of SIGTERM: {self.kill()}") from None
        return self.process.returncode, output, time.monotonic() - begun

    def kill(self):
        """Ends everything in it at once: its output. (Whoever changes its user outlives its parent's --kill-child.)"""
        first = self.first()
        if first:
            subprocess.run(["kill", "-9", str(first)], check=False)
        self.process.kill()
        return self.process.communicate(timeout=10)[0]
