"""Where a node keeps what it must remember (data) and its sockets (run)."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fleetfn.errors import UsageError

from fleetfn_node import durable

SOCKET_PATH_LIMIT = 107
"""Bytes of a unix socket's path (sun_path without its final zero)."""


@dataclass(frozen=True, slots=True)
class Folders:
    data: Path
    run: Path

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    @property
    def gateway(self) -> Path:
        """The gateway's own folder: inbox.db, what it knows of functions."""
        return self.data / "gateway"

    @property
    def gateway_socket(self) -> Path:
        return self.run / "gateway.sock"

    @property
    def functions(self) -> Path:
        return self.data / "functions"

    @property
    def envs(self) -> Path:
        return self.data / "envs"

    @property
    def incoming(self) -> Path:
        """Sources on their way in: emptied at start. On the same file system as the revisions, so that one rename moves
        them there.
        """
        return self.data / "incoming"

    @property
    def log(self) -> Path:
        return self.data / "node.log"

    def function(self, name: str) -> Path:
        return self.functions / name

    def prepare(self) -> None:
        """Make what is missing, for this user alone. Raises UsageError when a socket would not fit."""
        longest = len(os.fsencode(self.run / "deliver-4194304.sock"))
        if longest > SOCKET_PATH_LIMIT:
            raise UsageError(
                f"the folder for sockets, {str(self.run)!r}, is too long: a socket's path would have {longest} bytes, "
                f"{SOCKET_PATH_LIMIT} fit",
                hint="set TMPDIR or XDG_RUNTIME_DIR to a folder with a shorter path",
            )
        for folder in (self.data, self.run, self.functions, self.envs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.chmod(0o700)
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(mode=0o700)

    def id(self) -> str:
        """The node's identity, made once: part of Kafka group ids."""
        return self._once("id", lambda: secrets.token_hex(6).encode()).decode()

    def log_key(self) -> bytes:
        return self._once("log.key", lambda: secrets.token_bytes(32))

    def _once(self, name: str, make: Callable[[], bytes]) -> bytes:
        path = self.data / name
        if not path.exists():
            durable.write(path, make())
        return path.read_bytes()


class TakenError(UsageError):
    """Another node holds the data folder."""


class Lock:
    """One node per data folder: held until the process ends, however it ends."""

    def __init__(self, data: Path) -> None:
        """Raises TakenError that names who holds it."""
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 32, 0).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise TakenError(
                f"a node runs on the data folder {str(data)!r} already (pid {pid})",
                hint="stop it first, or choose another data folder or node name",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
