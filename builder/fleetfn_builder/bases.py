"""Base images, fetched and looked into once: their layers and what they hold are kept.

What a tag names in a registry is asked again after a day (if nobody answers then, it stays what it was, and a warning
says so), and by a fresh build; a digest, a layout folder and a tarball say themselves whether they are still the same.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from fleetfn_builder import composing, images, inputs, opening, references
from fleetfn_builder.base_facts import Facts, scan
from fleetfn_builder.blobs import CHUNK, Blobs
from fleetfn_builder.builder import Access, BuildError, Platform, Progress
from fleetfn_builder.images import Config, Descriptor, Manifest
from fleetfn_builder.keeping import Keeping
from fleetfn_builder.references import Reference

KEPT = 24 * 60 * 60.0
"""Seconds for which a tag of a registry counts as what it named last."""

_FACTS = 2
"""Raise it when what is read off a base changes."""
_LEVEL = 6
"""zlib's own choice between time and size."""


def default() -> str:
    """The slim image of the Python that runs here, by its minor version."""
    return f"docker.io/library/python:{sys.version_info.major}.{sys.version_info.minor}-slim"


@dataclass(frozen=True, slots=True)
class Found:
    """A base for one platform, all of it kept. `reference`: of a repository that has its layers, if one does."""

    base: composing.Base
    facts: Facts
    reference: Reference | None


class _Known(msgspec.Struct):
    """`digest`: of the base's manifest where it came from; `manifest`: as kept, with every layer compressed."""

    digest: str
    manifest: Descriptor
    at: float


class Bases:
    def __init__(self, keeping: Keeping, access: Access, progress: Progress, *, fresh: bool) -> None:
        self._keeping = keeping
        self._access = access
        self._progress = progress
        self._fresh = fresh

    def find(self, text: str, platform: Platform) -> Found:
        """Raises BuildError: it cannot be reached or read, is for another platform, has no Python that will do."""
        reference = None if _is_file(text) else references.parse(text)
        key = f"{_FACTS} {reference or _stamp(text)} {platform}"
        with self._keeping.making(key):
            known = None if self._fresh else self._keeping.read("bases", key, _Known)
            kept = self._kept(known, reference) if known else None
            if known and kept and (_says_itself(reference) or 0 <= time.time() - known.at < KEPT):
                return kept
            try:
                return self._fetch(text, platform, key)
            except BuildError as error:
                if known is None or kept is None or not _nobody_answers(error):
                    raise
                day = time.strftime("%Y-%m-%d", time.localtime(known.at))
                self._progress(f"warning: the base {text} is taken as it was on {day}: {error.message}")
                return kept

    def _kept(self, known: _Known, reference: Reference | None) -> Found | None:
        """None: not all of it is there any more."""
        facts = self._keeping.read("facts", f"{_FACTS} {known.digest}", Facts)
        content = self._keeping.content(known.manifest)
        manifest = images.decode(content, Manifest, "a kept base") if content else None
        config = self._keeping.content(manifest.config) if manifest else None
        if facts is None or manifest is None or config is None or not all(map(self._keeping.has, manifest.layers)):
            return None
        decoded = images.decode(config, Config, "a kept base")
        return Found(composing.Base(known.digest, manifest, decoded, _name(reference)), facts, reference)

    def _fetch(self, text: str, platform: Platform, key: str) -> Found:
        blobs = self._keeping.blobs
        with opening.open_image(text, self._access, platform) as image:
            digest = image.descriptor.digest
            size = inputs.in_words(sum(layer.size for layer in image.manifest.layers))
            self._progress(f"base: {text}, {platform}, {size}")
            layers = [self._fetch_layer(image, layer) for layer in image.manifest.layers]
            blobs.put(image.manifest.config, lambda: image.store.open(image.manifest.config))
        manifest = msgspec.structs.replace(image.manifest, layers=layers)
        described = self._keeping.keep(images.canonical(manifest), images.MANIFEST)
        facts = self._facts(text, digest, image.config, layers)
        self._keeping.write("bases", key, _Known(digest, described, time.time()))
        return Found(composing.Base(digest, manifest, image.config, _name(image.reference)), facts, image.reference)

    def _fetch_layer(self, image: opening.Image, layer: Descriptor) -> Descriptor:
        """What `docker save` wrote is not compressed; in an image that is sent about it is, as others leave it."""
        blobs = self._keeping.blobs
        if layer.as_oci().media_type != images.LAYER_PLAIN:
            if not self._keeping.has(layer):
                blobs.put(layer, lambda: image.store.open(layer))
            return layer
        known = self._keeping.read("layers", f"zipped {_LEVEL} {layer.digest}", composing.Piece)
        if known and self._keeping.has(known.descriptor) and not self._fresh:
            return known.descriptor
        self._progress(f"base: compressing a layer, {inputs.in_words(layer.size)}")
        with self._keeping.workshop() as folder, image.store.open(layer) as plain:
            described = _zip(plain, folder / "layer.tar.gz")
            blobs.put(described, lambda: (folder / "layer.tar.gz").open("rb"))
        self._keeping.write(
            "layers", f"zipped {_LEVEL} {layer.digest}", composing.Piece("base", described, layer.digest)
        )
        return described

    def _facts(self, text: str, digest: str, config: Config, layers: list[Descriptor]) -> Facts:
        key = f"{_FACTS} {digest}"
        known = self._keeping.read("facts", key, Facts)
        if known and not self._fresh:
            return known
        opened = [(layer.digest, _opening(self._keeping.blobs, layer)) for layer in layers]
        found = scan(text, config.architecture, config.config.env, opened)
        self._keeping.write("facts", key, found)
        return found


def _nobody_answers(error: BuildError) -> bool:
    """A tag that was deleted, or may not be read any more, is an answer."""
    from fleetfn_builder.registry_errors import RegistryError  # noqa: PLC0415 - it brings an HTTP client

    return isinstance(error, RegistryError) and error.away


def _is_file(text: str) -> bool:
    return text.startswith(opening.LAYOUT) or text.endswith(opening.TARBALL)


def _says_itself(reference: Reference | None) -> bool:
    return reference is None or reference.digest is not None


def _name(reference: Reference | None) -> str:
    return str(reference) if reference else ""


def _stamp(text: str) -> str:
    """A file's place, size and time of change, by which a kept one is known to be the same."""
    path = Path(text.removeprefix(opening.LAYOUT))
    folder = path if path.is_dir() else path.with_name(path.name.partition(":")[0])
    file = folder / "index.json" if text.startswith(opening.LAYOUT) else path
    try:
        status = file.stat()
    except OSError:
        return f"{text} is not there"  # what opens it says so better
    return f"{text} {file.absolute()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _opening(blobs: Blobs, layer: Descriptor) -> Callable[[], IO[bytes]]:
    return lambda: blobs.open(layer)


def _zip(plain: IO[bytes], into: Path) -> Descriptor:
    with (
        into.open("wb") as to_file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=to_file, mtime=0) as to,
    ):
        while chunk := plain.read(CHUNK):
            to.write(chunk)
    with into.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Descriptor(images.LAYER, f"sha256:{digest}", into.stat().st_size)
