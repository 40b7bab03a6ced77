"""Which builder makes an image, where nobody says.

The direct one: it needs no engine, builds for other platforms, and makes the smaller image sooner. Who wants buildpacks
(the company's builder image, say) names them, or a builder image. That a Docker engine happens to run decides nothing:
the same command makes the same image on a laptop with Docker and in CI without. Only where the direct builder cannot
work do buildpacks stand in for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from fleetfn.errors import UsageError

from fleetfn_builder.builder import Builder, BuildError

Name = Literal["direct", "buildpacks"]

_SOCKET = "/var/run/docker.sock"
_UNIX = "unix://"


def choose(name: Name | None, *, builder_image: str | None = None, cache: Path | None = None) -> tuple[Builder, str]:
    """The builder, and why this one. Raises BuildError where the one asked for cannot work here, or none can;
    UsageError for a builder image that nobody will use.
    """
    if name == "direct" and builder_image is not None:
        raise UsageError(
            f"the builder image {builder_image!r} is for buildpacks, and the direct builder is asked for",
            hint="Leave one of the two out.",
        )
    if name == "buildpacks" or builder_image is not None:
        return _buildpacks(builder_image, cache), "as asked" if name else f"{builder_image} is a builder image"
    direct = _direct(cache)
    try:
        direct.check()
    except BuildError as error:
        if name == "direct":
            raise
        return _instead(error, cache), error.message
    return direct, "as asked" if name else "it needs no Docker"


def has_engine() -> bool:
    """Does a Docker engine answer here? Where nothing points to one, the Docker SDK is not even imported."""
    if not _may_have_engine():
        return False
    from fleetfn_builder import engine  # noqa: PLC0415 - it brings the Docker SDK

    try:
        engine.connect().close()
    except BuildError:
        return False
    return True


def _may_have_engine() -> bool:
    """Is there a socket, or does something name an engine that is reached otherwise?"""
    if host := os.environ.get("DOCKER_HOST"):
        return not host.startswith(_UNIX) or Path(host.removeprefix(_UNIX)).exists()
    config = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))  # noqa: PTH111 - Path raises for a user without a home
    return "DOCKER_CONTEXT" in os.environ or (config / "contexts").is_dir() or Path(_SOCKET).exists()


def _instead(error: BuildError, cache: Path | None) -> Builder:
    buildpacks = _buildpacks(None, cache)
    try:
        buildpacks.check()
    except BuildError as other:
        raise BuildError(
            f"no builder can work here: direct: {error.message}; buildpacks: {other.message}", hint=error.hint
        ) from other
    return buildpacks


def _direct(cache: Path | None) -> Builder:
    from fleetfn_builder.direct import DirectBuilder  # noqa: PLC0415 - the other is not needed

    return DirectBuilder(cache)


def _buildpacks(builder_image: str | None, cache: Path | None) -> Builder:
    from fleetfn_builder.buildpacks import BuildpacksBuilder  # noqa: PLC0415 - the other is not needed

    return BuildpacksBuilder(builder_image=builder_image, cache=cache)
