"""A function's image, run in a Docker engine as it should be run anywhere: read-only, without privileges, as nobody.

The container lives as long as somebody looks; its volume stays.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from fleetfn_builder import engine as engines
from fleetfn_builder import references
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError, Progress
from fleetfn_builder.engine import Engine

if TYPE_CHECKING:
    from docker.models.containers import Container

HOST = "host"
"""The network of the engine's machine: a container there has its loopback."""

GATEWAY = "host.docker.internal"
"""What a container on another network may call that machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What to run, and what it meets."""

    image: str
    name: str
    """The container's."""
    volume: str
    """Named; made where it is not there."""
    port: int
    """On this machine's loopback; 0: any free one."""
    network: str = "bridge"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What lies beside anatomy.ENVIRONMENTS, by name; the image's user alone may read it."""


class Running:
    """A container that was started. Every method raises BuildError."""

    def __init__(self, container: Container, run: Run) -> None:
        self._container = container
        self._run = run

    @property
    def url(self) -> str:
        """Where HTTP is served."""
        if self._run.network == HOST:
            return f"http://127.0.0.1:{self._run.port}"
        with engines.words(f"the container {self._run.name}"):
            self._container.reload()
            found: Any = self._container.ports.get(f"{anatomy.PORT}/tcp") or []
        return f"http://127.0.0.1:{found[0]['HostPort']}" if found else ""

    def lines(self) -> Iterator[bytes]:
        """What it says, as it says it, until it has ended."""
        with engines.words(f"the log of the container {self._run.name}"):
            rest = b""
            for piece in engines.log_of(self._container):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
        if rest:
            yield rest

    def stop(self) -> None:
        """It drains; a second time it hurries."""
        with engines.words(f"stopping the container {self._run.name}"), engines.already_gone():
            self._container.kill("SIGTERM")

    def exit_code(self) -> int:
        """Once it has ended."""
        with engines.words(f"the container {self._run.name}"):
            return int(self._container.wait()["StatusCode"])


@contextmanager
def started(engine: Engine, run: Run) -> Iterator[Running]:
    """Removed in the end, whatever happens; the volume stays. Raises BuildError."""
    container = engine.create(_options(engine, run))
    try:
        with engines.words(f"a container of {run.image}"):
            if run.files:
                container.put_archive(str(PurePosixPath(anatomy.ENVIRONMENTS).parent), _packed(run.files))
            container.start()
        yield Running(container, run)
    finally:
        with engines.words(f"removing the container {run.name}"), engines.already_gone():
            container.remove(force=True, v=True)


def _options(engine: Engine, run: Run) -> dict[str, Any]:
    from docker.types import LogConfig, Mount  # noqa: PLC0415 - the SDK is slow to import

    entrypoint, command = engine.command(run.image)
    mounts = [Mount(anatomy.DATA, run.volume)]
    if run.files:  # an anonymous volume: files reach an engine on another machine, too
        mounts.append(Mount(str(PurePosixPath(anatomy.ENVIRONMENTS).parent), None))
    options: dict[str, Any] = {
        "image": run.image,
        "name": run.name,
        "entrypoint": entrypoint,
        "command": [*command, *_listening(run)],
        "environment": dict(run.environment),
        "mounts": mounts,
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": run.network,
        "labels": {"dev.fleetfn.run": run.name},
        "log_config": LogConfig(type="json-file", config={"max-size": "16m", "max-file": "2"}),
    }
    if run.network != HOST:
        options["ports"] = {f"{anatomy.PORT}/tcp": ("127.0.0.1", run.port or None)}
        options["extra_hosts"] = {GATEWAY: "host-gateway"}
    return options


def _listening(run: Run) -> Sequence[str]:
    """On the machine's own network it has that machine's addresses: loopback alone is this user's."""
    return ["--host", "127.0.0.1", "--port", str(run.port)] if run.network == HOST else []


def _packed(files: Mapping[str, bytes]) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o400
            member.uid = member.gid = anatomy.USER
            tar.addfile(member, io.BytesIO(content))
    return into.getvalue()


def find(engine: Engine, image: str, progress: Progress) -> tuple[str, str]:
    """Its name in the engine, and its function's; it is pulled where the engine has it not. Raises BuildError: it is
    there nowhere, or not ours; UsageError: it is no image's name.
    """
    reference = references.parse(image)
    name = engines.familiar(replace(reference, tag=None) if reference.digest else reference)
    found = engine.image(name)
    if found is None:
        progress(f"pulling {name}")
        engine.pull(name)
        found = engine.image(name)
    if found is None or anatomy.LABEL_FUNCTION not in found.labels:
        raise BuildError(f"{image} is no image of a function", hint="Build one.")
    return name, found.labels[anatomy.LABEL_FUNCTION]
