"""What becomes a worker: a process forked from a warm parent, ahead or when it is needed, or one started on its own
where forking is not safe.

`python -m fleetfn_node.child <channel fd>` reads its settings from standard input.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from fleetfn_runtime import rehearsal
from fleetfn_runtime.worker import be_worker, run_loop, run_worker

from fleetfn_node import parent_messages

SPARE = "fn-spare"
WORKER = "fn-worker"
"""Names of the processes, for people who look at them."""


def become_worker(settings: bytes, channel: int, inherited: Iterable[int]) -> NoReturn:
    """`inherited`: descriptors of its parent's own."""

    def work() -> int:
        _name(WORKER)
        _leave_parent(inherited)
        _reseed()
        return run_worker(parent_messages.unpack(settings), channel)

    _end_here(work)


def stand_by(orders: socket.socket, inherited: Iterable[int]) -> NoReturn:
    """Get all ready that is the same for every function, then be the worker that `orders` asks for (one packet, as
    parent_messages.order sends it); where they end, nobody does.
    """

    async def stand() -> int:
        _name(SPARE)
        await rehearsal.rehearse(lambda given: parent_messages.unpack(parent_messages.pack(given)))
        gc.collect()
        with orders:
            order = parent_messages.ordered(orders)  # waits, on a loop that has nothing else to do
        if order is None:
            return 0
        _name(WORKER)
        settings, channel = order
        return await be_worker(parent_messages.unpack(settings), channel)

    def work() -> int:
        _leave_parent(inherited)
        _reseed()
        return run_loop(stand())

    _end_here(work)


def _end_here(work: Callable[[], int]) -> NoReturn:
    """Whatever happens, the process ends here and not in its parent's loop."""
    status = 1
    try:
        status = work()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _leave_parent(inherited: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for descriptor in inherited:
        os.close(descriptor)
    os.setsid()


def _name(name: str) -> None:
    """What `ps -o comm` shows."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _reseed() -> None:
    """Siblings must not draw equal numbers."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def main() -> None:
    settings = sys.stdin.buffer.read()
    sys.exit(run_worker(parent_messages.unpack(settings), int(sys.argv[1])))


if __name__ == "__main__":
    main()
