"""Images into a Docker engine: as tarballs, in which layers that the engine has already are empty files.

It does not read those (see Engine.knows_layers): after an edit it is sent the code, not the base.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO

from fleetfn_builder import images
from fleetfn_builder.archive_reading import DOCKERS
from fleetfn_builder.archives import Archive
from fleetfn_builder.builder import BuildError
from fleetfn_builder.delivering import Part, put_all
from fleetfn_builder.engine import Engine, EngineImage
from fleetfn_builder.images import Config, Descriptor, Manifest
from fleetfn_builder.keeping import Keeping


def load(
    docker: Engine,
    manifest: Manifest,
    names: Sequence[str],
    there: Sequence[EngineImage],
    opening: Callable[[Descriptor], IO[bytes]],
    folder: Path,
) -> None:
    """Under these names. `there`: images of the engine that may share layers; `folder`: to work in.

    Raises BuildError.
    """
    with opening(manifest.config) as content:
        raw = content.read()
    diff_ids = images.decode(raw, Config, "an image's config").rootfs.diff_ids
    known = max((_shared(diff_ids, each.diff_ids) for each in there), default=0) if docker.knows_layers else 0
    try:
        _load(docker, _tarball(folder, raw, manifest, names, opening, known))
    except BuildError:
        if not known:
            raise
        _load(docker, _tarball(folder, raw, manifest, names, opening, 0))  # some have gone meanwhile


def load_whole(docker: Engine, manifest: bytes, name: str, parts: Sequence[Part], keeping: Keeping) -> None:
    """An image of which the engine may know nothing. Raises BuildError."""
    with keeping.workshop() as folder:
        path = folder / "image.tar"
        with Archive(path) as archive:
            put_all(archive, parts)
            archive.tag(manifest, images.MANIFEST, [name])
        _load(docker, path)


def load_above(docker: Engine, image: EngineImage, config: bytes, name: str, *added: bytes) -> None:
    """An image of the layers of `image` and of `added` ones, not compressed, under another config. Raises BuildError.

    For an engine that knows layers.
    """
    contents = [*(b"" for _ in image.diff_ids), *added]
    layers = [f"{number}.tar" for number in range(len(contents))]
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _begin(tar, config, [name], layers)
        for layer, content in zip(layers, contents, strict=True):
            _add(tar, layer, content)
    spool.seek(0)
    docker.load(spool)


def _shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Layers from the base upwards that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))


def _load(docker: Engine, path: Path) -> None:
    with path.open("rb") as archive:
        docker.load(archive)


def _tarball(
    folder: Path,
    config: bytes,
    manifest: Manifest,
    names: Sequence[str],
    opening: Callable[[Descriptor], IO[bytes]],
    known: int,
) -> Path:
    path = folder / "image.tar"
    # By number: an engine takes one file for all equal names, and equal layers may lie at two places.
    layers = [f"{number}.tar.gz" for number in range(len(manifest.layers))]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _begin(tar, config, names, layers)
        for number, (name, layer) in enumerate(zip(layers, manifest.layers, strict=True)):
            if number < known:
                _add(tar, name, b"")
                continue
            with opening(layer) as content:
                tar.addfile(_member(name, layer.size), content)
                content.read(1)  # its end: now its digest is known
    return path


def _begin(tar: tarfile.TarFile, config: bytes, names: Sequence[str], layers: Sequence[str]) -> None:
    listed = [{"Config": "config.json", "RepoTags": list(names), "Layers": list(layers)}]
    _add(tar, DOCKERS, images.canonical(listed))
    _add(tar, "config.json", config)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member
