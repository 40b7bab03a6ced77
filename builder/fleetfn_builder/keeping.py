"""What builds leave for later ones: finished layers, finished images, what bases hold.

    <folder>/blobs/sha256/<hex>        contents: layers, configs, manifests, of bases, too
    <folder>/<kind>/<key>.json         what was made for which inputs; names blobs by digest
    <folder>/lock                      held (shared) by every build; what is too much is removed when nobody builds

Files appear whole, under their last name, or not at all: builds at the same moment and builds cut off do no harm.
Above its limit what was used least recently goes first. What a record names may be gone or damaged: whoever reads it
looks, and makes it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from fleetfn_builder import images
from fleetfn_builder.blobs import Blobs, written
from fleetfn_builder.builder import BuildError
from fleetfn_builder.images import Descriptor

T = TypeVar("T")

LIMIT = 5 * 1024 * 1024 * 1024
"""Bytes: a dozen bases and the dependencies of some fifty functions."""

VARIABLE = "FN_CACHE"
_RECORDS = ("bases", "builds", "facts", "layers")
_BLOBS = "blobs/sha256"
_FRESHLY_MADE = 60.0
"""Seconds for which a use is not noted again: a file's time is written at most once a minute."""


def default_folder() -> Path:
    """$FN_CACHE, or `fleetfn/builds` in the user's cache folder. Raises BuildError for a user without a home."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path raises where no home is known
    if base.startswith("~"):
        raise BuildError("this user has no home folder to keep builds in", hint=f"Set {VARIABLE} to a folder.")
    return Path(base) / "fleetfn" / "builds"


class Keeping:
    """One folder, of one user; `blobs` in it. Raises BuildError or OSError where the disk does not take more."""

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        """Raises BuildError where the folder cannot be made."""
        self.folder = folder
        self.blobs = Blobs(folder / "blobs")
        self._limit = limit
        self._asked: dict[str, Descriptor] = {}
        """Blobs that were said to be there, by digest."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(
                f"the cache folder {str(folder)!r} cannot be made: {error.strerror}", hint=f"Set {VARIABLE} to another."
            ) from error

    def read(self, kind: str, key: str, type_: type[T]) -> T | None:
        """The record of a key; None: there is none that reads. Reading counts as a use."""
        path = self._record(kind, key)
        try:
            found = msgspec.json.decode(path.read_bytes(), type=type_)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        used(path)
        return found

    def write(self, kind: str, key: str, value: object) -> None:
        with written(self._record(kind, key)) as file:
            file.write(msgspec.json.encode(value))

    def has(self, descriptor: Descriptor) -> bool:
        """A blob, of the size described. Asking counts as a use."""
        if not self.blobs.has(descriptor):
            return False
        self._asked[descriptor.digest] = descriptor
        used(self.blobs.path(descriptor.digest))
        return True

    def content(self, descriptor: Descriptor) -> bytes | None:
        """Of a blob that is there and right."""
        if not self.has(descriptor):
            return None
        try:
            with self.blobs.open(descriptor) as blob:
                return blob.read()
        except BuildError:
            return None

    def keep(self, content: bytes, media_type: str) -> Descriptor:
        described = images.describe(content, media_type)
        self.blobs.put(described, lambda: io.BytesIO(content))
        return described

    def forget_damaged(self) -> list[Descriptor]:
        """Those of the blobs asked for that are not what they should be; they are gone then."""
        damaged = [each for each in list(self._asked.values()) if self.blobs.has(each) and self.content(each) is None]
        for each in damaged:
            self.blobs.path(each.digest).unlink(missing_ok=True)
        return damaged

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Nothing is removed meanwhile; afterwards what is too much is, unless another build runs."""
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(OSError):  # the image is made: what cannot be removed now can be later
                    self._remove_oldest()

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[None]:
        """One at a time makes what has this key; others wait, and find it there."""
        folder = self.folder / "making"
        folder.mkdir(exist_ok=True)
        with (folder / _hashed(key)[:2]).open("ab") as lock:  # 256 of them, never removed
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def workshop(self) -> Iterator[Path]:
        """A folder to work in, on the same disk; gone afterwards. Those of builds that were killed go, too."""
        above = self.folder / "work"
        above.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=above) as made:
            yield Path(made)

    def _record(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{_hashed(key)}.json"

    def _remove_oldest(self) -> None:
        """No build runs."""
        import shutil  # noqa: PLC0415 - only when there is something to remove

        work = self.folder / "work"
        for left in (*(work.iterdir() if work.is_dir() else ()), *(self.folder / "wheels").glob(".making-*")):
            shutil.rmtree(left, ignore_errors=True)
        files = [
            (status.st_mtime, status.st_size, entry.path)
            for folder in (_BLOBS, *_RECORDS)
            if (self.folder / folder).is_dir()
            for entry in os.scandir(self.folder / folder)
            if (status := entry.stat())
        ]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def used(path: Path) -> None:
    """Note that a file was of use now."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _FRESHLY_MADE:
            os.utime(path)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
