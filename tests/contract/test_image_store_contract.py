"""What every ImageStore promises: a registry, a layout folder, a tarball, memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_registry import serving
from fleetfn_builder import images, references
from fleetfn_builder.archives import Archive
from fleetfn_builder.builder import Access, BuildError
from fleetfn_builder.delivering import put_all
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.layouts import Layout
from fleetfn_builder.memory_images import MemoryImages
from fleetfn_builder.registry import Registry
from registry_server import fresh_repository
from small_images import SmallImage, index_of, small

Again = Callable[[], ImageStore]
"""The same store, opened once more."""


@pytest.fixture(
    params=["memory", "layout", "tarball", "double", pytest.param("registry", marks=pytest.mark.registry)],
)
def again(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "memory":
        store = MemoryImages()
        yield lambda: store
    elif request.param == "layout":
        yield lambda: Layout(tmp_path / "layout")
    elif request.param == "tarball":
        yield lambda: Archive(tmp_path / "image.tar")
    elif request.param == "double":
        with serving() as fake:
            reference = references.parse(f"{fake.address}/team/x")
            yield lambda: Registry(reference, Access())
    else:
        reference = references.parse(f"{request.getfixturevalue('registry')}/{fresh_repository()}")
        yield lambda: Registry(reference, Access())


def leave(store: ImageStore, image: SmallImage, *versions: str) -> None:
    with store:
        put_all(store, image.parts)
        store.tag(image.manifest_bytes, images.MANIFEST, versions)


def test_what_was_left_is_read_again(again: Again):
    image = small("one", "two")
    leave(again(), image, "1.4", "latest")
    with again() as store:
        assert store.resolve("1.4") == store.resolve("latest") == image.descriptor
        manifest = images.decode(store.read(image.descriptor), images.Manifest, "it")
        assert manifest == image.manifest
        assert store.read(manifest.config) == image.contents[manifest.config.digest]
        for layer in manifest.layers:
            with store.open(layer) as content:
                assert content.read() == image.contents[layer.digest]


def test_what_is_not_there_is_none_and_never_an_error_to_ask_for(again: Again):
    image = small()
    with again() as store:
        assert store.resolve("1") is None
        assert store.resolve(image.descriptor.digest) is None
        assert not store.has(image.manifest.layers[0])
    leave(again(), image, "2")
    with again() as store:
        assert store.resolve("1") is None
        assert store.has(image.manifest.layers[0])


def test_opening_what_is_not_there_names_its_digest(again: Again):
    layer = small().manifest.layers[0]
    with again() as store, pytest.raises(BuildError, match=layer.digest):
        store.open(layer)


def test_a_manifest_without_a_version_is_found_by_its_digest(again: Again):
    one, other = small("one"), small("other", architecture="arm64")
    index = index_of(one, other)
    with again() as store:
        for each in (one, other):
            put_all(store, each.parts)
            store.tag(each.manifest_bytes, images.MANIFEST, [])
        top = store.tag(index, images.INDEX, ["1"])
    with again() as store:
        assert store.resolve("1") == top == images.describe(index, images.INDEX)
        for each in (one, other):
            assert store.resolve(each.descriptor.digest) == each.descriptor
            assert store.read(each.descriptor) == each.manifest_bytes


def test_a_version_moves_to_what_was_tagged_last(again: Again):
    first, second = small("first"), small("second")
    leave(again(), first, "1")
    leave(again(), second, "1")
    with again() as store:
        assert store.resolve("1") == second.descriptor


def test_what_fails_on_the_way_leaves_the_version_as_it_was(again: Again):
    first, second = small("first"), small("second")
    leave(again(), first, "1")

    def breaks() -> io.BytesIO:
        raise BuildError("no")

    with pytest.raises(BuildError, match="no"), again() as store:
        _leave_in_part(store, second, breaks)
    with again() as store:
        assert store.resolve("1") == first.descriptor
        assert not store.has(second.manifest.layers[0])


def _leave_in_part(store: ImageStore, image: SmallImage, breaks: Callable[[], io.BytesIO]) -> None:
    config = image.parts[-1]
    store.put(config.descriptor, config.open)
    store.put(image.manifest.layers[0], breaks)
    store.tag(image.manifest_bytes, images.MANIFEST, ["1"])


@pytest.mark.parametrize("wrong", [b"", b"less", b"as many but others", b"more than there should be"], ids=len)
def test_other_bytes_than_described_are_refused(again: Again, wrong: bytes):
    content = b"what should be put"
    descriptor = images.describe(content, images.LAYER)
    with again() as store:
        with pytest.raises(BuildError, match=descriptor.digest):
            store.put(descriptor, lambda: io.BytesIO(wrong))
        assert not store.has(descriptor)
        store.put(descriptor, lambda: io.BytesIO(content))
        assert store.has(descriptor)


def test_what_is_there_is_not_opened_again(again: Again):
    image = small()
    with again() as store:
        put_all(store, image.parts)
        for part in image.parts:
            store.put(part.descriptor, pytest.fail)


def test_progress_counts_every_byte_once(again: Again):
    image = small("x" * 100_000)
    layer = image.manifest.layers[0]
    told: list[int] = []
    with again() as store:
        store.put(layer, image.parts[0].open, None, told.append)
        assert sum(told) == layer.size
        told.clear()
        with store.open(layer, told.append) as content:
            content.read()
    assert sum(told) == layer.size


def test_nothing_but_the_layer_is_empty(again: Again):
    """A layer of no bytes is one, too."""
    empty = images.describe(b"", images.LAYER_PLAIN)
    with again() as store:
        store.put(empty, lambda: io.BytesIO(b""))
        with store.open(empty) as content:
            assert content.read() == b""
