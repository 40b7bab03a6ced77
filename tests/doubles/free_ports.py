"""Ports for servers that want to be told theirs: below those that the kernel gives to clients, so that nobody takes
them while a server is down, and by chance, since other tests run beside this one. Those of one run have a part each.
"""

import contextlib
import os
import random
import socket

_PART = 10_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_FIRST = 22_000 + _PART * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

_chance = random.SystemRandom()  # some tests seed the other one


def free_ports(count: int) -> int:
    """The first of so many in a row."""
    while True:
        first = _chance.randrange(_FIRST, _FIRST + _PART - count)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
