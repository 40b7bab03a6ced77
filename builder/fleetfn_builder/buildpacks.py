"""Images by Cloud Native Buildpacks: the lifecycle in a builder image, driven through a Docker engine.

Any builder image will do: our buildpack comes along. The base is made ready beside the destination, the folder is
copied into a container, and the lifecycle leaves the image in the engine or in a registry by itself.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from fleetfn_builder import (
    builder_labels,
    buildpack_files,
    composing,
    failing,
    images,
    inputs,
    leaving,
    lifecycle_result,
    lifecycle_run,
    opening,
    registry_auth,
    run_images,
    wheel,
)
from fleetfn_builder import needs as needing
from fleetfn_builder.assembly import anatomy, runtime
from fleetfn_builder.bases import Bases
from fleetfn_builder.builder import BuildError, Built, Platform, Progress, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.builder_labels import BuilderImage
from fleetfn_builder.buildpack.building import Base, Plan
from fleetfn_builder.engine import Engine, connect, familiar
from fleetfn_builder.images import Descriptor
from fleetfn_builder.inputs import Source
from fleetfn_builder.keeping import Keeping, default_folder
from fleetfn_builder.lifecycle_run import Errand


def default_builder() -> str:
    """What `fn builder create` calls a builder image unless it is told."""
    return f"fleetfn-builder:{importlib.metadata.version('fleetfn')}"


class BuildpacksBuilder:
    """Implements Builder. `builder_image`: None: our own, by its default name; `cache`: None: the user's."""

    name = "buildpacks"

    def __init__(self, *, builder_image: str | None = None, cache: Path | None = None) -> None:
        self._builder_image = builder_image or default_builder()
        self._cache = cache

    def check(self) -> None:
        with _engine() as engine:
            builder_labels.describe(self._builder_image, engine)

    def build(self, request: Request, progress: Progress) -> Built:
        source = inputs.read_source(request.folder, request.function, progress)
        with failing.in_words():
            kept = Keeping(self._cache or default_folder())
            with _engine() as engine, kept.building():
                _check_platforms(request, engine.platform)
                builder = builder_labels.describe(self._builder_image, engine)
                return _Build(request, source, engine, builder, kept, progress).run()


@contextmanager
def _engine() -> Iterator[Engine]:
    engine = connect()
    try:
        yield engine
    finally:
        engine.close()


def _check_platforms(request: Request, own: Platform) -> None:
    others = [str(each) for each in request.platforms if each != own]
    if others or len(request.platforms) > 1:
        raise BuildError(
            f"buildpacks build for the engine's own platform, {own}, and {', '.join(map(str, request.platforms))} is "
            f"asked for",
            hint="Build for others, and for several at once, by --builder direct.",
        )


class _Build:
    """One, with all that it depends on known."""

    def __init__(
        self,
        request: Request,
        source: Source,
        engine: Engine,
        builder: BuilderImage,
        keeping: Keeping,
        progress: Progress,
    ) -> None:
        self._request = request
        self._source = source
        self._engine = engine
        self._builder = builder
        self._keeping = keeping
        self._progress = progress
        self._wheel = wheel.to_put_in(request.wheel, keeping.folder, progress)
        self._buildpack = buildpack_files.collect(self._wheel)
        self._created = inputs.created()
        finding = run_images.Finding(
            engine,
            engine.platform,
            keeping,
            request.access,
            progress,
            fresh=request.fresh,
            python=not builder.brings_python,
        )
        self._run_image = finding.find(_base(request, builder))
        self._needs, self._constraints = self._needed()
        self._inputs = self._digest()

    def run(self) -> Built:
        """One build of a function at a time, of those by this cache: by others there may be more in the engine."""
        with (self._keeping.folder / f"buildpacks-{self._request.function.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._engine.remove_containers(self._container_labels())
            return self._run()

    def _run(self) -> Built:
        match self._request.destination:
            case ToEngine():
                return self._to_engine()
            case ToFile():
                return self._to_file(self._request.destination)
            case ToRegistry():
                return self._to_registry(self._request.destination)

    def _to_engine(self) -> Built:
        names = [familiar(tag) for tag in self._request.tags]
        there = [self._engine.image(name) for name in names]
        first = there[0]
        if (
            first is not None
            and not self._request.fresh
            and all(
                each is not None and each.id == first.id and each.labels.get(anatomy.LABEL_INPUTS) == self._inputs
                for each in there
            )
        ):
            return lifecycle_result.in_engine(self._engine, first, names[0], unchanged=True)
        with self._made_in_engine() as name:
            for tag in self._request.tags:
                self._engine.tag(name, tag)
        made = self._engine.image(names[0])
        if made is None:
            raise BuildError(f"the Docker engine has no {names[0]} after the build", hint="Build again.")
        return lifecycle_result.in_engine(self._engine, made, names[0], unchanged=False)

    def _to_file(self, destination: ToFile) -> Built:
        """By way of the engine; its image is removed then."""
        with opening.leave(destination, self._request.tags, self._request.access) as places:
            if there := self._standing(places):
                return lifecycle_result.in_store(places[0][0], there, str(destination.path), unchanged=True)
            with self._made_in_engine() as name:
                descriptor = self._save(name, places)
            return lifecycle_result.in_store(places[0][0], descriptor, str(destination.path), unchanged=False)

    def _to_registry(self, destination: ToRegistry) -> Built:
        first = self._request.tags[0]
        with opening.leave(destination, self._request.tags, self._request.access) as places:
            if there := self._standing(places):
                return lifecycle_result.in_store(places[0][0], there, f"{first}@{there.digest}", unchanged=True)
            store = places[0][0]
            run_image = run_images.into_registry(
                run_images.labelled(self._run_image, self._labels()), store, first, self._keeping
            )
            digest = self._create(run_image, [str(tag) for tag in self._request.tags], to_engine=False)
            made = store.resolve(digest)
            if made is None:
                raise BuildError(f"{first.repository} has no {digest} after the build", hint="Build again.")
            return lifecycle_result.in_store(store, made, f"{first}@{digest}", unchanged=False)

    def _standing(self, places: leaving.Places) -> Descriptor | None:
        """What stands under all tags, if it was made of these inputs."""
        if self._request.fresh:
            return None
        image = leaving.left(places, leaving.there(places), self._inputs, self._keeping)
        return image.top if image is not None else None

    @contextmanager
    def _made_in_engine(self) -> Iterator[str]:
        """Under a name of its own, which is taken away then: an image gets its tags when it is whole."""
        name = lifecycle_run.name_in_engine(self._request.function.name, self._keeping.folder)
        self._engine.remove_image(name)  # of a build that was killed; the lifecycle would take layers over from it
        try:
            self._create_in_engine(name)
            yield name
        finally:
            self._engine.remove_image(name)

    def _create_in_engine(self, name: str) -> None:
        """Again where another cache's build of the same inputs, as it ended, took away what both are built on: it did
        not see this one's container yet.
        """
        for last in (False, False, True):
            with run_images.in_engine(self._run_image, self._labels(), self._engine, self._keeping) as run_image:
                try:
                    self._create(run_image, [name], to_engine=True)
                except BuildError:
                    if last or self._engine.image(run_image) is not None:
                        raise
                else:
                    return

    def _create(self, run_image: str, names: list[str], *, to_engine: bool) -> str:
        request = self._request
        hosts = sorted({tag.host for tag in request.tags})
        found = {host: registry_auth.find(host, request.access) for host in hosts} if not to_engine else {}
        errand = Errand(
            names=names,
            builder=self._builder,
            buildpack=self._buildpack,
            run_image=run_image,
            plan=self._plan(),
            source=self._source,
            to_engine=to_engine,
            created=self._created,
            labels=self._container_labels() | {run_images.BUILT_ON: run_image},
            env=request.env,
            secrets=request.secrets,
            insecure=[host for host in hosts if registry_auth.may_be_insecure(host, request.access)],
            credentials={host: _authorization(known) for host, known in found.items() if known is not None},
            fresh=request.fresh,
        )
        self._progress(f"building in {self._builder.name}")
        return lifecycle_run.run(self._engine, errand, self._progress)

    def _save(self, name: str, places: leaving.Places) -> Descriptor:
        """From the engine, which keeps layers unpacked."""
        with self._keeping.workshop() as folder:
            path = folder / "image.tar"
            with path.open("wb") as file:
                file.writelines(self._engine.save(name))
            packing = Bases(self._keeping, self._request.access, lambda _: None, fresh=False)
            made = packing.find(str(path), self._engine.platform).base
        manifest = images.canonical(made.manifest)
        for store, versions in places:
            for part in (made.manifest.config, *made.manifest.layers):
                store.put(part, partial(self._keeping.blobs.open, part))
            descriptor = store.tag(manifest, images.MANIFEST, versions)
        return descriptor

    def _plan(self) -> Plan:
        base, facts = self._run_image.base, self._run_image.facts
        python, interpreter = (facts.python, facts.interpreter) if facts is not None else ("", "")
        return Plan(
            function=self._request.function.name,
            wheel=self._wheel.name,
            needs=self._needs,
            constraints=self._constraints,
            base=Base(base.reference or "base", base.digest, python, interpreter),
            packages=[msgspec.to_builtins(each) for each in facts.packages] if facts is not None else [],
            variables=inputs.digest(dict(self._request.env), sorted(self._request.secrets)),
        )

    def _container_labels(self) -> dict[str, str]:
        return lifecycle_run.labels(self._request.function.name, self._keeping.folder)

    def _labels(self) -> dict[str, str]:
        return composing.labels(
            "buildpacks",
            self._request.function.name,
            self._source,
            version=runtime.version(self._wheel),
            inputs=self._inputs,
            base=self._run_image.base,
        )

    def _needed(self) -> tuple[list[str], list[str]]:
        extras = needing.extras(self._request.function, self._request.extras)
        facts = self._run_image.facts
        return runtime.needs(self._wheel, extras), needing.constraints(facts.python, extras) if facts else []

    def _digest(self) -> str:
        return inputs.digest(
            ["buildpacks", inputs.shape(), self._buildpack.digest, self._builder.image.id, self._run_image.digest],
            [self._source.revision, self._created, self._needs, self._constraints],
            [lifecycle_run.choosing() | dict(self._request.env), sorted(self._request.secrets)],
        )


def _base(request: Request, builder: BuilderImage) -> str:
    if text := request.base or builder.run_image:
        return text
    raise BuildError(
        f"the builder image {builder.name} names no image to build on", hint="Name one with Python by --base."
    )


def _authorization(known: registry_auth.Credentials) -> str:
    return f"X-Identity {known.identity}" if known.identity else known.basic
