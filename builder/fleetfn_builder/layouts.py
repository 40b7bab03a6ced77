"""An OCI image layout: a folder with `oci-layout`, `index.json` and contents by digest.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

import msgspec

from fleetfn_builder import references
from fleetfn_builder.blobs import Blobs, is_aside, remove_left, written
from fleetfn_builder.builder import BuildError
from fleetfn_builder.image_store import Bytes, nobody
from fleetfn_builder.images import (
    LARGEST,
    Descriptor,
    Index,
    canonical,
    check_size,
    decode,
    describe,
    is_digest,
    recognize,
)
from fleetfn_builder.references import Reference

MARK = "oci-layout"
MARKED = b'{"imageLayoutVersion":"1.0.0"}'
CATALOGUE = "index.json"
_CONTENTS = "blobs/sha256"

TAG = "org.opencontainers.image.ref.name"
NAME = "io.containerd.image.name"
"""The whole name of an image, which the specification has no word for; containerd and buildx write it so."""


class Layout:
    """An ImageStore. The folder is made when something is put; versions that stand in it stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = Blobs(folder / "blobs")
        self._lock = threading.Lock()

    def resolve(self, version: str) -> Descriptor | None:
        return find(self.index(), version) or self._unnamed(version)

    def _unnamed(self, digest: str) -> Descriptor | None:
        """A manifest that the catalogue does not name."""
        path = self._blobs.path(digest)
        if not is_digest(digest) or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return recognize(path.read_bytes())

    def index(self) -> Index:
        """Every image in it. Raises BuildError where the folder is no layout; one without images is empty."""
        path = self._folder / CATALOGUE
        try:
            return decode(path.read_bytes(), Index, str(path))
        except FileNotFoundError:
            return Index(manifests=[])
        except OSError as error:
            raise BuildError(f"{path} cannot be read: {error.strerror}") from error

    def read(self, descriptor: Descriptor) -> bytes:
        check_size(descriptor)
        with self.open(descriptor) as content:
            return content.read()

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        return self._blobs.open(descriptor, progress)

    def has(self, descriptor: Descriptor) -> bool:
        return self._blobs.has(descriptor)

    def put(
        self,
        descriptor: Descriptor,
        open: Callable[[], IO[bytes]],  # noqa: A002
        mount_from: Reference | None = None,  # noqa: ARG002 - only hosts mount
        progress: Bytes = nobody,
    ) -> None:
        self._blobs.put(descriptor, open, progress)

    def tag(self, manifest: bytes, media_type: str, versions: Sequence[str]) -> Descriptor:
        descriptor = describe(manifest, media_type)
        self._blobs.put(descriptor, lambda: io.BytesIO(manifest))
        if versions:
            with self._lock, _alone(self._folder):
                index = with_versions(self.index(), descriptor, versions)
                for name, content in ((MARK, MARKED), (CATALOGUE, canonical(index))):
                    with written(self._folder / name) as into:
                        into.write(content)
        return descriptor

    def __enter__(self) -> Self:
        """What builds that were killed have left of files goes; what stood under other digests stays."""
        remove_left(_left(self._folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


def _left(folder: Path) -> Iterator[Path]:
    catalogue = "|".join(map(re.escape, (MARK, CATALOGUE)))
    for within, names in ((folder, f"({catalogue})"), (folder / _CONTENTS, "[0-9a-f]{64}")):
        with suppress(OSError):  # it is not there yet
            yield from (each for each in within.iterdir() if is_aside(each.name, names))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other processes wait that put a version into the same catalogue."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def find(index: Index, version: str) -> Descriptor | None:
    """By tag, whole name, or digest."""
    name = None if version.startswith("sha256:") else marks_of(version).get(NAME)
    for one in index.manifests:
        if version in {one.digest, one.annotations.get(TAG)} or (name and name == one.annotations.get(NAME)):
            return msgspec.structs.replace(one, annotations={})
    return None


def with_versions(index: Index, descriptor: Descriptor, versions: Sequence[str]) -> Index:
    """The catalogue with these versions of one image, in an order of its own: what was under them is no longer."""
    marks = [marks_of(version) for version in versions]
    kept = [one for one in index.manifests if one.annotations not in marks]
    added = [msgspec.structs.replace(descriptor, annotations=each) for each in marks]
    return Index(manifests=sorted(kept + added, key=canonical))


def marks_of(version: str) -> dict[str, str]:
    """How a catalogue says a version. Raises UsageError for what is no name."""
    if ":" not in version and "/" not in version:
        return {TAG: version}
    reference = references.parse(version)
    return {NAME: str(reference), TAG: reference.tag or reference.version}
