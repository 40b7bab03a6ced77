"""The ImageStore port: where images are read from, and where they are left.

A registry's repository, a layout folder, a tarball, memory. Contents go first, the manifest that names them last: a
version leads to a whole image or to none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Protocol, Self

from fleetfn_builder.images import Descriptor
from fleetfn_builder.references import Reference

Bytes = Callable[[int], None]
"""Told how many more bytes have passed, from any thread; below nothing where they have to pass again."""


def nobody(_count: int) -> None:
    """For those who do not watch."""


class ImageStore(Protocol):
    """Blocking; calls may come from several threads. Everything raises BuildError.

    As a context manager: left without an error, what was tagged is there; left by one, what stood before may stand
    still, and nothing is half there.
    """

    def resolve(self, version: str) -> Descriptor | None:
        """Of a manifest or index, by tag or digest (`sha256:...`)."""
        ...

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config whole; its digest is verified."""
        ...

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        """A layer or config, to be closed. Whoever reads to its end knows that the digest is right: else BuildError."""
        ...

    def has(self, descriptor: Descriptor) -> bool: ...

    def put(
        self,
        descriptor: Descriptor,
        open: Callable[[], IO[bytes]],  # noqa: A002 - the pair of this port's open
        mount_from: Reference | None = None,
        progress: Bytes = nobody,
    ) -> None:
        """Leave a layer or config. What is there already is neither opened nor sent.

        `open` may be called again, after a failure. `mount_from`: a repository that has it, too: on the same host
        nothing is sent.
        """
        ...

    def tag(self, manifest: bytes, media_type: str, versions: Sequence[str]) -> Descriptor:
        """Leave a manifest or index, whose contents are there, by its digest and under `versions`.

        Versions are tags; for files, also whole names: `registry.example/team/battery-alert:1.4`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...
