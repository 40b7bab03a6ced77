"""What an image is made of, as JSON: descriptors, manifests, indexes, configs.

Read by the media types of the OCI image specification 1.1 and of Docker (schema 2); written by those of OCI alone.
https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from fleetfn_builder.builder import BuildError, Platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_PLAIN = "application/vnd.oci.image.layer.v1.tar"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

_OCI = {
    DOCKER_MANIFEST: MANIFEST,
    DOCKER_INDEX: INDEX,
    "application/vnd.docker.container.image.v1+json": CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_PLAIN,
}

LARGEST = 16 << 20
"""Bytes of a manifest or config: registries themselves take 4 MiB."""

_DIGEST = r"^sha256:[0-9a-f]{64}\Z"
Digest = Annotated[str, Meta(pattern=_DIGEST)]
"""It becomes a file's name: nothing else may pass."""


class PlatformOf(Struct, frozen=True, omit_defaults=True):
    """What a manifest in an index is for."""

    architecture: str
    os: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Names content: what it is, its digest, its size in bytes."""

    media_type: str
    digest: Digest
    size: Annotated[int, Meta(ge=0)]
    annotations: dict[str, str] = {}
    platform: PlatformOf | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @property
    def is_manifest(self) -> bool:
        """Of an image, or an index of images."""
        return self.media_type in MANIFESTS or self.is_index

    def as_oci(self) -> Descriptor:
        """The same content by OCI's name for it."""
        return msgspec.structs.replace(self, media_type=_OCI.get(self.media_type, self.media_type))


def _two() -> int:
    """As a factory: omit_defaults leaves out what equals a plain default, and readers want this one written."""
    return 2


class Manifest(Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """One image of one platform."""

    config: Descriptor
    layers: list[Descriptor]
    """From the base upwards."""
    media_type: str = field(default_factory=lambda: MANIFEST)
    schema_version: int = field(default_factory=_two)
    annotations: dict[str, str] = {}


class Index(Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """Images of several platforms, or the images in a layout."""

    manifests: list[Descriptor]
    media_type: str = field(default_factory=lambda: INDEX)
    schema_version: int = field(default_factory=_two)
    annotations: dict[str, str] = {}


class RootFs(Struct, frozen=True, kw_only=True):
    diff_ids: list[Digest]
    """Digests of the layers before compression, from the base upwards."""
    type: str = "layers"


class History(Struct, frozen=True, omit_defaults=True, kw_only=True):
    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class Process(Struct, frozen=True, omit_defaults=True, rename="pascal", kw_only=True):
    """How a container of the image runs."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: list[str] = []
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""


class Config(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An image's config."""

    architecture: str
    os: str
    rootfs: RootFs
    created: str = ""
    author: str = ""
    variant: str = ""
    config: Process = field(default_factory=Process)
    history: list[History] = []

    @property
    def platform(self) -> PlatformOf:
        return PlatformOf(self.architecture, self.os, self.variant)

    @property
    def labels(self) -> dict[str, str]:
        return self.config.labels or {}


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no blanks: equal values are equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_size(descriptor: Descriptor) -> None:
    """Of what is read whole. Raises BuildError."""
    if descriptor.size > LARGEST:
        raise BuildError(
            f"{descriptor.digest} has {descriptor.size} bytes: too many for a {descriptor.media_type}",
            hint="Manifests and configs are small: is the image whole?",
        )


def describe(content: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, digest_of(content), len(content))


_Read = TypeVar("_Read", Manifest, Index, Config)


def decode(content: bytes, form: type[_Read], name: str) -> _Read:
    """`name`: what the bytes are, for the error. Raises BuildError."""
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(content)), form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BuildError(
            f"{name} is no {form.__name__.lower()} of an image: {error}",
            hint="Images by the OCI specification or by Docker (schema 2) can be read.",
        ) from error


def _without_nulls(value: Any) -> Any:
    """Docker writes null for an empty list, and for what is not set at all."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def recognize(content: bytes) -> Descriptor | None:
    """A manifest or index that nothing has described: by what it says it is, or looks like. None for anything else."""
    try:
        seen = msgspec.json.decode(content, type=_Looks)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    looks = INDEX if seen.manifests is not None else MANIFEST if seen.layers is not None else None
    media_type = seen.mediaType or looks
    return describe(content, media_type) if media_type in {*MANIFESTS, *INDEXES} else None


class _Looks(Struct):
    mediaType: str = ""  # noqa: N815 - as in the JSON
    manifests: list[msgspec.Raw] | None = None
    layers: list[msgspec.Raw] | None = None


def is_digest(text: str) -> bool:
    return re.fullmatch(_DIGEST, text) is not None


def choose(index: Index, platform: Platform, name: str) -> Descriptor:
    """The image for a platform. Raises BuildError that lists what there is; `name`: the index, for it."""
    known = [one for one in index.manifests if one.platform is not None]
    fitting = [one for one in known if one.platform and _fits(one.platform, platform)]
    if fitting:
        return fitting[0]
    if len(index.manifests) == 1 and not known:
        return index.manifests[0]  # its config says what it is for
    raise BuildError(
        f"{name} has no image for {platform}: it has {_listed(known)}",
        hint="Choose another platform, or another image to build on.",
    )


def _fits(offered: PlatformOf, wanted: Platform) -> bool:
    usual = "v8" if wanted.architecture == "arm64" else ""
    return (offered.os, offered.architecture) == ("linux", wanted.architecture) and offered.variant in {"", usual}


def _listed(descriptors: Sequence[Descriptor]) -> str:
    names = {str(one.platform) for one in descriptors if one.platform and one.platform.os != "unknown"}
    return ", ".join(sorted(names)) or "none"
