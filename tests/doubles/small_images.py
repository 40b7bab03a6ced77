"""Images of a few bytes, whole in every way."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass

from fleetfn_builder import images
from fleetfn_builder.delivering import Part
from fleetfn_builder.images import Config, Descriptor, Index, Manifest, PlatformOf, Process, RootFs


@dataclass(frozen=True)
class SmallImage:
    contents: dict[str, bytes]
    """Layers and config by digest."""
    manifest: Manifest
    config: Config

    @property
    def manifest_bytes(self) -> bytes:
        return images.canonical(self.manifest)

    @property
    def descriptor(self) -> Descriptor:
        return images.describe(self.manifest_bytes, images.MANIFEST)

    @property
    def parts(self) -> list[Part]:
        return [part_of(each, self.contents[each.digest]) for each in (*self.manifest.layers, self.manifest.config)]


def part_of(descriptor: Descriptor, content: bytes) -> Part:
    return Part(descriptor, lambda: io.BytesIO(content))


def small(*texts: str, architecture: str = "amd64", labels: dict[str, str] | None = None) -> SmallImage:
    """A layer for each text, with a file that holds it."""
    plain = [_tar(text.encode()) for text in texts or ("hello",)]
    zipped = [gzip.compress(each, mtime=0) for each in plain]
    config = Config(
        architecture=architecture,
        os="linux",
        rootfs=RootFs(diff_ids=[images.digest_of(each) for each in plain]),
        config=Process(cmd=["/hello"], labels=labels),
    )
    config_bytes = images.canonical(config)
    manifest = Manifest(
        config=images.describe(config_bytes, images.CONFIG),
        layers=[images.describe(each, images.LAYER) for each in zipped],
    )
    return SmallImage({images.digest_of(each): each for each in (*zipped, config_bytes)}, manifest, config)


def index_of(*parts: SmallImage) -> bytes:
    listed = [
        images.Descriptor(
            images.MANIFEST,
            each.descriptor.digest,
            each.descriptor.size,
            platform=PlatformOf(each.config.architecture, "linux"),
        )
        for each in parts
    ]
    return images.canonical(Index(manifests=listed))


def _tar(content: bytes) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return into.getvalue()
