"""A Docker engine, in our words: is there one, its images, its containers.

Nothing but this file speaks to the Docker SDK, which is imported when an engine is asked for. Blocking.
"""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import msgspec

from fleetfn_builder.builder import BuildError, Platform
from fleetfn_builder.references import HUB, Reference

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer

LEAST_API = (1, 41)
"""Docker 20.10: older ones were never tried."""

SOCKET = "/var/run/docker.sock"
_GONE = (404, 409)
_PATIENCE = 600
"""Seconds without a byte: an engine that unpacks a large image says nothing for long."""
_NO_ENGINE = "Start Docker, name another engine by DOCKER_HOST, or build without one: --builder direct."
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class EngineImage(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine tells of an image."""

    id: str
    """`sha256:...`, the digest of its config."""
    architecture: str
    user: str
    labels: dict[str, str]
    env: list[str]
    diff_ids: list[str]
    size: int
    """Bytes, unpacked."""


@dataclass(frozen=True, slots=True)
class Mount:
    """`source`: a volume's name, or a path of the engine's machine."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """`environment` may hold secrets: it is shown nowhere."""

    image: str
    command: Sequence[str]
    user: str = "0"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: Sequence[Mount] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class Engine:
    """Every method raises BuildError."""

    def __init__(self, client: DockerClient, address: str) -> None:
        self._client = client
        self._api: Any = client.api  # of which the stubs know half
        self.address = address

    @property
    def socket_path(self) -> str:
        """Its path on the machine of the engine."""
        return self.address.removeprefix("unix://") if self.address.startswith("unix://") else SOCKET

    @property
    def platform(self) -> Platform:
        found = str(self._client.info().get("Architecture", ""))
        if (architecture := _ARCHITECTURES.get(found)) is None:
            raise BuildError(f"the Docker engine runs on {found!r}: images are made for amd64 and arm64")
        return Platform("amd64" if architecture == "amd64" else "arm64")

    @property
    def knows_layers(self) -> bool:
        """By their digests, one by one: so do all storage drivers but the store of containerd."""
        status = self._client.info().get("DriverStatus") or []
        return not any("io.containerd.snapshotter" in str(value) for _, value in status)

    def image(self, name: str) -> EngineImage | None:
        """By name or id; None: the engine has none such."""
        from docker.errors import ImageNotFound  # noqa: PLC0415

        with words(f"the image {name}"):
            try:
                told = self._api.inspect_image(name)
            except ImageNotFound:
                return None
        config = told.get("Config") or {}
        return EngineImage(
            id=told["Id"],
            architecture=told.get("Architecture", ""),
            user=config.get("User") or "",
            labels=config.get("Labels") or {},
            env=config.get("Env") or [],
            diff_ids=told.get("RootFS", {}).get("Layers") or [],
            size=told.get("Size", 0),
        )

    def layer_sizes(self, name: str, count: int) -> list[int]:
        """Bytes of each of its `count` layers, unpacked, from the base upwards; 0 where the engine does not tell."""
        with words(f"the image {name}"):
            told = [entry["Size"] for entry in reversed(self._api.history(name))]
        if len(told) != count:  # instructions that made no layer are listed, too; a layer without files is rare
            told = [size for size in told if size]
        return told if len(told) == count else [0] * count

    def load(self, archive: IO[bytes]) -> None:
        """Take the images in a tarball as `docker save` writes them."""
        with words("a tarball with an image"):
            for event in self._api.load_image(archive, quiet=True):
                if "error" in event:
                    raise BuildError(f"the Docker engine does not take the image: {event['error']}")

    def save(self, name: str) -> Iterator[bytes]:
        """A tarball, in pieces."""
        with words(f"the image {name}"):
            yield from self._api.get_image(name, chunk_size=1 << 20)

    def tag(self, name: str, reference: Reference) -> None:
        with words(f"the image {name}"):
            self._api.tag(name, familiar(reference).rpartition(":")[0], reference.tag)

    def remove_image(self, name: str) -> None:
        """Or its name, where it has others; none such: that is what was wanted."""
        from docker.errors import ImageNotFound  # noqa: PLC0415

        with words(f"the image {name}"):
            try:
                self._api.remove_image(name, force=True)
            except ImageNotFound:
                return

    def remove_volumes(self, names: Iterable[str]) -> None:
        """Those that are there."""
        from docker.errors import NotFound  # noqa: PLC0415

        for name in names:
            with words(f"the volume {name}"):
                try:
                    self._api.remove_volume(name)
                except NotFound:
                    continue

    def has_container(self, labels: Mapping[str, str]) -> bool:
        """One that has all of these, running or not."""
        with words("the list of containers"):
            return bool(self._with(labels))

    def remove_containers(self, labels: Mapping[str, str]) -> None:
        """Those that have all of these, running or not."""
        with words("containers that were left"):
            for one in self._with(labels):
                with already_gone():
                    self._api.remove_container(one["Id"], v=True, force=True)

    def _with(self, labels: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
        found: Sequence[Mapping[str, Any]] = self._api.containers(all=True, filters=wanted)
        return found

    @contextmanager
    def container(self, spec: ContainerSpec) -> Iterator[Container]:
        """Made, not started; stopped and removed in the end, whatever happens."""
        from docker.types import LogConfig  # noqa: PLC0415
        from docker.types import Mount as DockerMount  # noqa: PLC0415

        mounts = [
            DockerMount(one.target, one.source, "bind" if one.source.startswith("/") else "volume", one.read_only)
            for one in spec.mounts
        ]
        with words(f"a container of {spec.image}"):
            made = self._client.containers.create(
                spec.image,
                entrypoint=list(spec.command),
                command=[],
                user=spec.user,
                environment=dict(spec.environment),
                mounts=mounts,
                labels=dict(spec.labels),
                network_mode="host",  # its loopback has registries and package indexes that the user has, too
                security_opt=["no-new-privileges"],
                log_config=LogConfig(type="json-file"),  # an engine may be set to one that cannot be read
            )
        try:
            yield Container(made, spec.image)
        finally:
            with words(f"removing the container {made.short_id}"):
                made.remove(force=True, v=True)

    def pull(self, name: str) -> None:
        """From its registry, with the credentials of Docker's config."""
        with words(f"the image {name}"):
            self._client.images.pull(name)

    def command(self, name: str) -> tuple[list[str], list[str]]:
        """Entrypoint and arguments of an image."""
        with words(f"the image {name}"):
            config: dict[str, Any] = self._client.images.get(name).attrs.get("Config") or {}
        return config.get("Entrypoint") or [], config.get("Cmd") or []

    def create(self, options: Mapping[str, Any]) -> DockerContainer:
        """A container to be started by whoever asks; `options`: the SDK's."""
        with words(f"a container of {options['image']}"):
            return self._client.containers.create(**options)

    def close(self) -> None:
        self._client.close()


class Container:
    """One that was made. Every method raises BuildError."""

    def __init__(self, container: DockerContainer, image: str) -> None:
        self._container = container
        self._image = image

    def put(self, tar: IO[bytes]) -> None:
        """Copy files in, gzipped or not; their names are paths from the root, and volumes are there already."""
        with words(f"copying into a container of {self._image}"):
            self._container.put_archive("/", tar)

    def get(self, path: str) -> bytes | None:
        """One file's content; None: it is not there. It need not run."""
        from docker.errors import NotFound  # noqa: PLC0415

        with words(f"copying from a container of {self._image}"):
            try:
                pieces, _ = self._container.get_archive(path)
            except NotFound:
                return None
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
                member = tar.next()
                content = tar.extractfile(member) if member is not None else None
                return content.read() if content is not None else None

    def run(self, line: Callable[[str], None]) -> int:
        """Start it and tell each line that it writes; its exit code."""
        with words(f"running a container of {self._image}"):
            self._container.start()
            said = log_of(self._container)
            try:
                for text in _lines(said):
                    line(text)
            except BaseException:
                with already_gone():
                    self._container.kill()
                for _ in said:  # to its end, which closes the connection
                    pass
                raise
            return int(self._container.wait()["StatusCode"])


def connect() -> Engine:
    """The engine that DOCKER_HOST names, or Docker's context, or the one of this machine. Raises BuildError."""
    try:
        from docker import DockerClient  # noqa: PLC0415
    except ImportError as error:
        raise BuildError(
            "FleetFn's parts for building are not installed here",
            hint='Install them: pip install "fleetfn[build]".',
        ) from error
    address, tls = _address()
    _try(address)
    with words(f"the Docker engine at {address}"):
        client = DockerClient(base_url=address, tls=tls, version="auto", timeout=_PATIENCE)
    found = str(client.api.api_version)
    if tuple(int(part) for part in found.split(".")) < LEAST_API:
        client.close()
        raise BuildError(
            f"the Docker engine at {address} is too old: its API is {found}, {_dotted(LEAST_API)} is needed",
            hint="Docker 20.10 is the oldest that works; --builder direct needs none.",
        )
    return Engine(client, address)


def log_of(container: DockerContainer) -> Iterator[bytes]:
    """All that it writes, as it writes it, until it has ended; cut anywhere."""
    told = 0
    for piece in container.logs(stream=True, follow=True):
        told += len(piece)
        yield piece
    # A log that is followed may end before its last lines (moby#43294); one of a container that has ended is whole.
    container.wait()
    for piece in container.logs(stream=True, follow=False):
        if rest := piece[told:]:
            yield rest
        told = max(0, told - len(piece))


def familiar(reference: Reference) -> str:
    """As an engine lists it: `fleetfn-builder:1`, not `docker.io/library/fleetfn-builder:1`."""
    return str(reference).removeprefix(f"{HUB}/library/").removeprefix(f"{HUB}/")


def _address() -> tuple[str, Any]:
    """And how TLS is done there: a TLSConfig, or False."""
    if host := os.environ.get("DOCKER_HOST"):
        return host, _tls_of_environment()
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.errors import DockerException  # noqa: PLC0415

    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    except (DockerException, OSError, ValueError) as error:
        raise BuildError(f"Docker's context cannot be read: {error}", hint=_NO_ENGINE) from error
    if context is None:
        raise BuildError(f"Docker has no context {name!r}", hint="List them: docker context ls.")
    return str(context.Host or f"unix://{SOCKET}").replace("http+unix://", "unix://"), context.TLSConfig or False


def _tls_of_environment() -> Any:
    from docker.utils import kwargs_from_env  # noqa: PLC0415

    return kwargs_from_env().get("tls", False)


@contextmanager
def already_gone() -> Iterator[None]:
    """A container that has ended, or was removed, is all that was wanted."""
    from docker.errors import APIError  # noqa: PLC0415

    try:
        yield
    except APIError as error:
        if error.status_code not in _GONE:
            raise


@contextmanager
def words(what: str) -> Iterator[None]:
    """What the SDK raises, as BuildError."""
    from docker.errors import APIError, DockerException  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415

    try:
        yield
    except APIError as error:
        said = str(error.explanation or error)
        hint = "Make room on the engine's disk: docker system df." if "no space left" in said else ""
        raise BuildError(f"{what}: the Docker engine says: {said}", hint=hint) from error
    except (DockerException, RequestException) as error:
        raise BuildError(f"{what}: {_last(str(error))}", hint=_NO_ENGINE) from error


def _try(address: str) -> None:
    """The SDK leaves sockets open that lead nowhere, and says of it what its libraries say."""
    path = address.removeprefix("unix://")
    if path == address:
        return
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.connect(path)
    except PermissionError as error:
        raise BuildError(
            f"this user may not speak to the Docker engine at {address}",
            hint="Add the user to the group `docker`, use a rootless engine, or build without one: --builder direct.",
        ) from error
    except OSError as error:
        why = error.strerror or error
        raise BuildError(f"no Docker engine answers at {address}: {why}", hint=_NO_ENGINE) from error


def _last(said: str) -> str:
    """Without the names of the libraries that passed it on."""
    return said.rpartition(": ")[2].strip("()'\" ") or said


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines, however the engine cuts what a container writes."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode("utf-8", "replace")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
