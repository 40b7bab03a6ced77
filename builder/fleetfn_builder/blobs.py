"""Contents in a folder, each under its digest: `sha256/HEX`. A file that is there is whole and right.

Several processes may share a folder: what one writes appears at once, by rename.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from fleetfn_builder.builder import BuildError
from fleetfn_builder.image_store import Bytes, nobody
from fleetfn_builder.images import Descriptor

CHUNK = 1 << 20
"""Bytes: large enough that Python's share does not count, small enough for four at a time."""

_NEW = 600.0
"""Seconds for which what is not finished is let alone, held or not."""


class Blobs:
    """`folder` is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        """`sha256:HEX`, as a Descriptor has it: checked there."""
        algorithm, _, name = digest.partition(":")
        return self._folder / algorithm / name

    def has(self, descriptor: Descriptor) -> bool:
        try:
            return self.path(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        """Raises BuildError; where it is not there, too."""
        path = self.path(descriptor.digest)
        try:
            return verified(path.open("rb"), descriptor, str(path), progress)
        except OSError as error:
            raise BuildError(
                f"{descriptor.digest} cannot be read from {self._folder}: {error.strerror}",
                hint="The image is not whole: make or fetch it again.",
            ) from error

    def put(self, descriptor: Descriptor, open: Callable[[], IO[bytes]], progress: Bytes = nobody) -> Path:  # noqa: A002
        """Raises BuildError for other bytes than described, or a full disk; then nothing is left of it."""
        path = self.path(descriptor.digest)
        if self.has(descriptor):
            return path
        with written(path) as into, verified(open(), descriptor, "what is to be kept", progress) as content:
            while chunk := content.read(CHUNK):
                into.write(chunk)
        return path


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole, or not at all. Raises BuildError where it cannot be written."""
    aside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as into:
            hold(into.fileno())
            yield into
        aside.replace(path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def is_aside(name: str, of: str) -> bool:
    """Is a file named so what `written` begins with? `of`: the last name of what it is to become, as a pattern."""
    return re.fullmatch(rf"\.{of}\.[0-9a-f]{{16}}", name) is not None


def hold(opened: int) -> None:
    """Until the descriptor is closed, or its process is killed, what it opens is somebody's work."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(opened, fcntl.LOCK_EX)


def remove_left(left: Iterable[Path]) -> None:
    """What processes that were killed have left: of these files and folders those that are not new, and that nobody
    holds.
    """
    for each in left:
        with suppress(OSError), ExitStack() as closing:
            opened = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            closing.callback(os.close, opened)
            status = os.fstat(opened)
            if time.time() - status.st_mtime <= _NEW:
                continue
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink()


def unwritten(path: Path, error: OSError) -> BuildError:
    hint = "Choose a folder that this user may write to."
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "Make room there, and try again: nothing is half written."
    return BuildError(f"{path} cannot be written: {os.strerror(error.errno or errno.EIO)}", hint=hint)


class Source(Protocol):
    """As a file is read: empty at the end."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def verified(content: Source, descriptor: Descriptor, name: str, progress: Bytes = nobody) -> IO[bytes]:
    """The same bytes; reading to the end, or past the described size, raises BuildError if others come.

    `name`: where they come from, for the error.
    """
    return io.BufferedReader(_Verified(content, descriptor, name, progress), CHUNK)


class _Verified(io.RawIOBase):
    def __init__(self, content: Source, descriptor: Descriptor, name: str, progress: Bytes) -> None:
        super().__init__()
        self._content = content
        self._descriptor = descriptor
        self._name = name
        self._progress = progress
        self._hash = hashlib.sha256()
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._content.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._hash.update(chunk)
        self._size += len(chunk)
        self._check(ended=not chunk)
        self._progress(len(chunk))
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._content.close()
        super().close()

    def _check(self, *, ended: bool) -> None:
        wanted = self._descriptor
        if self._size > wanted.size or (ended and self._size < wanted.size):
            how = "more than" if self._size > wanted.size else f"{self._size} of"
            raise BuildError(
                f"{self._name}: {how} the {wanted.size} bytes that {wanted.digest} has", hint="Fetch or make it again."
            )
        if ended and (found := f"sha256:{self._hash.hexdigest()}") != wanted.digest:
            raise BuildError(
                f"{self._name}: its digest is {found}, and should be {wanted.digest}", hint="Fetch or make it again."
            )
