"""Images in one tarball: an OCI image layout in a tar, with Docker's `manifest.json`, so that `docker load` takes it.

Equal images are equal bytes.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self

from fleetfn_builder.archive_reading import DOCKERS, DockerImage, Saved, inside
from fleetfn_builder.blobs import Blobs, hold, is_aside, remove_left, unwritten, written
from fleetfn_builder.image_store import Bytes, nobody
from fleetfn_builder.images import Descriptor, Index, Manifest, canonical, check_size, decode, describe
from fleetfn_builder.layouts import CATALOGUE, MARK, MARKED, NAME, find, with_versions
from fleetfn_builder.references import Reference


class Archive:
    """An ImageStore. What is tagged makes a new tarball, in place of the old one, when the context ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old: Saved | None = None
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._held = -1
        """Descriptor of that folder, locked: somebody is at work in it."""
        self._tagged = Index(manifests=[])
        self._known: dict[str, Descriptor] = {}
        self._lock = threading.Lock()

    def index(self) -> Index:
        """Every image in it."""
        return self._tagged if self._tagged.manifests else self._reading().index

    def resolve(self, version: str) -> Descriptor | None:
        return self._known.get(version) or find(self.index(), version) or self._reading().unnamed(version)

    def read(self, descriptor: Descriptor) -> bytes:
        check_size(descriptor)
        with self.open(descriptor) as content:
            return content.read()

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        if self._aside is not None and self._new(self._aside).has(descriptor):
            return self._new(self._aside).open(descriptor, progress)
        return self._reading().open(descriptor, progress)

    def has(self, descriptor: Descriptor) -> bool:
        new = self._aside is not None and self._new(self._aside).has(descriptor)
        return new or self._reading().has(descriptor)

    def put(
        self,
        descriptor: Descriptor,
        open: Callable[[], IO[bytes]],  # noqa: A002
        mount_from: Reference | None = None,  # noqa: ARG002 - only hosts mount
        progress: Bytes = nobody,
    ) -> None:
        if not self.has(descriptor):
            self._writing().put(descriptor, open, progress)

    def tag(self, manifest: bytes, media_type: str, versions: Sequence[str]) -> Descriptor:
        descriptor = describe(manifest, media_type)
        self._writing().put(descriptor, lambda: io.BytesIO(manifest))
        with self._lock:
            self._known[descriptor.digest] = descriptor
            self._tagged = with_versions(self._tagged, descriptor, versions)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._tagged.manifests:
                self._write()
        finally:
            if self._aside is not None:
                self._aside.cleanup()
                os.close(self._held)
            self._old = self._aside = None
            self._tagged, self._known = Index(manifests=[]), {}

    def _reading(self) -> Saved:
        if self._old is None:
            self._old = Saved(self._path)
        return self._old

    def _writing(self) -> Blobs:
        with self._lock:
            if self._aside is None:
                self._aside = self._make_aside()
        return self._new(self._aside)

    def _make_aside(self) -> tempfile.TemporaryDirectory[str]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{self._path.name[:100]}.fleetfn-"
            remove_left(_left(self._path, prefix))
            made = tempfile.TemporaryDirectory(prefix=prefix, dir=self._path.parent)
            self._held = os.open(made.name, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise unwritten(self._path, error) from error
        hold(self._held)
        return made

    @staticmethod
    def _new(aside: tempfile.TemporaryDirectory[str]) -> Blobs:
        return Blobs(Path(aside.name))

    def _write(self) -> None:
        parts = {one.digest: one for top in self._tagged.manifests for one in self._reachable(top)}
        with written(self._path) as into, tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, MARK, MARKED)
            _add(tar, CATALOGUE, canonical(self._tagged))
            if dockers := self._dockers():
                _add(tar, DOCKERS, canonical(dockers))
            for digest in sorted(parts):
                with self.open(parts[digest]) as content:
                    tar.addfile(_member(inside(digest), parts[digest].size), content)
                    content.read(1)  # its end: now its digest is known

    def _reachable(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """An image or index and all it names; what is named must be there."""
        yield descriptor
        if descriptor.is_index:
            for one in decode(self.read(descriptor), Index, descriptor.digest).manifests:
                yield from self._reachable(one)
        elif descriptor.is_manifest:
            manifest = decode(self.read(descriptor), Manifest, descriptor.digest)
            yield manifest.config
            yield from manifest.layers

    def _dockers(self) -> list[DockerImage]:
        """What `docker load` reads. It knows no index: then nothing."""
        names: dict[str, list[str]] = {}
        for one in self._tagged.manifests:
            if not one.is_index:
                names.setdefault(one.digest, []).extend(filter(None, [one.annotations.get(NAME)]))
        found: list[DockerImage] = []
        for digest in sorted(names):
            manifest = decode(self.read(self._known[digest]), Manifest, digest)
            layers = [inside(each.digest) for each in manifest.layers]
            found.append(
                DockerImage(Config=inside(manifest.config.digest), RepoTags=sorted(names[digest]), Layers=layers)
            )
        return found


def _left(tarball: Path, prefix: str) -> Iterator[Path]:
    """Beside it: folders, and the file that a tarball is until it is whole."""
    of = re.escape(tarball.name[:200])
    yield from (each for each in tarball.parent.iterdir() if each.name.startswith(prefix) or is_aside(each.name, of))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # of user 0, at time 0
    member.size = size
    member.mode = 0o644
    return member
