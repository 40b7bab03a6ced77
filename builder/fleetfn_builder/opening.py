"""Images by what people type: a reference, `oci:FOLDER` (or `oci:FOLDER:TAG`), or a path to a tarball."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import msgspec

from fleetfn_builder import references
from fleetfn_builder.archives import Archive
from fleetfn_builder.builder import Access, BuildError, Platform, ToFile, ToRegistry
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.images import Config, Descriptor, Index, Manifest, choose, decode
from fleetfn_builder.layouts import TAG, Layout
from fleetfn_builder.references import Reference

if TYPE_CHECKING:
    from fleetfn_builder.registry import Registry

LAYOUT = "oci:"
TARBALL = ".tar"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one platform, as it stands."""

    name: str
    """As typed."""
    store: ImageStore
    reference: Reference | None
    """Of an image in a registry: what others may mount its layers from."""
    descriptor: Descriptor
    """Of the manifest."""
    manifest: Manifest
    config: Config


@contextmanager
def open_image(text: str, access: Access, platform: Platform) -> Iterator[Image]:
    """Raises BuildError: it is not there, cannot be read, is for others; UsageError: it names no image."""
    with open_store(text, access) as (store, reference, descriptor):
        yield _read(text, store, reference, descriptor, platform)


def _read(
    text: str, store: ImageStore, reference: Reference | None, descriptor: Descriptor, platform: Platform
) -> Image:
    while descriptor.is_index:
        index = decode(store.read(descriptor), Index, text)
        descriptor = msgspec.structs.replace(choose(index, platform, text), platform=None)
    manifest = decode(store.read(descriptor), Manifest, text)
    config = decode(store.read(manifest.config), Config, f"the config of {text}")
    if (config.os, config.architecture) != ("linux", platform.architecture):
        raise BuildError(
            f"{text} is for {config.platform}, and {platform} is asked for",
            hint="Name an image for that platform, or ask for this one's.",
        )
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise BuildError(f"{text} has {len(manifest.layers)} layers, and names {len(config.rootfs.diff_ids)}")
    return Image(text, store, reference, descriptor, manifest, config)


@contextmanager
def open_store(text: str, access: Access) -> Iterator[tuple[ImageStore, Reference | None, Descriptor]]:
    """Where an image lies, and its manifest or index there. Raises as open_image does."""
    if text.startswith(LAYOUT):
        yield _in_layout(text)
    elif text.endswith(TARBALL):
        yield _in_tarball(text)
    else:
        reference = references.parse(text)
        with registry_class()(reference, access) as registry:
            descriptor = registry.resolve(reference.version)
            if descriptor is None:
                raise BuildError(
                    f"there is no image {reference}", hint=f"Does {reference.host} have {reference.name} by that tag?"
                )
            yield registry, reference, descriptor


def registry_class() -> type[Registry]:
    """When it is needed: it brings an HTTP client. That one, httpx, has a command line of its own, which takes as long
    to import as all the rest, and which nobody types here.
    """
    line, modules = "httpx._main", cast("dict[str, ModuleType | None]", sys.modules)
    if "httpx" not in modules:
        modules[line] = None  # Python's word for a module that is not there, which httpx can do without
    try:
        from fleetfn_builder.registry import Registry  # noqa: PLC0415
    finally:
        if modules.get(line, sys) is None:
            del modules[line]
    return Registry


def _in_layout(text: str) -> tuple[ImageStore, Reference | None, Descriptor]:
    path, tag = Path(text.removeprefix(LAYOUT)), None
    if not path.exists() and ":" in path.name:
        folder, _, tag = text.removeprefix(LAYOUT).rpartition(":")
        path = Path(folder)
    layout = Layout(path)
    if not path.is_dir():
        raise BuildError(f"there is no folder {path}", hint="oci:FOLDER names an OCI image layout.")
    return layout, None, _only(text, layout.index(), tag)


def _in_tarball(text: str) -> tuple[ImageStore, Reference | None, Descriptor]:
    if not Path(text).is_file():
        raise BuildError(f"there is no file {text}", hint="A name that ends with .tar is a tarball's path.")
    archive = Archive(Path(text))
    return archive, None, _only(text, archive.index(), None)


def _only(text: str, index: Index, tag: str | None) -> Descriptor:
    fitting = [one for one in index.manifests if tag is None or one.annotations.get(TAG) == tag]
    if len({one.digest for one in fitting}) == 1:
        return msgspec.structs.replace(fitting[0], annotations={})
    tags = ", ".join(sorted({one.annotations.get(TAG, one.digest) for one in index.manifests}))
    raise BuildError(
        f"{text} holds {len(fitting)} images where one is meant: {tags}" if tags else f"{text} holds no image",
        hint="oci:FOLDER:TAG names one of a layout's." if tags else "A build makes one, and so does `docker save`.",
    )


@contextmanager
def leave(
    destination: ToRegistry | ToFile, tags: Sequence[Reference], access: Access
) -> Iterator[list[tuple[ImageStore, list[str]]]]:
    """Where an image goes, and the versions it gets there: one store for each repository, or one for a file."""
    if isinstance(destination, ToFile):
        file = Archive if destination.path.name.endswith(TARBALL) else Layout
        with file(destination.path) as store:
            yield [(store, [str(each) for each in tags])]
        return
    registry = registry_class()
    # What a mirror keeps may be older than what was left.
    direct = replace(access, mirrors={}, host=access.host or tags[0].host)
    by_repository: dict[str, list[Reference]] = {}
    for each in tags:
        by_repository.setdefault(each.repository, []).append(each)
    with ExitStack() as stack:
        yield [
            (stack.enter_context(registry(same[0], direct)), [each.tag or "latest" for each in same])
            for same in by_repository.values()
        ]
