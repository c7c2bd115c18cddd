"""Free ports for programs that are started with a port number."""

import itertools
import random
import socket

# Below those that the kernel gives to outgoing connections, one of which could take a port before the program does.
_candidates = itertools.count(random.randrange(10_000, 30_000))


def free_port():
    for port in _candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
