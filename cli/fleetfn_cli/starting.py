"""Starting a node in the background, and stopping it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from fleetfn.errors import TargetError, UsageError
from fleetfn_deploy import places
from fleetfn_deploy.client import NodeClient, NotRunningError
from fleetfn_spec.control import TAKEN

from fleetfn_cli import durations, failures

if TYPE_CHECKING:
    from fleetfn_deploy.places import Place
    from fleetfn_spec.control import NodeInfo

START_LIMIT = 60.0
"""Seconds until a node must answer: importing on a busy small machine takes a few."""

STOP_LIMIT = 120.0
"""Seconds that workers may take to drain."""

_LOOK = 0.03
"""Seconds between looks whether it answers."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How the node is to run; None: as the node itself does."""

    port: int | None = None
    host: str | None = None
    env_file: Path | None = None
    key_file: Path | None = None
    quota: str | None = None
    """What the inbox may take on disk: `2GB`."""
    dead_letters: str | None = None
    """How long a dead letter is kept: `30d`."""

    def __post_init__(self) -> None:
        """Raises UsageError: the node's own refusal would be at the end of its log."""
        if self.quota is not None:
            durations.bytes_of(self.quota, "--quota")
        if self.dead_letters is not None:
            durations.seconds_of(self.dead_letters, "--dead-letters")

    @classmethod
    def from_environment(cls) -> Wish:
        """As `fn up` would without options."""
        port = os.environ.get("FN_PORT")
        if port is not None and not port.isdigit():
            raise UsageError(f"FN_PORT={port!r} is no port")
        env_file, key_file = os.environ.get("FN_ENV_FILE"), os.environ.get("FN_KEY_FILE")
        return cls(
            int(port) if port else None,
            os.environ.get("FN_HOST"),
            Path(env_file) if env_file else None,
            Path(key_file) if key_file else None,
            os.environ.get("FN_QUOTA") or None,
            os.environ.get("FN_DEAD_LETTERS") or None,
        )

    def arguments(self) -> list[str]:
        pairs = (
            ("--port", self.port),
            ("--host", self.host),
            ("--env-file", self.env_file and self.env_file.absolute()),
            ("--key-file", self.key_file and self.key_file.absolute()),
            ("--quota", self.quota),
            ("--dead-letters", self.dead_letters),
        )
        return [text for name, value in pairs if value is not None for text in (name, str(value))]


def running(place: Place) -> NodeInfo | None:
    try:
        return NodeClient(place.socket, name=place.name).node()
    except NotRunningError:
        return None


def command_line(place: Place, wish: Wish) -> Sequence[str]:
    folders = ["--data", str(place.data), "--run", str(place.run), "--name", place.name]
    return [sys.executable, "-P", "-m", "fleetfn_node", *folders, *wish.arguments()]


def start(place: Place, wish: Wish) -> NodeInfo:
    """Start it detached from this terminal; returns when it answers. Raises TargetError with the end of its log."""
    failures.need("uvloop", "uvicorn", "fastapi", "httpx", "confluent_kafka")
    places.prepare(place)
    with open(place.log, "ab", opener=_private) as log:
        begin = log.tell()
        node = subprocess.Popen(  # noqa: S603 - ourselves
            command_line(place, wish),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.data,
            start_new_session=True,
        )
    return wait(place, node, begin)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def wait(place: Place, node: subprocess.Popen[bytes], begin: int = 0) -> NodeInfo:
    """Until the node answers whole (its front door is open). `begin`: where its part of the log starts."""
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        is_ours = node.poll() is None
        if not is_ours and (node.returncode != TAKEN or not _lives(_holder(place))):
            raise _ended(place, begin)
        # Else somebody's start was quicker, and that node is the one to wait for.
        opening = node.pid if is_ours else _holder(place)
        found = _open_node(place)
        if found is not None and found.pid == opening:
            if found.name != place.name:
                raise _ended(place, begin)
            if (ready := running(place)) is not None:
                return ready
        time.sleep(_LOOK)
    node.terminate()
    raise TargetError(f"node {place.name!r} did not answer within {START_LIMIT:.0f} s", hint=f"Its log: {place.log}")


def stop(place: Place, info: NodeInfo) -> None:
    """Ask it to drain and wait until its process is gone. Raises TargetError after STOP_LIMIT."""
    NodeClient(place.socket, name=place.name).stop()
    limit = time.monotonic() + STOP_LIMIT
    while time.monotonic() < limit:
        if not _lives(info.pid):
            return
        time.sleep(_LOOK)
    raise TargetError(
        f"node {place.name!r} still drains after {STOP_LIMIT:.0f} s (pid {info.pid})",
        hint=f"Wait, or look at what it waits for: {info.log}",
    )


def _open_node(place: Place) -> NodeInfo | None:
    """The node whose front door is open: it then writes node.json. (Its socket answers before.)"""
    from fleetfn_spec.control import NodeInfo

    try:
        return msgspec.json.decode((place.data / "node.json").read_bytes(), type=NodeInfo)
    except (OSError, msgspec.DecodeError):
        return None


def _holder(place: Place) -> int:
    """Pid of the node that holds the data folder; 0 while it has not written it down."""
    try:
        return int((place.data / "lock").read_bytes() or b"0")
    except (OSError, ValueError):
        return 0


def _ended(place: Place, begin: int) -> TargetError:
    with place.log.open("rb") as log:
        log.seek(begin)
        said = log.read().decode("utf-8", "replace").strip().splitlines()
    error = next((line.removeprefix("Error: ") for line in reversed(said) if line.startswith("Error: ")), "")
    hint = next((line.removeprefix("Hint: ") for line in reversed(said) if line.startswith("Hint: ")), "")
    last = error or next((line for line in reversed(said) if line), "it said nothing")
    return TargetError(f"node {place.name!r} did not start: {last}", hint=hint or f"Its log: {place.log}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a zombie answers, too, when its parent is slow to reap
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] != "Z"
