"""Images on their way into an engine: what it has is not sent."""

import json
import tarfile

import base_images
import pytest
from fleetfn_builder import images, loading
from fleetfn_builder.builder import BuildError
from fleetfn_builder.engine import EngineImage
from fleetfn_builder.images import Manifest
from fleetfn_builder.memory_images import MemoryImages

LAYERS = ({"etc/one": b"1"}, {"etc/two": b"2"}, {"etc/three": b"3"})


class Engine:
    """As much of one as loading asks. `refuses`: tarballs with empty layers."""

    def __init__(self, *, knows_layers=True, refuses=False):
        self.knows_layers = knows_layers
        self._refuses = refuses
        self.taken = {}

    def load(self, archive):
        with tarfile.open(fileobj=archive) as tar:
            self.taken = {member.name: tar.extractfile(member).read() for member in tar}
        if self._refuses and b"" in self.taken.values():
            raise BuildError("it lacks a layer")


@pytest.fixture
def images_there():
    return MemoryImages()


def send(engine, store, there, tmp_path):
    manifest = images.decode(store.read(base_images.leave(store, *LAYERS)), Manifest, "x")
    loading.load(engine, manifest, ["hello:1", "hello:2"], there, store.open, tmp_path)
    return manifest


def having(*layers):
    diff_ids = [images.digest_of(base_images.tarred(each)) for each in layers]
    return EngineImage(id="", architecture="amd64", user="", labels={}, env=[], diff_ids=diff_ids, size=0)


def sizes(engine):
    (listed,) = json.loads(engine.taken["manifest.json"])
    return [len(engine.taken[name]) for name in listed["Layers"]]


def test_the_tarball_is_what_docker_load_reads(images_there, tmp_path):
    engine = Engine()
    manifest = send(engine, images_there, [], tmp_path)
    (listed,) = json.loads(engine.taken["manifest.json"])
    assert listed["RepoTags"] == ["hello:1", "hello:2"]
    assert images.digest_of(engine.taken[listed["Config"]]) == manifest.config.digest
    assert [images.digest_of(engine.taken[name]) for name in listed["Layers"]] == [
        layer.digest for layer in manifest.layers
    ]


def test_layers_that_the_engine_has_from_the_base_upwards_are_not_sent(images_there, tmp_path):
    engine = Engine()
    others = [having({"etc/other": b""}), having(*LAYERS[:2], {"etc/other": b""}), having(LAYERS[1])]
    send(engine, images_there, others, tmp_path)
    assert [size > 0 for size in sizes(engine)] == [False, False, True]


def test_all_are_sent_to_an_engine_that_does_not_know_layers(images_there, tmp_path):
    engine = Engine(knows_layers=False)
    send(engine, images_there, [having(*LAYERS)], tmp_path)
    assert all(sizes(engine))


def test_all_are_sent_where_some_have_gone_meanwhile(images_there, tmp_path):
    engine = Engine(refuses=True)
    send(engine, images_there, [having(*LAYERS[:2])], tmp_path)
    assert all(sizes(engine))


def test_a_damaged_layer_is_not_sent(images_there, tmp_path):
    descriptor = base_images.leave(images_there, *LAYERS)
    manifest = images.decode(images_there.read(descriptor), Manifest, "x")
    images_there.blobs[manifest.layers[1].digest] = b"x" * manifest.layers[1].size
    engine = Engine()
    with pytest.raises(BuildError, match="its digest is"):
        loading.load(engine, manifest, ["hello:1"], [], images_there.open, tmp_path)
    assert engine.taken == {}
