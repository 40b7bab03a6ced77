"""`fn builder create`: a builder image without any image registry.

A base with Python, the programs of the lifecycle, the user by whom buildpacks run, and our buildpack are laid upon each
other by this process; a Docker engine or a registry gets the image as it is. It has what the specification asks of one,
for other platforms than `fn`, too.
https://github.com/buildpacks/spec/blob/main/platform.md#build-image
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from fleetfn_builder import (
    bases,
    builder_labels,
    buildpack_files,
    images,
    lifecycle_programs,
    loading,
    opening,
    run_images,
)
from fleetfn_builder import wheel as wheels
from fleetfn_builder.assembly import layers
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.layers import Text, Tree
from fleetfn_builder.base_facts import USUAL_PATH
from fleetfn_builder.bases import Bases, Found
from fleetfn_builder.builder import Access, BuildError, Platform, Progress, ToRegistry
from fleetfn_builder.composing import Piece
from fleetfn_builder.delivering import Part, put_all
from fleetfn_builder.engine import Engine, connect, familiar
from fleetfn_builder.images import Config, Descriptor, History, Manifest
from fleetfn_builder.keeping import Keeping, default_folder
from fleetfn_builder.lifecycle_programs import Lifecycle
from fleetfn_builder.merged_layers import Merged
from fleetfn_builder.references import Reference

USER = 1000
"""User and group `cnb`, by whom buildpacks run; an image runs as another."""

_ACCOUNTS = {
    "etc/passwd": f"cnb:x:{USER}:{USER}::/home/cnb:/bin/sh",
    "etc/group": f"cnb:x:{USER}:",
}
_OWNED = ("home/cnb", "layers", "workspace")
_WHOLE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`base`: a reference, `oci:FOLDER`, a tarball; None: the slim image of the Python that runs here."""

    name: Reference
    base: str | None = None
    lifecycle: Path | None = None
    """A release of it. None: it is built from its Go module."""
    run_image: str | None = None
    """What functions are laid upon, unless a build says otherwise. None: the base."""
    push: bool = False
    """To the registry that `name` says. Else it is left in the Docker engine."""
    platform: Platform | None = None
    """None: the engine's. Needed where it is pushed."""
    wheel: Path | None = None
    """FleetFn to put in. None: the one that runs here."""
    access: Access = field(default_factory=Access)


class CreatedBuilder(msgspec.Struct, frozen=True, kw_only=True):
    reference: str
    """Of an engine `name:tag`, else `host/name:tag@sha256:...`."""
    digest: str
    """Of the manifest; of an engine, the image's id."""
    base: str
    run_image: str
    lifecycle: str
    """Its version."""
    size: int
    """Bytes of all layers, compressed."""


def create(wanted: Wanted, progress: Progress, *, cache: Path | None = None) -> CreatedBuilder:
    """Raises BuildError."""
    keeping = Keeping(cache or default_folder())
    try:
        with keeping.building():
            if wanted.push and wanted.platform is not None:
                return _create(wanted, None, wanted.platform, keeping, progress)
            engine = connect()
            try:
                return _create(wanted, engine, wanted.platform or engine.platform, keeping, progress)
            finally:
                engine.close()
    except AssemblyError as error:
        raise BuildError(error.message, hint=error.hint) from error


def _create(
    wanted: Wanted, engine: Engine | None, platform: Platform, keeping: Keeping, progress: Progress
) -> CreatedBuilder:
    text = wanted.base or bases.default()
    found = Bases(keeping, wanted.access, progress, fresh=False).find(text, platform)
    run_image = wanted.run_image or _run_image(text, found)
    with keeping.workshop() as folder:
        programs = (
            lifecycle_programs.named(wanted.lifecycle, folder)
            if wanted.lifecycle is not None
            else lifecycle_programs.built(keeping.folder, platform, progress)
        )
        buildpack = buildpack_files.collect(wheels.to_put_in(wanted.wheel, keeping.folder, progress))
        progress("packing the builder image")
        accounts = _accounts(keeping, folder, found)
        lowest = _packed(keeping, folder, "lifecycle", [Tree(programs.folder, "/cnb/lifecycle")])
        top = _packed(keeping, folder, "buildpack", [*buildpack.trees, *_orders(run_image)])
    pieces = [lowest, accounts, top]
    config = _config(found, pieces, _labels(programs, run_image, buildpack.digest, top.diff_id))
    manifest = _manifest(found, config, pieces)
    parts = [
        Part(manifest.config, lambda: io.BytesIO(config)),
        *(Part(one, partial(keeping.blobs.open, one), found.reference) for one in manifest.layers),
    ]
    if engine is None or wanted.push:
        reference, digest = _push(wanted, images.canonical(manifest), parts)
    else:
        if not wanted.run_image and found.reference is None:
            _load_run_image(engine, run_image, found, keeping)
        reference, digest = _load(engine, familiar(wanted.name), images.canonical(manifest), parts, keeping)
    return CreatedBuilder(
        reference=reference,
        digest=digest,
        base=text,
        run_image=run_image,
        lifecycle=programs.version,
        size=sum(layer.size for layer in manifest.layers),
    )


def _orders(run_image: str) -> list[Text]:
    return [
        Text(builder_labels.order([]).encode(), "/cnb/order.toml"),
        Text(builder_labels.run_images(run_image).encode(), "/cnb/run.toml"),
    ]


def _manifest(found: Found, config: bytes, pieces: list[Piece]) -> Manifest:
    layers = [*(one.as_oci() for one in found.base.manifest.layers), *(one.descriptor for one in pieces)]
    return Manifest(config=images.describe(config, images.CONFIG), layers=layers)


def _run_image(text: str, found: Found) -> str:
    """A file has no name that a build could ask for: what lies in it goes to the engine, too."""
    return text if found.reference is not None else f"fleetfn-base:{found.base.digest.removeprefix('sha256:')[:16]}"


def _load_run_image(engine: Engine, name: str, found: Found, keeping: Keeping) -> None:
    if engine.image(name) is None:
        contents = (found.base.manifest.config, *found.base.manifest.layers)
        parts = [Part(one, partial(keeping.blobs.open, one)) for one in contents]
        loading.load_whole(engine, images.canonical(found.base.manifest), name, parts, keeping)
    if loaded := engine.image(name):
        run_images.remember(loaded, found, keeping)


def _load(engine: Engine, name: str, manifest: bytes, parts: list[Part], keeping: Keeping) -> tuple[str, str]:
    loading.load_whole(engine, manifest, name, parts, keeping)
    image = engine.image(name)
    if image is None:
        raise BuildError(f"the Docker engine took the image, and has no {name}", hint="Try again.")
    return name, image.id


def _push(wanted: Wanted, manifest: bytes, parts: list[Part]) -> tuple[str, str]:
    with opening.leave(ToRegistry(), [wanted.name], wanted.access) as places:
        for store, versions in places:
            put_all(store, parts)
            descriptor = store.tag(manifest, images.MANIFEST, versions)
    return f"{wanted.name}@{descriptor.digest}", descriptor.digest


def _packed(keeping: Keeping, folder: Path, name: str, files: list[Tree | Text]) -> Piece:
    made = layers.write(folder / f"{name}.tar.gz", files)
    piece = Piece(name, Descriptor(images.LAYER, made.digest, made.size), made.diff_id)
    keeping.blobs.put(piece.descriptor, lambda: made.path.open("rb"))
    return piece


def _accounts(keeping: Keeping, folder: Path, found: Found) -> Piece:
    """The user, and folders that are theirs."""
    merged = Merged()
    for layer in found.base.manifest.layers:
        with keeping.blobs.open(layer) as opened:
            merged.add(opened, lambda path: _WHOLE if path in _ACCOUNTS else 0)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, line in _ACCOUNTS.items():
            content = _with(merged.content(name) or b"", line)
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name in _OWNED:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            member.mode = 0o755
            member.uid = member.gid = USER
            tar.addfile(member)
    path = folder / "accounts.tar.gz"
    path.write_bytes(gzip.compress(plain.getvalue(), mtime=0))
    described = images.describe(path.read_bytes(), images.LAYER)
    keeping.blobs.put(described, lambda: path.open("rb"))
    return Piece("accounts", described, images.digest_of(plain.getvalue()))


def _with(known: bytes, line: str) -> bytes:
    kept = [each for each in known.decode("utf-8", "replace").splitlines() if not each.startswith("cnb:")]
    return "".join(f"{each}\n" for each in (*kept, line)).encode()


def _config(found: Found, pieces: list[Piece], labels: Mapping[str, str]) -> bytes:
    below = found.base.config
    ids = {"CNB_USER_ID": str(USER), "CNB_GROUP_ID": str(USER)}
    kept = [each for each in below.config.env if each.partition("=")[0] not in ids]
    has_path = any(each.startswith("PATH=") for each in kept)
    process = msgspec.structs.replace(
        below.config,
        user=f"{USER}:{USER}",
        env=[
            *([] if has_path else [f"PATH={USUAL_PATH}"]),
            *kept,
            *(f"{name}={value}" for name, value in ids.items()),
        ],
        entrypoint=None,
        cmd=None,
        working_dir="/layers",
        labels={**below.labels, **labels},
    )
    return images.canonical(
        Config(
            architecture=below.architecture,
            os=below.os,
            variant=below.variant,
            created="1970-01-01T00:00:00Z",
            rootfs=images.RootFs(diff_ids=[*below.rootfs.diff_ids, *(one.diff_id for one in pieces)]),
            config=process,
            history=[
                *(History(created_by="base") for _ in below.rootfs.diff_ids),
                *(History(created_by=f"fleetfn: {one.name}") for one in pieces),
            ],
        )
    )


def _labels(programs: Lifecycle, run_image: str, digest: str, layer: str) -> dict[str, str]:
    about = buildpack_files.about()
    ours = {"id": buildpack_files.ID, "version": about["version"]}
    apis = {
        "buildpack": {"deprecated": [], "supported": list(programs.buildpack_apis)},
        "platform": {"deprecated": [], "supported": list(programs.platform_apis)},
    }
    newest = {kind: each["supported"][-1] for kind, each in apis.items() if each["supported"]}
    metadata = {
        "description": "Functions of FleetFn",
        "buildpacks": [ours],
        "images": [{"image": run_image}],
        "stack": {"runImage": {"image": run_image}},
        "lifecycle": {"version": programs.version, "api": newest, "apis": apis},
        "createdBy": {"name": "fn builder create", "version": importlib.metadata.version("fleetfn")},
    }
    inside = {"api": about["api"], "layerDiffID": layer, "name": about["name"]}
    values = {
        builder_labels.METADATA: metadata,
        builder_labels.ORDER: [{"group": [ours]}],
        "io.buildpacks.buildpack.layers": {ours["id"]: {ours["version"]: inside}},
        "io.buildpacks.lifecycle.apis": apis,
    }
    return {
        "io.buildpacks.lifecycle.version": programs.version,
        buildpack_files.LABEL: digest,
        **{name: images.canonical(value).decode() for name, value in values.items()},
    }
