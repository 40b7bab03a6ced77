"""The Builder port: a function's folder becomes an image, in a registry, a file or a Docker engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec.function import Function

from fleetfn_builder.references import Reference


class BuildError(FleetError):
    """An image cannot be built, read or delivered: why, with the value, and what to do."""


@dataclass(frozen=True, slots=True)
class Platform:
    """`linux/amd64`, `linux/arm64`."""

    architecture: Literal["amd64", "arm64"]

    def __str__(self) -> str:
        return f"linux/{self.architecture}"


@dataclass(frozen=True, slots=True)
class ToRegistry:
    """Under the request's tags."""


@dataclass(frozen=True, slots=True)
class ToEngine:
    """The Docker engine of this machine, under the request's tags."""


@dataclass(frozen=True, slots=True)
class ToFile:
    """An OCI image layout: a folder, or one tarball where the name ends with `.tar`, which `docker load` takes, too."""

    path: Path


Destination = ToRegistry | ToEngine | ToFile


@dataclass(frozen=True, slots=True)
class Access:
    """How registries are reached. Without credentials those of Docker's config are taken (`docker login`)."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    """Whom username and password are for; nobody else is told. A Request says its first tag's where it is None."""
    insecure: frozenset[str] = frozenset()
    """Hosts (`name:port`) that may be spoken to by plain HTTP, or whose certificate nobody signed. Loopback is one."""
    mirrors: Mapping[str, str] = field(default_factory=dict)
    """For reading: `docker.io` -> `harbor.example/docker-hub`, asked first."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to build, for whom, and where to leave it."""

    folder: Path
    function: Function
    tags: tuple[Reference, ...]
    """At least one; the first names the result."""
    destination: Destination
    platforms: tuple[Platform, ...]
    """At least one; several make an image index."""
    base: str | None = None
    """Image with Python to build on: a reference, `oci:FOLDER`, or a path to a tarball. None: the builder's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For the resolver and installers; never in the image."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As `env`, and never shown: UV_INDEX_URL with a token, for example."""
    wheel: Path | None = None
    """FleetFn to put in. None: the one that runs here."""
    access: Access = Access()
    extras: frozenset[str] = frozenset()
    """Of FleetFn, beside those that its own triggers and outputs need: what the place it goes to asks for."""
    fresh: bool = False
    """Use nothing that was kept of earlier builds."""

    def __post_init__(self) -> None:
        """The base may lie on another host than the tags: that one does not learn the password."""
        if self.access.host is None:
            object.__setattr__(self, "access", replace(self.access, host=self.tags[0].host))


class Layer(msgspec.Struct, frozen=True):
    """Of the image as it was left: what it holds in a word, its digest (`sha256:...`), its compressed size in bytes."""

    name: Literal["base", "dependencies", "runtime", "sbom", "code", "launch"]
    digest: str
    size: int


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """One image, or one index of images."""

    reference: str
    """`host/name:tag@sha256:...`; of a file, its path; of an engine, `name:tag`."""
    digest: str
    """Of the manifest or index, `sha256:...`; of an engine, the image id."""
    builder: Literal["direct", "buildpacks", "memory"]
    function: str
    revision: str
    platforms: list[str]
    size: int
    """Bytes of all layers, compressed, of the first platform."""
    layers: list[Layer]
    """Of the first platform, from the base upwards."""
    unchanged: bool
    """It was there already."""
    sbom: bytes = b""
    """CycloneDX JSON of the first platform."""


Progress = Callable[[str], None]
"""One line per step, while it happens."""


class Builder(Protocol):
    """Blocking. Ctrl-C (KeyboardInterrupt) leaves nothing behind but caches that are whole."""

    @property
    def name(self) -> str: ...

    def check(self) -> None:
        """Raise BuildError where it cannot work on this machine: what it lacks, and how to get it."""
        ...

    def build(self, request: Request, progress: Progress) -> Built:
        """Raises BuildError; what stood under the tags before then stands there still."""
        ...
