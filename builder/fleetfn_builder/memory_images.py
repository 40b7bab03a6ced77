"""Images in memory: for tests, and wherever nothing is to be left behind."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import IO, Self

from fleetfn_builder.blobs import verified
from fleetfn_builder.builder import BuildError
from fleetfn_builder.image_store import Bytes, nobody
from fleetfn_builder.images import Descriptor, describe
from fleetfn_builder.references import Reference


class MemoryImages:
    """An ImageStore. `blobs` by digest; `versions` by tag."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.versions: dict[str, Descriptor] = {}
        self._lock = threading.Lock()

    def resolve(self, version: str) -> Descriptor | None:
        return self.versions.get(version)

    def read(self, descriptor: Descriptor) -> bytes:
        with self.open(descriptor) as content:
            return content.read()

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        if descriptor.digest not in self.blobs:
            raise BuildError(f"{descriptor.digest} is not here", hint="Put it before it is asked for.")
        return verified(io.BytesIO(self.blobs[descriptor.digest]), descriptor, "memory", progress)

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.blobs

    def put(
        self,
        descriptor: Descriptor,
        open: Callable[[], IO[bytes]],  # noqa: A002
        mount_from: Reference | None = None,  # noqa: ARG002 - only hosts mount
        progress: Bytes = nobody,
    ) -> None:
        if self.has(descriptor):
            return
        with verified(open(), descriptor, "what is to be kept", progress) as content:
            self.blobs[descriptor.digest] = content.read()

    def tag(self, manifest: bytes, media_type: str, versions: Sequence[str]) -> Descriptor:
        descriptor = describe(manifest, media_type)
        with self._lock:
            self.blobs[descriptor.digest] = manifest
            self.versions |= dict.fromkeys([*versions, descriptor.digest], descriptor)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...
