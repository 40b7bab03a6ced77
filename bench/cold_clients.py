"""What measures cold starts: seconds from the first byte sent to the reply, or to the sign that a handler ran."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controlled_node import LIMIT

HANDLERS = Path(__file__).parent / "cold"

_HEAD = "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


def reply(port: int, path: str, body: bytes) -> float:
    """Seconds from the request's first byte to its reply's. The connection is open before."""
    request = _HEAD.format(path, len(body)).encode() + body
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        sock.sendall(request)
        received = sock.recv(65536)
        seconds = time.perf_counter() - began
    if not received.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path} answered {received[:200]!r}")
    return seconds


def start_to_reply(command: list[Path | str], port: int, path: str, body: bytes) -> float:
    """Seconds from starting a server to its first reply; it is ended then."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while time.perf_counter() < began + LIMIT:
                try:
                    reply(port, path, body)
                except ConnectionRefusedError:
                    time.sleep(0.001)
                else:
                    return time.perf_counter() - began
            raise RuntimeError(f"{command[0]} did not answer within {LIMIT:.0f} s")
        finally:
            server.terminate()


class Signs:
    """Handlers say by a datagram that they ran (cold/handler.py)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.settimeout(LIMIT)

    def seconds_from(self, begin: Callable[[], object]) -> float:
        """From `begin` to the handler's sign."""
        began = time.perf_counter()
        begin()
        self._sock.recv(64)
        return time.perf_counter() - began

    def seconds_late(self) -> float:
        """From the instant that a clock's next fire is for to the handler's sign."""
        due = float(self._sock.recv(64))
        return time.time() - due

    def close(self) -> None:
        self._sock.close()


@contextmanager
def bare_fork(module: str, state: Path | None = None) -> Iterator[int]:
    """Port of a parent that forks a bare child for each connection (cold/bare_fork.py), with `state` a row each."""
    with _floor("bare_fork.py", HANDLERS, module, state or "-") as said:
        yield int(said)


@contextmanager
def bare_woken(kind: str, address: str, topic: str, seen: Path) -> Iterator[None]:
    """What a broker wakes with bare means (cold/bare_woken.py); its handler sends its sign to `seen`."""
    with _floor("bare_woken.py", kind, address, topic, HANDLERS, "handler", FN_BENCH_SEEN=str(seen)):
        yield


@contextmanager
def _floor(program: str, *words: Path | str, **env: str) -> Iterator[str]:
    """Its first line, which says that it is ready."""
    command = [sys.executable, "-P", HANDLERS / program, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as process:
        try:
            if process.stdout is None:
                raise TypeError("its output is not piped")
            said = process.stdout.readline()
            if not said:
                raise RuntimeError(f"{program} ended before it was ready")
            yield said
        finally:
            process.terminate()
