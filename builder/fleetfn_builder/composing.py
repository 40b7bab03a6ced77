"""An image's manifest and config, from a base's and the layers that are laid upon it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fleetfn_builder import images
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError, Layer
from fleetfn_builder.images import Config, Descriptor, History, Manifest, Process, RootFs
from fleetfn_builder.inputs import Source

LAYER = "dev.fleetfn.layer"
"""Annotation of a layer: what it holds, in a word."""

LABEL_TITLE = "org.opencontainers.image.title"
LABEL_BASE_NAME = "org.opencontainers.image.base.name"
LABEL_BASE_DIGEST = "org.opencontainers.image.base.digest"
_LABELS_OF_ITS_OWN = "org.opencontainers.image."
"""What a base says of itself by these is not true of an image built on it."""


class Piece(msgspec.Struct, frozen=True):
    """A finished layer. `diff_id`: its digest before compression."""

    name: str
    descriptor: Descriptor
    diff_id: str


@dataclass(frozen=True, slots=True)
class Base:
    """`digest`: of its manifest, where it came from. `reference`: as labels name it; empty for one in a file."""

    digest: str
    manifest: Manifest
    config: Config
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Composed:
    """As bytes: what is left under these descriptors."""

    config: bytes
    manifest: bytes
    descriptor: Descriptor


def compose(base: Base, pieces: Sequence[Piece], labels: Mapping[str, str], created: int) -> Composed:
    """`created`: seconds since 1970. Raises BuildError for a base that contradicts itself."""
    lowest = base.manifest.layers
    below = base.config.rootfs.diff_ids
    if len(lowest) != len(below):
        raise BuildError(
            f"the base image {base.reference or base.digest} has {len(lowest)} layers, and its config names "
            f"{len(below)}",
            hint="Fetch or make the base again.",
        )
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    config = Config(
        architecture=base.config.architecture,
        os=base.config.os,
        variant=base.config.variant,
        created=at,
        rootfs=RootFs(diff_ids=[*below, *(piece.diff_id for piece in pieces)]),
        config=_process(base.config.config, labels),
        history=[
            *_history(base.config, len(below)),
            *(History(created=at, created_by=f"fleetfn: {piece.name}") for piece in pieces),
        ],
    )
    config_bytes = images.canonical(config)
    manifest = images.canonical(
        Manifest(
            config=images.describe(config_bytes, images.CONFIG),
            layers=[*(layer.as_oci() for layer in lowest), *map(_named, pieces)],
        )
    )
    described = images.describe(manifest, images.MANIFEST)
    return Composed(config_bytes, manifest, msgspec.structs.replace(described, platform=config.platform))


def _named(piece: Piece) -> Descriptor:
    return msgspec.structs.replace(piece.descriptor, annotations={LAYER: piece.name})


def _history(base: Config, layers: int) -> list[History]:
    """One for each layer, or readers refuse the image."""
    if sum(not each.empty_layer for each in base.history) == layers:
        return base.history
    return [History(created_by="base")] * layers


def _process(base: Process, labels: Mapping[str, str]) -> Process:
    ours = anatomy.ENVIRONMENT | {anatomy.REVISION: labels[anatomy.LABEL_REVISION]}
    kept = [each for each in base.env if each.partition("=")[0] not in ours]
    return Process(
        user=f"{anatomy.USER}:{anatomy.USER}",
        exposed_ports={f"{anatomy.PORT}/tcp": {}},
        env=[*kept, *(f"{name}={value}" for name, value in ours.items())],
        entrypoint=anatomy.COMMAND,
        working_dir=anatomy.CODE,
        labels=inherited(base.labels or {}) | dict(labels),
    )


def inherited(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a base that are true of an image built on it."""
    return {name: value for name, value in labels.items() if not name.startswith(_LABELS_OF_ITS_OWN)}


def labels(builder: str, function: str, source: Source, *, version: str, inputs: str, base: Base) -> dict[str, str]:
    """`version`: FleetFn's; `inputs`: digest over all that the build depends on."""
    named = {LABEL_BASE_NAME: base.reference} if base.reference else {}
    return named | {
        LABEL_TITLE: function,
        LABEL_BASE_DIGEST: base.digest,
        anatomy.LABEL_FUNCTION: function,
        anatomy.LABEL_REVISION: source.revision,
        anatomy.LABEL_SOURCE: source.files,
        anatomy.LABEL_VERSION: version,
        anatomy.LABEL_INPUTS: inputs,
        anatomy.LABEL_BUILDER: builder,
    }


def index_of(manifests: Sequence[Descriptor]) -> tuple[bytes, Descriptor]:
    """Of images of several platforms."""
    content = images.canonical(images.Index(manifests=list(manifests)))
    return content, images.describe(content, images.INDEX)


def layers_of(manifest: Manifest) -> list[Layer]:
    """As a result lists them; what no annotation names is the base's."""
    named = [
        {"name": layer.annotations.get(LAYER, "base"), "digest": layer.digest, "size": layer.size}
        for layer in manifest.layers
    ]
    return msgspec.convert(named, list[Layer])
