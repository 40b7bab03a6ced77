"""A worker that starts by itself: from a function's folder and its settings, without a node.

It has a state folder of its own, serves HTTP on a port of its own, joins Kafka groups as any consumer does, and keeps a
gateway: see lone_gateway.py. In an image the folder is a volume, and its log goes to the terminal as JSON lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fleetfn_spec.gateway import GatewayFunction
from fleetfn_spec.load import load_function

from fleetfn_runtime import http_keys, lone_gateway, lone_home, lone_parts, lone_places, worker
from fleetfn_runtime.door_voice import DoorVoice
from fleetfn_runtime.lone_door import Door
from fleetfn_runtime.lone_gateway import Gateway, OwnGateway
from fleetfn_runtime.settings import Settings

log = logging.getLogger("fleetfn.worker")


def run(
    folder: Path,
    *,
    data: Path | None = None,
    volume: Path | None = None,
    port: int = 0,
    host: str,
    environment: str | None = None,
    environments: Path | None = None,
    env_file: Path | None = None,
    key_file: Path | None = None,
) -> int:
    """Be a worker until SIGTERM or SIGINT; its exit code. Raises FleetError for what is wrong before it starts."""
    folder = folder.resolve()
    function = load_function(folder)
    place = lone_places.environment(folder, environment, environments)
    lone_places.check_addresses(function, place, environments)
    if env_file is not None:
        os.environ.update(lone_parts.read_env_file(env_file))
    key = http_keys.read(key_file) if key_file is not None else None
    named = os.environ.get(lone_gateway.VARIABLE, "")
    lasting = volume is None or lone_home.check_volume(volume.absolute(), function.name, named=named)
    home = volume if volume is not None and lasting else data or folder / ".fleetfn"
    with _places(home, lasting=lasting) as (home, sockets):
        settings = Settings(
            function=function,
            revision=lone_parts.revision(folder),
            source=folder,
            environment=place.name,
            place="lone",
            data=home,
            lasting=lasting,
            run=sockets,
            deliver=_deliver(home if lasting else Path(named).parent, sockets, named),
            kafka={one.name: one.kafka for one in place.connections if one.kafka is not None},
            mqtt={one.name: one.mqtt for one in place.connections if one.mqtt is not None},
            dapr={one.name: one.dapr for one in place.connections if one.dapr is not None},
            gateway=named or str(sockets / "gateway.sock"),
            owns_partitions=False,
            key_file=key_file.resolve() if key_file is not None else None,
            log_copy=os.dup(2) if volume is not None else None,
        )
        terminal = os.fdopen(os.dup(2), "w", buffering=1)  # descriptor 2 leads to the log from now on
        gateway = _gateway(settings, terminal, own=not named)
        door = Door(
            serves=lone_parts.serves(function), metrics=lambda: _metrics(settings, gateway, own=not named), key=key
        )
        # Without an image nobody looks after a worker of Kafka alone, and its neighbour has the port.
        open_door = lone_parts.serves(function) or volume is not None
        return worker.run_loop(_main(settings, terminal, gateway, door, (host, port) if open_door else None))


async def _main(
    settings: Settings, terminal: TextIO, gateway: Gateway, door: Door, address: tuple[str, int] | None
) -> int:
    starting = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # until the worker hears them itself
        loop.add_signal_handler(number, starting.cancel if starting is not None else loop.stop)
    try:
        url = door.listen(*address) if address is not None else ""
        async with lone_gateway.running(gateway):
            return await worker.Worker(settings, _Voice(terminal, gateway, settings, door, url)).run()
    except asyncio.CancelledError:
        return worker.DONE  # told to end before there was anything to drain
    finally:
        door.close()


class _Voice(DoorVoice):
    def __init__(self, terminal: TextIO, gateway: Gateway, settings: Settings, door: Door, url: str) -> None:
        super().__init__(terminal, door, echo=settings.log_copy is None)
        self._gateway = gateway
        self._settings = settings
        self._url = url

    def _ready(self) -> None:
        self._warn_of_memory()
        if self._url:
            log.info("listening on %s", self._url)
        self._gateway.tell(_told(self._settings))

    def _warn_of_memory(self) -> None:
        in_image = self._settings.log_copy is not None
        if in_image and self._settings.lasting and lone_home.is_in_memory(self._settings.data):
            log.warning(
                "%s is memory: the state of %s, and what waits to be handled, are gone with the container; "
                "mount a volume there to keep them",
                self._settings.data,
                self._settings.function.name,
            )


@contextlib.contextmanager
def _places(home: Path, *, lasting: bool) -> Iterator[tuple[Path, Path]]:
    """Where data is, and where sockets are."""
    home = home.resolve()
    if lasting:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lone_home.sockets(home if lasting else None) as sockets:
        yield home if lasting else sockets, sockets


def _deliver(beside: Path, sockets: Path, named: str) -> Path:
    """A gateway that somebody else runs has to be told where: in a folder that stays."""
    return (beside if named else sockets) / "deliver.sock"


def _gateway(settings: Settings, terminal: TextIO, *, own: bool) -> Gateway:
    socket = Path(settings.gateway)
    if not own or settings.deliver is None:
        return Gateway(socket)
    return OwnGateway(socket, data=settings.data / "gateway", worker=settings.deliver, terminal=terminal)


async def _metrics(settings: Settings, gateway: Gateway, *, own: bool) -> bytes:
    """Of the worker, and of a gateway that nobody else asks. Who does not answer is left out."""
    asked = [settings.deliver] + ([gateway.socket] if own else [])
    return b"".join(await asyncio.gather(*(lone_parts.figures(socket) for socket in asked if socket is not None)))


def _told(settings: Settings) -> GatewayFunction:
    return GatewayFunction(
        function=settings.function,
        revision=settings.revision,
        environment=settings.environment,
        place=settings.place,
        mqtt=settings.mqtt,
        source=settings.source,
        paused=settings.paused,
    )
