"""A real registry: with a password, killed while something is pushed, with layers of a neighbour."""

from __future__ import annotations

import io
import os
import threading
import time

import pytest
from fleetfn_builder import images, opening, references
from fleetfn_builder.builder import Access, BuildError, Platform, ToRegistry
from fleetfn_builder.delivering import Part, put_all
from fleetfn_builder.registry import Registry
from fleetfn_builder.registry_http import Patience
from registry_server import PASSWORD, USER, OwnRegistry, fresh_repository
from small_images import index_of, small

pytestmark = pytest.mark.registry

AMD64, ARM64 = Platform("amd64"), Platform("arm64")
BRIEF = Patience(attempts=2, first=0.05)


def test_a_registry_with_a_password(own_registry: OwnRegistry):
    own_registry.want_password()
    own_registry.start()
    image = small("hello")
    reference = references.parse(f"{own_registry.address}/team/x:1")

    def pushed(access: Access) -> None:
        with opening.leave(ToRegistry(), [reference], access) as [(store, versions)]:
            put_all(store, image.parts)
            store.tag(image.manifest_bytes, images.MANIFEST, versions)

    with pytest.raises(BuildError, match="wants credentials to push"):
        pushed(Access())
    with pytest.raises(BuildError, match=f"does not accept user '{USER}'"):
        pushed(Access(USER, "wrong"))
    access = Access(USER, PASSWORD, reference.host)
    pushed(access)
    with opening.open_image(str(reference), access, AMD64) as found:
        assert found.descriptor == image.descriptor


def test_an_index_of_two_platforms(registry: str):
    one, other = small("one"), small("other", architecture="arm64")
    reference = references.parse(f"{registry}/{fresh_repository()}:1")
    index = index_of(one, other)
    with opening.leave(ToRegistry(), [reference], Access()) as [(store, versions)]:
        for each in (one, other):
            put_all(store, each.parts)
            store.tag(each.manifest_bytes, images.MANIFEST, [])
        store.tag(index, images.INDEX, versions)
    with opening.open_image(str(reference), Access(), ARM64) as found:
        assert found.descriptor == other.descriptor
    with opening.open_image(f"{reference.repository}@{images.digest_of(index)}", Access(), AMD64) as found:
        assert found.config == one.config


def test_layers_of_a_neighbour_are_not_sent(registry: str):
    base = references.parse(f"{registry}/{fresh_repository()}:1")
    image = small("base")
    with Registry(base, Access()) as store:
        put_all(store, image.parts)
        store.tag(image.manifest_bytes, images.MANIFEST, ["1"])
    with Registry(references.parse(f"{registry}/{fresh_repository()}:1"), Access()) as store:
        for part in image.parts:
            store.put(part.descriptor, pytest.fail, base)
        store.tag(image.manifest_bytes, images.MANIFEST, ["1"])
        assert store.resolve("1") == image.descriptor


class Slow(io.BytesIO):
    """Stops in its middle until it may go on, and says that it is there."""

    def __init__(self, content: bytes, reached: threading.Event, go_on: threading.Event) -> None:
        super().__init__(content)
        self._reached = reached
        self._go_on = go_on

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > len(self.getvalue()) // 2:
            self._reached.set()
            assert self._go_on.wait(60)
        return super().read(size)


def test_a_registry_that_is_killed_in_the_middle_of_a_push(own_registry: OwnRegistry):
    own_registry.start()
    reference = references.parse(f"{own_registry.address}/team/x:1")
    old, new = small("old"), small("new", "newer")
    large = os.urandom(16 << 20)
    layer = images.describe(large, images.LAYER)
    opened: list[str] = []
    with Registry(reference, Access()) as store:
        put_all(store, old.parts)
        store.tag(old.manifest_bytes, images.MANIFEST, ["1"])

    def push(part: Part) -> None:
        with Registry(reference, Access(), BRIEF) as store:
            for each in new.parts:
                store.put(each.descriptor, lambda each=each: opened.append(each.descriptor.digest) or each.open())
            store.put(part.descriptor, part.open)
            store.tag(new.manifest_bytes, images.MANIFEST, ["1"])

    reached, go_on = threading.Event(), threading.Event()

    def kill() -> None:
        assert reached.wait(60)
        own_registry.kill()
        go_on.set()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BuildError) as caught:
        push(Part(layer, lambda: Slow(large, reached, go_on)))
    killer.join()
    assert own_registry.address in caught.value.message
    assert "not sent twice" in caught.value.hint

    own_registry.start()
    with Registry(reference, Access()) as store:
        assert store.resolve("1") == old.descriptor
        assert not store.has(layer)
    opened.clear()
    push(Part(layer, lambda: io.BytesIO(large)))
    assert opened == []  # they were there
    with Registry(reference, Access()) as store, store.open(layer) as content:
        assert store.resolve("1") == new.descriptor
        assert content.read() == large


def test_a_registry_that_comes_back_while_a_push_waits_for_it(own_registry: OwnRegistry):
    reference = references.parse(f"{own_registry.address}/team/x:1")
    image = small("hello")
    starting = threading.Thread(target=own_registry.start)

    def sleep(seconds: float) -> None:
        if not starting.ident:
            starting.start()
        time.sleep(seconds)

    with Registry(reference, Access(), Patience(attempts=11, first=0.2, sleep=sleep)) as store:
        for part in image.parts:
            store.put(part.descriptor, part.open)
        store.tag(image.manifest_bytes, images.MANIFEST, ["1"])
        assert store.resolve("1") == image.descriptor
    starting.join()
