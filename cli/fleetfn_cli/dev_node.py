"""The private node of `fn dev`: data in FOLDER/.fleetfn/dev, empty at each start but for installed dependencies."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import TargetError
from fleetfn_deploy import places

from fleetfn_cli import starting

if TYPE_CHECKING:
    from fleetfn_deploy.places import Place
    from fleetfn_spec.control import NodeInfo

    from fleetfn_cli.starting import Wish

PORTS = range(8080, 8130)
"""Tried in turn, so that the URL is mostly the same."""

_KEPT = "envs"
"""The only part of the data folder that outlives a run: dependency sets, slow to install."""

_PR_SET_PDEATHSIG = 1


class DevNode:
    def __init__(self, folder: Path) -> None:
        """`folder`: the function's, absolute."""
        name = f"dev-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
        self.place: Place = places.find(name, data=folder / ".fleetfn" / "dev")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wish: Wish) -> NodeInfo:
        """Raises TargetError: one runs on this folder already, or it does not start."""
        if (other := starting.running(self.place)) is not None:
            raise TargetError(
                f"fn dev runs on this folder already (its node has pid {other.pid})", hint="End that one with Ctrl-C."
            )
        places.prepare(self.place)
        _empty(self.place.data)
        (self.place.data.parent / ".gitignore").write_text("*\n", "utf-8")
        with self.place.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                starting.command_line(self.place, wish),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place.data,
                start_new_session=True,  # Ctrl-C is ours to pass on, when all that is shown has been
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread runs yet
            )
        return starting.wait(self.place, self._process)

    def check(self) -> None:
        """Raises TargetError if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise TargetError("the private node has ended", hint=f"The end of its log tells why: {self.place.log}")

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Drain and end it; kill it after STOP_LIMIT."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(starting.STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """Of this machine's loopback: the first of PORTS that nobody listens on, else any."""
    for port in (*PORTS, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TargetError("no port is free on 127.0.0.1")


def _empty(data: Path) -> None:
    for entry in data.iterdir():
        if entry.name == _KEPT:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _die_with_parent() -> None:
    """The kernel asks the node to stop when `fn dev` is killed: nobody else knows of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
