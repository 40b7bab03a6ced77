"""Images without Docker, root or a daemon: layers laid upon a base image by this process.

Above the base lie dependencies, FleetFn's runtime, the bill of materials and the code, each made once for what it
depends on. The image's digest follows from its inputs alone: not from the folder, the time, the user or the tags.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from fleetfn_builder import bases, composing, failing, images, inputs, keeping, layering, leaving, opening, wheel
from fleetfn_builder.bases import Bases, Found
from fleetfn_builder.builder import BuildError, Built, Progress, Request, ToEngine, ToFile
from fleetfn_builder.images import Descriptor
from fleetfn_builder.keeping import Keeping
from fleetfn_builder.layering import Layering, Wheel


class DirectBuilder:
    """Implements Builder. `cache`: a folder for what later builds can use; None: the user's own."""

    name = "direct"

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    def check(self) -> None:
        wheel.uv_path()

    def build(self, request: Request, progress: Progress) -> Built:
        with failing.in_words():
            return self._build(request, progress)

    def _build(self, request: Request, progress: Progress) -> Built:
        source = inputs.read_source(request.folder, request.function, progress)
        kept = Keeping(self._cache or keeping.default_folder())
        with kept.building():
            try:
                return _Build(request, source, kept, progress).run()
            except BuildError:
                if not kept.forget_damaged():
                    raise
            progress("the cache was damaged: building again")
            return _Build(request, source, kept, progress).run()


class _Build:
    """One, with all that it depends on known."""

    def __init__(self, request: Request, source: inputs.Source, kept: Keeping, progress: Progress) -> None:
        self._request = request
        self._source = source
        self._keeping = kept
        self._progress = progress
        self._wheel = Wheel(wheel.to_put_in(request.wheel, kept.folder, progress))
        self._layering = Layering(request, source, self._wheel, kept, progress)
        self._found = self._bases()
        self._created = inputs.created()
        self._inputs = self._digest()

    def run(self) -> Built:
        if isinstance(self._request.destination, ToEngine):
            return self._to_engine()
        with opening.leave(self._request.destination, self._request.tags, self._request.access) as places:
            found = leaving.there(places)
            image = self._kept()
            if image is None and not self._request.fresh:
                image = leaving.left(places, found, self._inputs, self._keeping)
                if image is not None:
                    return self._built(image, unchanged=True)
            image = image or self._make()
            if leaving.is_all(found, image.top):
                return self._built(image, unchanged=True)
            self._leave(places, image)
        return self._built(image, unchanged=False)

    def _bases(self) -> list[Found]:
        request = self._request
        finding = Bases(self._keeping, request.access, self._progress, fresh=request.fresh)
        text = request.base or bases.default()
        try:
            return [finding.find(text, platform) for platform in request.platforms]
        except BuildError as error:
            if request.base is not None:
                raise
            raise BuildError(
                f"the base image, {text} unless another is named: {error.message}",
                hint="Name one that can be reached: an image in your own registry, oci:FOLDER, or a tarball.",
            ) from error

    def _leave(self, places: leaving.Places, image: leaving.Image) -> None:
        destination = self._request.destination
        file = destination.path if isinstance(destination, ToFile) else None
        where = file or ", ".join(map(str, self._request.tags))
        self._progress(f"leaving {image.top.digest.removeprefix('sha256:')[:12]} as {where}")
        leaving.leave(places, image, self._keeping.blobs.open, self._found[0].reference, to_file=file is not None)

    def _digest(self) -> str:
        platforms = [
            [found.base.digest, found.base.reference, *self._layering.depends_on(layering.target(found))]
            for found in self._found
        ]
        return inputs.digest("direct", inputs.shape(), self._source.revision, self._created, platforms)

    def _kept(self) -> leaving.Image | None:
        record = None if self._request.fresh else self._keeping.read("builds", self._inputs, leaving.Record)
        return leaving.kept(self._keeping, record) if record else None

    def _make(self) -> leaving.Image:
        made = [self._compose(found) for found in self._found]
        for composed, _ in made:
            self._keeping.keep(composed.config, images.CONFIG)
        manifests = [self._keeping.keep(composed.manifest, images.MANIFEST) for composed, _ in made]
        top = manifests[0]
        if len(made) > 1:
            content, _ = composing.index_of([composed.descriptor for composed, _ in made])
            top = self._keeping.keep(content, images.INDEX)
        record = leaving.Record(top, made[0][1])
        image = leaving.kept(self._keeping, record)
        if image is None:
            raise BuildError(
                "the cache lost what was just put there", hint=f"Is {self._keeping.folder} cleaned by another?"
            )
        self._keeping.write("builds", self._inputs, record)
        return image

    def _compose(self, found: Found) -> tuple[composing.Composed, Descriptor]:
        pieces, bill = self._layering.pieces(layering.target(found), found)
        return composing.compose(found.base, pieces, self._labels(found), self._created), bill

    def _labels(self, found: Found) -> dict[str, str]:
        function, version = self._request.function.name, self._wheel.version
        return composing.labels("direct", function, self._source, version=version, inputs=self._inputs, base=found.base)

    def _built(self, image: leaving.Image, *, unchanged: bool) -> Built:
        return leaving.built("direct", self._request, self._source, image, unchanged=unchanged)

    def _to_engine(self) -> Built:
        from fleetfn_builder import engine, loading  # noqa: PLC0415 - they bring the Docker SDK

        if len(self._found) > 1:
            raise BuildError(
                "a Docker engine holds an image of one platform, and several are asked for",
                hint="Leave them in a registry or a file, or ask for one.",
            )
        names = [engine.familiar(tag) for tag in self._request.tags]
        with contextlib.closing(engine.connect()) as docker:
            image = self._kept() or self._make()
            manifest = image.manifests[0][1]
            there = [docker.image(name) for name in names]
            ids = {image.top.digest, manifest.config.digest}
            unchanged = all(each is not None and each.id in ids for each in there)
            if not unchanged:
                self._progress(f"loading into the Docker engine at {docker.address}")
                with self._keeping.workshop() as folder:
                    found = [each for each in there if each is not None]
                    loading.load(docker, manifest, names, found, self._keeping.blobs.open, folder)
            loaded = docker.image(names[0])
        if loaded is None:
            raise BuildError(f"the Docker engine took the image, and has no {names[0]}", hint="Build again.")
        return msgspec.structs.replace(self._built(image, unchanged=unchanged), digest=loaded.id)
