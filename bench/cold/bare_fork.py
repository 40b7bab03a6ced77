"""The floor of a cold start: a process that has imported what a warm parent has, and forks when a byte arrives.

    python -P bare_fork.py FOLDER MODULE STATE

The child accepts, imports MODULE from FOLDER, answers 200 and ends. Where STATE is not `-` it commits a row to that
SQLite file before it answers, as durably as FleetFn does. The parent prints its port when it is ready.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import socket
import sqlite3
import sys

from fleetfn_node import parent as _warm_parent  # noqa: F401 - so that what it has imported is here
from fleetfn_runtime import warming

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def main() -> None:
    folder, module, state = sys.argv[1:]
    warming.load()
    if state != "-":
        commit(state)
    gc.collect()
    gc.freeze()
    with socket.socket() as listening:
        # So that a connection is there to accept once its first byte is.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(listening.getsockname()[1], flush=True)
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        while True:
            poll.poll()
            child = os.fork()
            if child == 0:
                answer(listening, folder, module, state)
            os.waitpid(child, 0)


def answer(listening: socket.socket, folder: str, module: str, state: str) -> None:
    sock, _ = listening.accept()
    sys.path.insert(0, folder)
    importlib.import_module(module)
    if b"\r\n\r\n" in sock.recv(65536):
        if state != "-":
            commit(state)
        sock.sendall(REPLY)
    os._exit(0)


def commit(state: str) -> None:
    with sqlite3.connect(state) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        base.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT)")
        base.execute("INSERT OR REPLACE INTO state VALUES ('v', '{}')")


if __name__ == "__main__":
    main()
