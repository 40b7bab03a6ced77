"""Images for pods of tests on a cluster."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from fleetfn_builder import images, opening, references
from fleetfn_builder.builder import Access, Platform, ToRegistry
from fleetfn_builder.delivering import Part, put_all

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def python_image(archive: Path, registry: str) -> str:
    """What the base image of `scripts/base_image.sh` is called there."""
    return f"{registry}/e2e/python:{archive.stem.removeprefix('base-image-')}"


def push(archive: Path, name: str) -> str:
    """The image of a tarball into a registry that speaks plain HTTP; its name, for pods."""
    reference = references.parse(name)
    access = Access(insecure=frozenset({reference.host}))
    here = Platform(_ARCHITECTURES[platform.machine()])
    with (
        opening.open_image(str(archive), access, here) as image,
        opening.leave(ToRegistry(), [reference], access) as [(store, versions)],
    ):
        pieces = (*image.manifest.layers, image.manifest.config)
        put_all(store, [Part(each, functools.partial(image.store.open, each)) for each in pieces])
        store.tag(images.canonical(image.manifest), images.MANIFEST, versions)
    return name
