"""Manifests, indexes and configs: what is read, what is written, which platform is chosen."""

import json

import pytest
from fleetfn_builder import images
from fleetfn_builder.builder import BuildError, Platform
from fleetfn_builder.images import Config, Descriptor, Index, Manifest, PlatformOf
from small_images import index_of, small

DIGEST = "sha256:" + "a" * 64


def test_a_manifest_is_written_with_its_version_and_type_sorted_and_without_blanks():
    image = small()
    written = json.loads(image.manifest_bytes)
    assert written["schemaVersion"] == 2
    assert written["mediaType"] == images.MANIFEST
    assert image.manifest_bytes == json.dumps(written, sort_keys=True, separators=(",", ":")).encode()


def test_a_config_without_layers_still_says_so():
    config = Config(architecture="arm64", os="linux", rootfs=images.RootFs(diff_ids=[]))
    assert json.loads(images.canonical(config)) == {
        "architecture": "arm64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def test_docker_manifests_are_read_and_called_by_the_names_of_oci():
    text = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": images.DOCKER_MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": DIGEST, "size": 3},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": DIGEST, "size": 4}],
        }
    ).encode()
    manifest = images.decode(text, Manifest, "x")
    assert manifest.layers[0].as_oci() == Descriptor(images.LAYER, DIGEST, 4)
    assert manifest.config.as_oci().media_type == images.CONFIG


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"config": 1, "layers": []}',
        b'{"config":{"mediaType":"x","digest":"sha256:../../etc/passwd","size":1},"layers":[]}',
        b'{"config":{"mediaType":"x","digest":"sha256:' + b"a" * 64 + b'\\n","size":1},"layers":[]}',
        b'{"config":{"mediaType":"x","digest":"sha256:' + b"a" * 64 + b'","size":-1},"layers":[]}',
        b'{"schemaVersion":1,"fsLayers":[]}',
    ],
    ids=["empty", "list", "bytes", "types", "path for a digest", "newline in a digest", "size", "docker schema 1"],
)
def test_what_is_no_manifest_is_told_by_its_name(text: bytes):
    with pytest.raises(BuildError, match=r"team/x is no manifest of an image"):
        images.decode(text, Manifest, "team/x")


def test_the_platform_asked_for_is_chosen():
    amd64, arm64 = small("a"), small("b", architecture="arm64")
    index = images.decode(index_of(amd64, arm64), Index, "x")
    assert images.choose(index, Platform("arm64"), "x").digest == arm64.descriptor.digest


def test_a_variant_that_every_machine_has_is_chosen_and_another_is_not():
    def offered(variant: str) -> Index:
        return Index(manifests=[Descriptor(images.MANIFEST, DIGEST, 1, platform=PlatformOf("arm64", "linux", variant))])

    assert images.choose(offered("v8"), Platform("arm64"), "x").digest == DIGEST
    with pytest.raises(BuildError, match="linux/arm64/v9"):
        images.choose(offered("v9"), Platform("arm64"), "x")


def test_a_platform_that_is_not_there_names_those_that_are():
    index = Index(
        manifests=[
            Descriptor(images.MANIFEST, DIGEST, 1, platform=PlatformOf("s390x", "linux")),
            Descriptor(images.MANIFEST, DIGEST, 1, platform=PlatformOf("arm", "linux", "v7")),
            Descriptor(images.MANIFEST, DIGEST, 1, platform=PlatformOf("unknown", "unknown")),  # an attestation
        ]
    )
    with pytest.raises(BuildError, match=r"python has no image for linux/amd64: it has linux/arm/v7, linux/s390x$"):
        images.choose(index, Platform("amd64"), "python")


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (small().manifest_bytes, images.MANIFEST),
        (index_of(small()), images.INDEX),
        (b'{"manifests": []}', images.INDEX),
        (b'{"layers": [], "config": {}}', images.MANIFEST),
        (small().contents[small().manifest.config.digest], None),
        (b"\x1f\x8b", None),
        (b'{"mediaType": "text/plain", "layers": []}', None),
    ],
    ids=["manifest", "index", "index without a type", "manifest without a type", "config", "layer", "other"],
)
def test_a_manifest_is_recognized_by_what_it_holds(content: bytes, media_type: str | None):
    found = images.recognize(content)
    assert (found and found.media_type) == media_type
