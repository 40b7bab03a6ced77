"""A tarball of images as it stands: an OCI image layout in a tar, or what `docker save` writes, whose older versions
have no layout: their layers, uncompressed as they are, then make up an image. Contents are read where they lie.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from pathlib import Path
from typing import IO, Any

import msgspec
from fleetfn.errors import UsageError
from msgspec import Struct

from fleetfn_builder.blobs import CHUNK, verified
from fleetfn_builder.builder import BuildError
from fleetfn_builder.image_store import Bytes
from fleetfn_builder.images import (
    CONFIG,
    LARGEST,
    LAYER,
    LAYER_PLAIN,
    MANIFEST,
    Config,
    Descriptor,
    Index,
    Manifest,
    canonical,
    decode,
    describe,
    recognize,
)
from fleetfn_builder.layouts import CATALOGUE, NAME, marks_of

DOCKERS = "manifest.json"
_BLOBS = "blobs/sha256/"
_GZIPPED = b"\x1f\x8b"

_Place = tuple[int, int]
"""Offset and size in the tarball."""


class DockerImage(Struct):
    """An image as Docker's manifest.json names it."""

    Config: str
    Layers: list[str]
    RepoTags: list[str] | None = None


def inside(digest: str) -> str:
    """The name of a content in a tarball."""
    return _BLOBS + digest.removeprefix("sha256:")


class Saved:
    """A tarball that is not there is empty. Raises BuildError for one that cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, _Place] = {}
        """By digest."""
        self._made: dict[str, bytes] = {}
        """Manifests that the tarball lacks, by digest."""
        self.index = Index(manifests=[])
        if path.exists():
            self._scan(self._members())

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._made or descriptor.digest in self._places

    def unnamed(self, digest: str) -> Descriptor | None:
        """A manifest that the catalogue does not name."""
        place = self._places.get(digest)
        return recognize(self._content(place)) if place is not None and place[1] <= LARGEST else None

    def open(self, descriptor: Descriptor, progress: Bytes) -> IO[bytes]:
        name = f"{descriptor.digest} in {self._path}"
        if (made := self._made.get(descriptor.digest)) is not None:
            return verified(io.BytesIO(made), descriptor, name, progress)
        if descriptor.digest not in self._places:
            raise BuildError(f"{self._path} lacks {descriptor.digest}", hint="The image is not whole: save it again.")
        return verified(_part(self._path, self._places[descriptor.digest]), descriptor, name, progress)

    def _members(self) -> dict[str, _Place]:
        try:
            with tarfile.open(self._path, "r:") as tar:
                members = {posixpath.normpath(member.name): member for member in tar}
        except (OSError, tarfile.TarError) as error:
            zipped = self._path.is_file() and self._path.read_bytes()[:2] == _GZIPPED
            raise BuildError(
                f"{self._path} is no tarball of an image: {'it is compressed' if zipped else error}",
                hint="Unpack it by gunzip first." if zipped else "A build makes one, and so does `docker save`.",
            ) from error
        return {
            name: (found.offset_data, found.size)
            for name in members
            if (found := _follow(members, name)) and found.size >= 0
        }

    def _scan(self, places: dict[str, _Place]) -> None:
        for name, place in places.items():
            if name.startswith(_BLOBS):
                self._places[f"sha256:{name.removeprefix(_BLOBS)}"] = place
        if CATALOGUE in places:
            self.index = decode(self._content(places[CATALOGUE]), Index, f"{CATALOGUE} in {self._path}")
        elif DOCKERS in places:
            self._read_dockers(places)
        else:
            raise BuildError(
                f"{self._path} is no tarball of an image: neither {CATALOGUE} nor {DOCKERS} is in it",
                hint="A build makes one, and so does `docker save`.",
            )

    def _read_dockers(self, places: dict[str, _Place]) -> None:
        found: list[Descriptor] = []
        try:
            for image in msgspec.json.decode(self._content(places[DOCKERS]), type=list[DockerImage]):
                made = canonical(self._manifest(image, places))
                descriptor = describe(made, MANIFEST)
                self._made[descriptor.digest] = made
                marks = [_marks(name) for name in image.RepoTags or []] or [{}]
                found += [msgspec.structs.replace(descriptor, annotations=each) for each in marks]
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise BuildError(f"{DOCKERS} in {self._path} cannot be read: {what}", hint="Save it again.") from error
        self.index = Index(manifests=found)

    def _manifest(self, image: DockerImage, places: dict[str, _Place]) -> Manifest:
        place = places[posixpath.normpath(image.Config)]
        raw = self._content(place)
        config = describe(raw, CONFIG)
        self._places[config.digest] = place
        diff_ids = decode(raw, Config, f"{image.Config} in {self._path}").rootfs.diff_ids
        names = [posixpath.normpath(name) for name in image.Layers]
        layers = [self._layer(places[name], diff_id) for name, diff_id in zip(names, diff_ids, strict=True)]
        return Manifest(config=config, layers=layers)

    def _layer(self, place: _Place, diff_id: str) -> Descriptor:
        """Not every program that writes such tarballs leaves layers uncompressed."""
        with _part(self._path, place) as content:
            zipped = content.read(2) == _GZIPPED
        digest = self._digest(place) if zipped else diff_id
        self._places[digest] = place
        return Descriptor(LAYER if zipped else LAYER_PLAIN, digest, place[1])

    def _digest(self, place: _Place) -> str:
        total = hashlib.sha256()
        with _part(self._path, place) as content:
            while chunk := content.read(CHUNK):
                total.update(chunk)
        return f"sha256:{total.hexdigest()}"

    def _content(self, place: _Place) -> bytes:
        if place[1] > LARGEST:
            raise BuildError(
                f"{self._path} has a catalogue or config of {place[1]} bytes", hint="They are small: save it again."
            )
        with _part(self._path, place) as content:
            return content.read()


def _marks(name: str) -> dict[str, str]:
    try:
        return marks_of(name)
    except UsageError:
        return {NAME: name}


def _follow(members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    """The file itself: equal layers are links to one. None for what is no file, or leads nowhere."""
    for _ in range(8):  # links to links: no more than a file system would follow
        member = members.get(name)
        if member is None or member.isfile():
            return member
        if not (member.issym() or member.islnk()):
            return None
        base = posixpath.dirname(name) if member.issym() else ""
        name = posixpath.normpath(posixpath.join(base, member.linkname))
    return None


def _part(path: Path, place: _Place) -> IO[bytes]:
    return io.BufferedReader(_Part(path, *place), CHUNK)


class _Part(io.RawIOBase):
    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._file.seek(offset)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(len(buffer), self._left))
        buffer[: len(chunk)] = chunk
        self._left -= len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()
