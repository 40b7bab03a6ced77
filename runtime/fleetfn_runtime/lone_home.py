"""Where a worker that runs by itself may write: a volume that outlasts its container, and a folder for sockets.

An image's own files are read-only, so both have to be given to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fleetfn.errors import UsageError

MOUNTS = Path("/proc/self/mountinfo")

_PATH_LIMIT = 107
"""Bytes of a unix socket's path."""

_LONGEST = "gateway.sock"
"""Of the sockets in their folder."""

_ALWAYS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - a folder of our own is made within
# The last is there in every container, unless somebody took it away.

_ESCAPED = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def is_mounted(path: Path, *, mounts: Path = MOUNTS) -> bool:
    """A folder bound from the same file system has no device of its own: only the list of mounts knows."""
    if os.path.ismount(path):
        return True
    return bool(_file_systems(path, mounts))


def is_in_memory(path: Path, *, mounts: Path = MOUNTS) -> bool:
    """What is mounted there keeps nothing for longer than its container lives."""
    return _file_systems(path, mounts)[-1:] in (["tmpfs"], ["ramfs"])


def _file_systems(path: Path, mounts: Path) -> list[str]:
    """Kinds of what is mounted there, one upon the other: see proc(5)."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    both = [line.partition(" - ") for line in lines]
    return [
        of_system.partition(" ")[0]
        for of_mount, _, of_system in both
        if len(fields := of_mount.split(" ")) > 4 and _unescaped(fields[4]) == str(path)  # noqa: PLR2004 - the fifth
    ]


def check_volume(path: Path, function: str, *, named: str) -> bool:
    """Whether a volume is mounted there. `named`: the variable that names a gateway, empty where none is set; without
    one there has to be a volume. Raises UsageError.
    """
    if not is_mounted(path):
        if not named:
            raise UsageError(
                f"nothing is mounted at {path}, where {function} keeps its state and its gateway's inbox: "
                "they would be gone with the container",
                hint=f"mount a volume: docker run -v {function}:{path} ...; where a gateway runs already, "
                "name its socket in FLEETFN_GATEWAY",
            )
        return False
    if not os.access(path, os.W_OK | os.X_OK):
        uid, gid = os.getuid(), os.getgid()
        raise UsageError(
            f"what is mounted at {path} cannot be written by user {uid}, group {gid}",
            hint=f"chown {uid}:{gid} it and mount it writable; on Kubernetes set fsGroup: {gid}",
        )
    return True


@contextlib.contextmanager
def sockets(last: Path | None = None) -> Iterator[Path]:
    """A folder of this process alone in which sockets can be made, gone afterwards. `last`: tried when nothing else
    works. Where it is no usual place for temporary files, those of handlers go there, too. Raises UsageError.
    """
    refused: list[str] = []
    named = os.environ.get("TMPDIR")
    for place in (*((Path(named),) if named else ()), *_ALWAYS, *((last,) if last is not None else ())):
        try:
            folder = _folder_in(place)
        except OSError as error:
            refused.append(f"{place} ({error.strerror or error})")
            continue
        try:
            if refused:
                os.environ["TMPDIR"] = str(folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    raise UsageError(
        f"there is no folder for sockets and temporary files: {', '.join(refused)}",
        hint="give it one in memory: docker run --tmpfs /tmp ...; on Kubernetes an emptyDir at /tmp",
    )


def _folder_in(place: Path) -> Path:
    """Raises OSError where no socket can be made."""
    folder = Path(tempfile.mkdtemp(prefix="fleetfn-", dir=place))
    try:
        _try_socket(folder / _LONGEST)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _try_socket(path: Path) -> None:
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise OSError(f"the path of a socket in it would be longer than {_PATH_LIMIT} bytes")
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(path))
    path.unlink()


def _unescaped(text: str) -> str:
    for escaped, plain in _ESCAPED.items():
        text = text.replace(escaped, plain)
    return text
