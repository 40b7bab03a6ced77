"""What the CNB lifecycle has left, as a Built: layers by the words of ours, the bill of materials, sizes.

It names layers in a label, by their digests before compression.
https://github.com/buildpacks/spec/blob/main/platform.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from fleetfn_builder import bills, buildpack_files, images
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError, Built, Layer
from fleetfn_builder.engine import ContainerSpec, Engine, EngineImage
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.images import Config, Descriptor, Manifest

LABEL = "io.buildpacks.lifecycle.metadata"
_NAMES: Mapping[str, Literal["dependencies", "runtime"]] = {"dependencies": "dependencies", "runtime": "runtime"}
"""Of our buildpack's layers that have a word of their own."""

Name = Literal["base", "dependencies", "runtime", "sbom", "code", "launch"]


class _Sha(msgspec.Struct):
    sha: str = ""


class _Buildpack(msgspec.Struct):
    key: str
    layers: dict[str, _Sha] = {}


class _RunImage(msgspec.Struct, rename="camel"):
    top_layer: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    app: list[_Sha] = []
    sbom: _Sha | None = None
    buildpacks: list[_Buildpack] = []
    run_image: _RunImage = msgspec.field(default_factory=_RunImage)


def names(labels: Mapping[str, str], diff_ids: Sequence[str]) -> list[Name]:
    """What each layer holds, from the base upwards. Raises BuildError for an image that no lifecycle has made."""
    try:
        told = msgspec.json.decode(labels.get(LABEL, ""), type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"the image's label {LABEL} cannot be read: {error}", hint="Build it by --fresh.") from error
    known: dict[str, Name] = {each.sha: "code" for each in told.app}
    if told.sbom is not None:
        known[told.sbom.sha] = "sbom"
    for buildpack in told.buildpacks:
        ours = buildpack.key == buildpack_files.ID
        known |= {
            one.sha: _NAMES.get(name, "launch") if ours else "dependencies" for name, one in buildpack.layers.items()
        }
    top = diff_ids.index(told.run_image.top_layer) if told.run_image.top_layer in diff_ids else -1
    return ["base" if at <= top else known.get(digest, "launch") for at, digest in enumerate(diff_ids)]


def in_store(store: ImageStore, descriptor: Descriptor, reference: str, *, unchanged: bool) -> Built:
    """Raises BuildError."""
    manifest = images.decode(store.read(descriptor), Manifest, reference)
    config = images.decode(store.read(manifest.config), Config, reference)
    called = names(config.labels, config.rootfs.diff_ids)
    layers = [Layer(name, one.digest, one.size) for name, one in zip(called, manifest.layers, strict=True)]
    at = called.index("sbom") if "sbom" in called else None
    return Built(
        reference=reference,
        digest=descriptor.digest,
        builder="buildpacks",
        function=config.labels.get(anatomy.LABEL_FUNCTION, ""),
        revision=config.labels.get(anatomy.LABEL_REVISION, ""),
        platforms=[str(config.platform)],
        size=sum(layer.size for layer in layers),
        layers=layers,
        unchanged=unchanged,
        sbom=_sbom(store, manifest.layers[at]) if at is not None else b"",
    )


def in_engine(engine: Engine, image: EngineImage, reference: str, *, unchanged: bool) -> Built:
    """An engine keeps layers unpacked: that are their sizes, and their digests are those before compression.

    Raises BuildError.
    """
    called = names(image.labels, image.diff_ids)
    sizes = engine.layer_sizes(image.id, len(called))
    layers = [Layer(*each) for each in zip(called, image.diff_ids, sizes, strict=True)]
    with engine.container(ContainerSpec(image=image.id, command=["-"])) as container:
        sbom = container.get(anatomy.SBOM)
    return Built(
        reference=reference,
        digest=image.id,
        builder="buildpacks",
        function=image.labels.get(anatomy.LABEL_FUNCTION, ""),
        revision=image.labels.get(anatomy.LABEL_REVISION, ""),
        platforms=[f"linux/{image.architecture}"],
        size=image.size,
        layers=layers,
        unchanged=unchanged,
        sbom=sbom or b"",
    )


def _sbom(store: ImageStore, layer: Descriptor) -> bytes:
    with store.open(layer) as content:
        return bills.inside(content)
