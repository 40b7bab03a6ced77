"""Where a node of this machine lives: its data folder, and the folder of its sockets.

A node is found by its name. FN_DATA names a data folder of its own choice; names are then private to that folder,
so that a test's `default` node and the user's never meet.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fleetfn.errors import TargetError, UsageError

DEFAULT = "default"

SOCKET_LIMIT = 107
"""Bytes that the kernel keeps of a unix socket's path (108 with the closing zero)."""

_LONGEST = "deliver-4194304.sock"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,39})")


@dataclass(frozen=True, slots=True)
class Place:
    """One node: `data` survives, `run` holds sockets and is gone with the login session."""

    name: str
    data: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def log(self) -> Path:
        return self.data / "node.log"


def find(name: str = DEFAULT, *, data: Path | None = None) -> Place:
    """The place of the node called `name`; `data` overrides its data folder. Creates nothing. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a node",
            hint="A node's name has lower-case letters, digits and dashes, at most 40.",
        )
    chosen = os.environ.get("FN_DATA")
    folder = data or (Path(chosen).expanduser() if chosen else _share() / "fleetfn" / "nodes" / name)
    return Place(name, folder.absolute(), _run(_private(name, chosen)))


def prepare(place: Place) -> None:
    """Create both folders, readable by this user alone. Raises TargetError if others could get at the sockets."""
    try:
        place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # as a mere parent it would heed the umask
        place.run.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"cannot create the folders of node {place.name!r}: {error}",
            hint="FN_DATA names another data folder.",
        ) from error
    check(place)


def check(place: Place) -> None:
    """Raise TargetError if the folder of sockets belongs to, or is open to, somebody else."""
    for folder in (place.run, place.run.parent):
        try:
            status = folder.lstat()  # a link could lead anywhere by tomorrow
        except FileNotFoundError:
            continue
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise TargetError(
                f"{folder} is not this user's alone, so its sockets cannot be trusted",
                hint=f"Remove it, or make it yours: chmod 700 {folder}",
            )


def _share() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share"


def _private(name: str, chosen: str | None) -> str:
    if not chosen:
        return name
    folder = str(Path(chosen).expanduser().absolute())
    return f"{name}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def _run(folder: str) -> Path:
    """Below XDG_RUNTIME_DIR where sockets' paths fit, else below the temp folder, else below /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    mine = f"fleetfn-{os.getuid()}"
    bases = [
        *([Path(runtime) / "fleetfn"] if runtime and Path(runtime).is_dir() else []),
        Path(tempfile.gettempdir()) / mine,
        Path("/tmp") / mine,  # noqa: S108 - 0700 and ours, or check() refuses it
    ]
    fits = (base / folder for base in bases if len(os.fsencode(base / folder / _LONGEST)) <= SOCKET_LIMIT)
    return next(fits, bases[-1] / folder)
