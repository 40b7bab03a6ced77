"""The image that a function's layers are laid upon: made ready where the lifecycle looks for it.

It is the base, from wherever it comes, with all settled that the lifecycle takes over from it as it stands: who runs in
the image, the folder for data, environment variables, the port.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from fleetfn_builder import composing, images, loading, opening, references
from fleetfn_builder.assembly import anatomy, layers
from fleetfn_builder.base_facts import USUAL_PATH, Facts, check_architecture
from fleetfn_builder.bases import Bases, Found
from fleetfn_builder.builder import Access, Platform, Progress
from fleetfn_builder.delivering import Part, put_all
from fleetfn_builder.engine import Engine, EngineImage, familiar
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.images import Config, Descriptor, History, Manifest
from fleetfn_builder.keeping import Keeping
from fleetfn_builder.opening import LAYOUT, TARBALL
from fleetfn_builder.references import Reference

BUILT_ON = "dev.fleetfn.build.on"
"""Label of a build's container: the name of its run image in the engine."""


@dataclass(frozen=True, slots=True)
class RunImage:
    """`name`: as it was asked for; `config` and `manifest`: with our user."""

    name: str
    base: composing.Base
    facts: Facts | None
    """None: it was not looked into, since it needs no Python."""
    reference: Reference | None
    """Of a repository that has its layers."""
    config: bytes
    manifest: bytes
    in_engine: EngineImage | None
    """What it derives from, where the engine has that."""
    data: Descriptor
    """Of its last layer: an empty folder for data, of our user."""

    @property
    def digest(self) -> str:
        return images.digest_of(self.manifest)

    @property
    def engine_name(self) -> str:
        return f"fleetfn-run:{images.digest_of(self.config).removeprefix('sha256:')[:16]}"


class _Saved(msgspec.Struct):
    """Of an image that was saved from an engine."""

    digest: str
    manifest: Manifest
    config: Config
    facts: Facts | None


@dataclass(frozen=True, slots=True)
class Finding:
    """`python`: the run image must have one."""

    engine: Engine
    platform: Platform
    keeping: Keeping
    access: Access
    progress: Progress
    fresh: bool
    python: bool

    def find(self, text: str) -> RunImage:
        """`text`: a reference, which the engine is asked for first; `oci:FOLDER`; a tarball. Raises BuildError."""
        image = None
        if not text.startswith(LAYOUT) and not text.endswith(TARBALL):
            image = self.engine.image(familiar(references.parse(text)))
        base, facts, reference = self._from_engine(text, image) if image else self._read(text, self.progress)
        data, diff_id = _data(self.keeping)
        config = _settled(base.config, diff_id)
        return RunImage(text, base, facts, reference, config, _manifest(base, config, data), image, data)

    def _read(self, text: str, progress: Progress) -> tuple[composing.Base, Facts | None, Reference | None]:
        if self.python:
            found = Bases(self.keeping, self.access, progress, fresh=self.fresh).find(text, self.platform)
            return found.base, found.facts, found.reference
        with opening.open_image(text, self.access, self.platform) as image:
            progress(f"base: {text}, {self.platform}")
            for part in (image.manifest.config, *image.manifest.layers):
                self.keeping.blobs.put(part, partial(image.store.open, part))
        name = text if image.reference is not None else ""
        return composing.Base(image.descriptor.digest, image.manifest, image.config, name), None, image.reference

    def _from_engine(self, text: str, image: EngineImage) -> tuple[composing.Base, Facts | None, Reference | None]:
        """Saved once for each image."""
        check_architecture(text, image.architecture, self.platform)
        key = _key(image.id, python=self.python)
        known = self.keeping.read("bases", key, _Saved)
        if known is not None and all(map(self.keeping.blobs.has, known.manifest.layers)):
            return composing.Base(known.digest, known.manifest, known.config, text), known.facts, None
        self.progress(f"base: {text}, out of the engine")
        with self.keeping.workshop() as folder:
            path = folder / "base.tar"
            with path.open("wb") as file:
                file.writelines(self.engine.save(image.id))
            base, facts, _ = self._read(str(path), lambda _: None)
        self.keeping.write("bases", key, _Saved(base.digest, base.manifest, base.config, facts))
        return replace(base, reference=text), facts, None


def remember(image: EngineImage, found: Found, keeping: Keeping) -> None:
    """What was put into an engine needs not be saved from it to be known."""
    known = _Saved(found.base.digest, found.base.manifest, found.base.config, found.facts)
    keeping.write("bases", _key(image.id, python=True), known)


def _key(image_id: str, *, python: bool) -> str:
    return f"engine {image_id} {python}"


def _data(keeping: Keeping) -> tuple[Descriptor, str]:
    """The layer, and its digest before compression."""
    with keeping.workshop() as folder:
        made = layers.write(folder / "data.tar.gz", [layers.Folder(anatomy.DATA, anatomy.USER)])
        described = Descriptor(images.LAYER, made.digest, made.size)
        keeping.blobs.put(described, lambda: made.path.open("rb"))
    return described, made.diff_id


def _manifest(base: composing.Base, config: bytes, data: Descriptor) -> bytes:
    layers = [*(layer.as_oci() for layer in base.manifest.layers), data]
    return images.canonical(Manifest(config=images.describe(config, images.CONFIG), layers=layers))


def _settled(config: Config, diff_id: str) -> bytes:
    """`diff_id`: of the layer that comes on top."""
    process = config.config
    kept = dict(each.partition("=")[::2] for each in process.env)
    env = {"PATH": USUAL_PATH} | kept | anatomy.ENVIRONMENT  # the lifecycle wants a PATH
    ours = msgspec.structs.replace(
        process,
        user=f"{anatomy.USER}:{anatomy.USER}",
        env=[f"{name}={value}" for name, value in env.items()],
        exposed_ports={f"{anatomy.PORT}/tcp": {}},
        labels=composing.inherited(config.labels),
    )
    settled = msgspec.structs.replace(
        config,
        config=ours,
        rootfs=msgspec.structs.replace(config.rootfs, diff_ids=[*config.rootfs.diff_ids, diff_id]),
        history=[*config.history, History(created_by="fleetfn: data")] if config.history else [],
    )
    return images.canonical(settled)


def labelled(run: RunImage, labels: Mapping[str, str]) -> RunImage:
    """The same layers; its config says what is laid upon them.

    The lifecycle would take labels from a buildpack, too, but writes them into a layer as well, which each edit of the
    code would change.
    """
    config = images.decode(run.config, Config, run.name)
    process = msgspec.structs.replace(
        config.config,
        env=[*config.config.env, f"{anatomy.REVISION}={labels[anatomy.LABEL_REVISION]}"],
        labels=config.labels | dict(labels),
    )
    marked = images.canonical(msgspec.structs.replace(config, config=process))
    return replace(run, config=marked, manifest=_manifest(run.base, marked, run.data))


@contextmanager
def in_engine(run: RunImage, labels: Mapping[str, str], engine: Engine, keeping: Keeping) -> Iterator[str]:
    """Its name there, for one build. The image without these labels stays for the next. Raises BuildError.

    Images say what they are built on by name, so another cache's build of the same inputs has the same.
    """
    kept = engine.image(_into_engine(run, engine, keeping))
    marked = labelled(run, labels)
    if kept is not None and engine.knows_layers:
        loading.load_above(engine, kept, marked.config, marked.engine_name)
    else:
        _into_engine(marked, engine, keeping)
    try:
        yield marked.engine_name
    finally:
        if not engine.has_container({BUILT_ON: marked.engine_name}):
            engine.remove_image(marked.engine_name)


def _into_engine(run: RunImage, engine: Engine, keeping: Keeping) -> str:
    if engine.image(run.engine_name) is not None:
        return run.engine_name
    if run.in_engine is not None and engine.knows_layers:
        with keeping.blobs.open(run.data) as packed:
            loading.load_above(engine, run.in_engine, run.config, run.engine_name, gzip.decompress(packed.read()))
    else:
        loading.load_whole(engine, run.manifest, run.engine_name, _parts(run, keeping), keeping)
    return run.engine_name


def into_registry(run: RunImage, store: ImageStore, repository: Reference, keeping: Keeping) -> str:
    """Beside the image that will be built on it, which shares its layers, and under no tag. Raises BuildError."""
    if store.resolve(run.digest) is None:
        put_all(store, _parts(run, keeping))
        store.tag(run.manifest, images.MANIFEST, [])
    return f"{repository.repository}@{run.digest}"


def _parts(run: RunImage, keeping: Keeping) -> list[Part]:
    config = Part(images.describe(run.config, images.CONFIG), lambda: io.BytesIO(run.config))
    below = [
        Part(layer.as_oci(), partial(keeping.blobs.open, layer), run.reference) for layer in run.base.manifest.layers
    ]
    return [config, *below, Part(run.data, partial(keeping.blobs.open, run.data))]
