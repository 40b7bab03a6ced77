"""A builder that keeps its images in memory: what Builder promises, without a base image or anything to install.

Its layers are real ones: the code as it would lie in an image, and small stand-ins below it.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetfn_builder import composing, engine, images, inputs, leaving, opening, requirements
from fleetfn_builder.assembly import anatomy, layers
from fleetfn_builder.builder import BuildError, Built, Platform, Progress, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.composing import Piece
from fleetfn_builder.images import Config, Descriptor, Manifest, RootFs
from fleetfn_builder.memory_images import MemoryImages

_VERSION = "0"
"""FleetFn's, in labels."""


class MemoryBuilder:
    """Implements Builder. `broken`: a check that may refuse a request, as dependencies that cannot be installed do.

    `repositories`: what stands where a registry would be, by `host/name`; `engine`: by `host/name:tag`. Several may
    share `repositories`.
    """

    name = "memory"

    def __init__(
        self,
        *,
        broken: Callable[[Request], str] = lambda _: "",
        repositories: dict[str, MemoryImages] | None = None,
    ) -> None:
        self._broken = broken
        self.repositories = {} if repositories is None else repositories
        self.engine = MemoryImages()

    def check(self) -> None:
        """It always can."""

    def build(self, request: Request, progress: Progress) -> Built:
        source = inputs.read_source(request.folder, request.function, progress)
        with self._places(request) as places, tempfile.TemporaryDirectory() as folder:
            progress("putting layers together")
            if problem := self._broken(request):
                raise BuildError(problem, hint="Mend it, then build again.")
            made = MemoryImages()
            image = _make(request, source, Path(folder), made)
            unchanged = leaving.is_all(leaving.there(places), image.top)
            if not unchanged:
                progress(f"leaving {image.top.digest}")
                leaving.leave(places, image, made.open, None, to_file=True)
        return leaving.built("memory", request, source, image, unchanged=unchanged)

    @contextmanager
    def _places(self, request: Request) -> Iterator[leaving.Places]:
        match request.destination:
            case ToFile():
                with opening.leave(request.destination, request.tags, request.access) as places:
                    yield places
            case ToEngine():
                yield [(self.engine, [engine.familiar(each) for each in request.tags])]
            case ToRegistry():
                yield [
                    (self.repositories.setdefault(each.repository, MemoryImages()), [each.version])
                    for each in request.tags
                ]


def _make(request: Request, source: inputs.Source, folder: Path, into: MemoryImages) -> leaving.Image:
    made = [_compose(request, source, each, folder, into) for each in request.platforms]
    content, top = made[0][0].manifest, made[0][0].descriptor
    if len(made) > 1:
        content, top = composing.index_of([composed.descriptor for composed, _ in made])
    manifests = [
        (composed.manifest, images.decode(composed.manifest, Manifest, "what was made")) for composed, _ in made
    ]
    return leaving.Image(top, content, manifests, made[0][1])


def _compose(
    request: Request, source: inputs.Source, platform: Platform, folder: Path, into: MemoryImages
) -> tuple[composing.Composed, bytes]:
    asked = "\n".join(requirements.normalised(request.folder / requirements.FILE))
    sbom = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []}).encode()
    lowest, *pieces = [
        _piece(into, folder, "base", layers.Text(str(platform).encode(), "/etc/platform")),
        _piece(into, folder, "dependencies", layers.Text(asked.encode(), f"{anatomy.DEPENDENCIES}/asked")),
        _piece(into, folder, "runtime", layers.Text(b"", f"{anatomy.RUNTIME}/fleetfn.py")),
        _piece(into, folder, "sbom", layers.Text(sbom, anatomy.SBOM)),
        _piece(into, folder, "code", layers.Tree(source.folder, anatomy.CODE, source.names)),
    ]
    config = Config(architecture=platform.architecture, os="linux", rootfs=RootFs(diff_ids=[lowest.diff_id]))
    manifest = Manifest(config=images.describe(images.canonical(config), images.CONFIG), layers=[lowest.descriptor])
    base = composing.Base(images.digest_of(images.canonical(manifest)), manifest, config)
    composed = composing.compose(base, pieces, _labels(request, source, base), inputs.created())
    _keep(into, composed.config, images.CONFIG)
    return composed, sbom


def _labels(request: Request, source: inputs.Source, base: composing.Base) -> dict[str, str]:
    platforms = [str(each) for each in request.platforms]
    asked = requirements.normalised(request.folder / requirements.FILE)
    depends_on = inputs.digest("memory", source.revision, platforms, asked, dict(request.env), sorted(request.secrets))
    return composing.labels("memory", request.function.name, source, version=_VERSION, inputs=depends_on, base=base)


def _piece(into: MemoryImages, folder: Path, name: str, part: layers.Tree | layers.Text) -> Piece:
    made = layers.write(folder / "layer.tar.gz", [part])
    descriptor = Descriptor(images.LAYER, made.digest, made.size)
    into.put(descriptor, lambda: made.path.open("rb"))
    return Piece(name, descriptor, made.diff_id)


def _keep(into: MemoryImages, content: bytes, media_type: str) -> None:
    into.put(images.describe(content, media_type), lambda: io.BytesIO(content))
