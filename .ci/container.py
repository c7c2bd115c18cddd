"""A tree of files run by runc, the runtime below Docker and containerd: read-only root, user 65532, no capability, no new
privilege, its own mounts, processes, IPC and host name. The network is the machine's, because the lab serves on loopback.

Needs root and Debian's package runc. (bubblewrap cannot enter a running container, crun refuses hybrid cgroups.)
"""

import json
import os
import pathlib
import subprocess
import tempfile
import time

UID = 65532
NAMES = ["etc/hosts", "etc/resolv.conf"]


def runc(*arguments, seconds=30):
    return subprocess.run(["runc", *arguments], capture_output=True, text=True, timeout=seconds)


class Container:
    """A tree with what an engine mounts into it: `/proc`, `/dev`, files for name lookups, one writable volume."""

    def __init__(self, root, volume, environment=None):
        self.root, self.volume = pathlib.Path(root), volume
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/nonroot"} | (environment or {})
        self.process, self.name = None, None

    def _command(self, command, environment):
        """The command line that runs a command in a container of its own, and the name of that container."""
        bundle = pathlib.Path(tempfile.mkdtemp(prefix="bundle-", dir=self.root.parent))
        (bundle / "config.json").write_text(json.dumps(self._config(command, environment)))
        return ["runc", "run", "--bundle", str(bundle), bundle.name], bundle.name

    def _config(self, command, environment):
        def bound(source, target, *options):
            return {"type": "bind", "source": str(source), "destination": target, "options": ["bind", *options]}

        kept = ["nosuid", "nodev", "noexec"]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.root), "readonly": True},
            "process": {
                "args": command,
                "cwd": "/",
                "user": {"uid": UID, "gid": UID},
                "env": [f"{name}={value}" for name, value in (self.environment | environment).items()],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "mounts": [
                {"type": "proc", "source": "proc", "destination": "/proc", "options": kept},
                {"type": "tmpfs", "source": "dev", "destination": "/dev", "options": ["nosuid", "mode=755", "size=64k"]},
                *(bound(f"/{name}", f"/{name}", "ro", *kept) for name in NAMES if os.path.exists(f"/{name}")),
                bound(*self.volume, "rw", *kept),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
        }

    def run(self, command, environment=None, seconds=120):
        """Runs a command in a container of its own, to its end."""
        whole, _ = self._command(command, environment or {})
        return subprocess.run(whole, capture_output=True, text=True, timeout=seconds)

    def start(self, command, environment=None):
        """Starts the container's long-running process."""
        whole, self.name = self._command(command, environment or {})
        self.process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def first(self):
        """The process that is number 1 inside."""
        return json.loads(runc("state", self.name).stdout)["pid"]

    def execute(self, command, seconds=30):
        """Runs a command in the started container, as an engine runs its health check."""
        return runc("exec", self.name, *command, seconds=seconds)

    def stop(self, seconds):
        """Sends SIGTERM to process 1, as `docker stop` does. Returns exit code, output and duration; fails if it runs on."""
        begun = time.monotonic()
        runc("kill", self.name, "TERM")
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"it did not end within {seconds} s of SIGTERM: {self.kill()}") from None
        return self.process.returncode, output, time.monotonic() - begun

    def kill(self):
        """Ends everything in it at once and returns its output."""
        runc("delete", "--force", self.name)
        return self.process.communicate(timeout=10)[0]
