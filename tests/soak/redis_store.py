"""A Redis of the run's own, which has on disk what it confirmed; what it holds is read without a client library."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from soak.processes import await_

ANSWER = 5.0


class RedisStore:
    def __init__(self, folder: Path, host: str, port: int) -> None:
        self._folder = folder
        self._place = (host, port)
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"{host}:{port}"

    def start(self) -> None:
        """Returns when it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        self._folder.mkdir(exist_ok=True)
        host, port = self._place
        settings = ("--bind", host, "--port", str(port), "--protected-mode", "no", "--dir", str(self._folder))
        durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *settings, *durable], stdout=log, stderr=log)
        await_("Redis", 20, self._answers)

    def kill(self) -> None:
        """With SIGKILL; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def documents(self, pattern: str) -> dict[str, bytes]:
        """Of keys that match: the field `data`, in which Dapr keeps a value. Raises OSError."""
        with self._connected() as ask:
            keys: dict[bytes, None] = {}
            at = b"0"
            while True:
                at, found = next(ask([(b"SCAN", at, b"MATCH", pattern.encode(), b"COUNT", b"1000")]))
                keys |= dict.fromkeys(found)
                if at == b"0":
                    break
            values = ask([(b"HGET", key, b"data") for key in keys])
            pairs = zip(keys, values, strict=True)
            return {key.decode(): value for key, value in pairs if isinstance(value, bytes)}

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self._connected() as ask:
            return next(ask([(b"PING",)])) == b"PONG"
        return False

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        with socket.create_connection(self._place, ANSWER) as connection, connection.makefile("rb") as answers:

            def ask(commands: Sequence[tuple[bytes, ...]]) -> Iterator[Any]:
                connection.sendall(b"".join(_command(each) for each in commands))
                return (_answer(answers) for _ in commands)

            yield ask


def _command(words: tuple[bytes, ...]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _answer(file: BinaryIO) -> Any:
    """RESP2."""
    line = file.readline().rstrip()
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [_answer(file) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    raise OSError(f"Redis answered {line!r}")
