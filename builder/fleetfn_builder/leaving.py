"""A finished image, and how it gets to where it is asked for: what is there already is not sent again.

Tags come last, when everything is there under its digest, so a failure leaves what stood under them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Literal

import msgspec

from fleetfn_builder import bills, composing, images
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import Built, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.images import Config, Descriptor, Index, Manifest
from fleetfn_builder.inputs import Source
from fleetfn_builder.keeping import Keeping
from fleetfn_builder.references import Reference

Places = Sequence[tuple[ImageStore, Sequence[str]]]
"""Stores, and the versions that the image gets in each."""

Opening = Callable[[Descriptor], IO[bytes]]


class Record(msgspec.Struct):
    """Of an image that is kept: its manifest or index, and its bill of materials."""

    top: Descriptor
    bill: Descriptor


@dataclass(frozen=True, slots=True)
class Image:
    """`manifests`: one for each platform, with their bytes."""

    top: Descriptor
    content: bytes
    manifests: Sequence[tuple[bytes, Manifest]]
    bill: bytes

    def parts(self) -> Iterator[Descriptor]:
        """Layers and configs."""
        for _, manifest in self.manifests:
            yield from manifest.layers
            yield manifest.config


def kept(keeping: Keeping, record: Record) -> Image | None:
    """None: not all of it is there any more."""
    content, bill = keeping.content(record.top), keeping.content(record.bill)
    if content is None or bill is None:
        return None
    image = _image(record.top, content, bill, keeping.content)
    return image if image and all(map(keeping.has, image.parts())) else None


def there(places: Places) -> list[Descriptor | None]:
    """What stands under each version."""
    return [store.resolve(version) for store, versions in places for version in versions]


def is_all(found: Sequence[Descriptor | None], top: Descriptor) -> bool:
    """Does every version lead to this image?"""
    return all(each is not None and each.digest == top.digest for each in found)


def left(places: Places, found: Sequence[Descriptor | None], inputs: str, keeping: Keeping) -> Image | None:
    """What stands under all versions, if it was made of these inputs, here or by somebody else. `found`: see there."""
    top, store = found[0], places[0][0]
    if top is None or not is_all(found, top):
        return None

    def read(descriptor: Descriptor) -> bytes:
        return keeping.content(descriptor) or store.read(descriptor)

    image = _image(top, read(top), b"", read)
    if image is None:
        return None
    for _, manifest in image.manifests:
        config = images.decode(read(manifest.config), Config, manifest.config.digest)
        if config.labels.get(anatomy.LABEL_INPUTS) != inputs:
            return None
    return Image(image.top, image.content, image.manifests, _bill(store, image.manifests[0][1]))


def _image(top: Descriptor, content: bytes, bill: bytes, read: Callable[[Descriptor], bytes | None]) -> Image | None:
    if not top.is_index:
        return Image(top, content, [(content, images.decode(content, Manifest, top.digest))], bill)
    contents = [read(each) for each in images.decode(content, Index, top.digest).manifests]
    there = [each for each in contents if each is not None]
    if len(there) != len(contents) or not there:
        return None
    return Image(top, content, [(each, images.decode(each, Manifest, top.digest)) for each in there], bill)


def _bill(store: ImageStore, manifest: Manifest) -> bytes:
    for layer in manifest.layers:
        if layer.annotations.get(composing.LAYER) == "sbom":
            with store.open(layer) as content:
                return bills.inside(content)
    return b""


def leave(places: Places, image: Image, opening: Opening, base: Reference | None, *, to_file: bool) -> None:
    """`opening`: of its layers and configs. `base`: a repository that has some of them, too."""
    for store, _ in places:
        parts = {each.digest: each for each in image.parts()}
        if to_file:
            for each in parts.values():
                store.put(each, partial(opening, each))
        else:
            _send(store, list(parts.values()), opening, base)
        for content, _ in image.manifests:
            store.tag(content, images.MANIFEST, [])
    for store, versions in places:
        store.tag(image.content, image.top.media_type, versions)


def _send(store: ImageStore, parts: Sequence[Descriptor], opening: Opening, base: Reference | None) -> None:
    from fleetfn_builder import delivering  # noqa: PLC0415 - it brings threads

    delivering.put_all(
        store,
        [
            delivering.Part(each, partial(opening, each), None if composing.LAYER in each.annotations else base)
            for each in parts
        ],
    )


def built(
    builder: Literal["direct", "memory"], request: Request, source: Source, image: Image, *, unchanged: bool
) -> Built:
    """The result, wherever it was left."""
    manifest = image.manifests[0][1]
    reference, digest = f"{request.tags[0]}@{image.top.digest}", image.top.digest
    match request.destination:
        case ToFile(path):
            reference = str(path)
        case ToEngine():
            from fleetfn_builder.engine import familiar  # noqa: PLC0415 - only who asks for an engine needs its words

            reference, digest = familiar(request.tags[0]), manifest.config.digest
        case ToRegistry():
            pass
    return Built(
        reference=reference,
        digest=digest,
        builder=builder,
        function=request.function.name,
        revision=source.revision,
        platforms=[str(each) for each in request.platforms],
        size=sum(layer.size for layer in manifest.layers),
        layers=composing.layers_of(manifest),
        unchanged=unchanged,
        sbom=image.bill,
    )
