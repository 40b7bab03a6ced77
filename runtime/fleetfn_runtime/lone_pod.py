"""A worker in a cluster's pod: it starts by itself from its image's folder, and all that lasts is elsewhere.

State is with Dapr, what waits is in its namespace's gateway, and what it notes for its next start (the ledger) is where
a volume is that lives as long as the pod. `check` gets as ready as it has to be and ends: what `fn deploy` looks at
before anything is changed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO

import msgspec
from fleetfn.errors import UsageError
from fleetfn_spec import cluster
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function

from fleetfn_runtime import http_keys, lone_home, lone_parts, pod_files, worker
from fleetfn_runtime.door_voice import DoorVoice
from fleetfn_runtime.lone_door import Door
from fleetfn_runtime.settings import Pod, Settings
from fleetfn_runtime.voices import LoneVoice
from fleetfn_runtime.wiring import LINGER

PORT = "FLEETFN_DELIVERY_PORT"
"""Environment variable: the delivery port, where somebody else has the usual one."""


class _Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    function: str
    keys: int


class _Checked(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool = True
    function: str
    revision: str
    seconds: float


def run(
    folder: Path,
    *,
    volume: Path | None,
    port: int,
    host: str,
    environment: str | None,
    environments: Path | None,
    key_file: Path | None,
) -> int:
    """Be a worker until SIGTERM; its exit code. Raises FleetError for what is wrong before it starts."""
    with lone_home.sockets(volume) as sockets:
        data = volume if volume is not None and os.access(volume, os.W_OK | os.X_OK) else sockets
        function, place = _deployed(folder, environment, environments)
        settings = _settings(folder, function, place, data=data, run=sockets, key_file=key_file)
        settings = msgspec.structs.replace(settings, proven=True, log_copy=os.dup(2))
        key = http_keys.read(key_file) if key_file is not None else None
        terminal = os.fdopen(os.dup(2), "w", buffering=1)  # descriptor 2 leads to the log from now on
        door = Door(serves=lone_parts.serves(settings.function), metrics=_metrics(settings), key=key)
        return worker.run_loop(_serve(settings, terminal, door, host, port))


def check(folder: Path, *, environment: str | None, environments: Path | None, key_file: Path | None) -> int:
    """0 and a line of JSON on stdout where a worker would serve, 1 and the reason on stderr where not. Raises
    FleetError, as `run` does.
    """
    began = time.monotonic()
    with lone_home.sockets() as sockets:
        function, place = _written(folder, environment, environments)
        settings = _settings(folder, function, place, data=sockets, run=sockets, key_file=key_file)
        result, terminal = os.dup(1), os.fdopen(os.dup(2), "w", buffering=1)
        code = worker.run_loop(_check(settings, terminal))
        if code == worker.DONE:
            seconds = round(time.monotonic() - began, 3)
            told = _Checked(function=settings.function.name, revision=settings.revision, seconds=seconds)
            os.write(result, msgspec.json.encode(told) + b"\n")
        return code


def forget(folder: Path, *, environment: str | None, environments: Path | None) -> int:
    """Remove the function's state, which is deleted for good: 0 and a line of JSON on stdout. Raises FleetError."""
    with lone_home.sockets() as sockets:
        function, place = _deployed(folder, environment, environments)
        settings = _settings(folder, function, place, data=sockets, run=sockets, key_file=None)
        found = asyncio.run(_forget(settings))
    os.write(1, msgspec.json.encode(_Forgotten(function=function.name, keys=found)) + b"\n")
    return worker.DONE


def _deployed(folder: Path, name: str | None, file: Path | None) -> tuple[Function, Environment]:
    """As it was checked before. Raises FleetError."""
    if file is not None and name is not None:
        function = pod_files.function(file.with_name(cluster.HEAD_FILE))
        place = pod_files.environment(file, name)
        if function is not None and place is not None:
            return function, place
    return _written(folder, name, file)


def _written(folder: Path, name: str | None, file: Path | None) -> tuple[Function, Environment]:
    """Raises FleetError."""
    from fleetfn_spec.load import load_function  # noqa: PLC0415 - see pod_files.py

    from fleetfn_runtime import lone_places  # noqa: PLC0415 - likewise

    folder = folder.resolve()
    function = load_function(folder)
    place = lone_places.environment(folder, name, file)
    lone_places.check_addresses(function, place, file)
    return function, place


def _settings(
    folder: Path,
    function: Function,
    place: Environment,
    *,
    data: Path,
    run: Path,
    key_file: Path | None,
) -> Settings:
    folder = folder.resolve()
    return Settings(
        function=function,
        revision=lone_parts.revision(folder),
        source=folder,
        environment=place.name,
        place=_named(cluster.ENV_PLACE, "the namespace"),
        data=data,
        lasting=False,
        run=run,
        deliver=run / "deliver.sock",
        kafka={one.name: one.kafka for one in place.connections if one.kafka is not None},
        mqtt={one.name: one.mqtt for one in place.connections if one.mqtt is not None},
        dapr={one.name: one.dapr for one in place.connections if one.dapr is not None},
        state=place.state,
        gateway=_named(cluster.ENV_GATEWAY, "the gateway's address"),
        owns_partitions=False,
        key_file=key_file.resolve() if key_file is not None else None,
        pod=Pod(
            certificates=Path(_named(cluster.ENV_TLS, "a folder of certificates")),
            port=int(os.environ.get(PORT) or cluster.DELIVERY_PORT),
            name=os.environ.get(cluster.ENV_POD, ""),
            address=os.environ.get(cluster.ENV_ADDRESS, ""),
        ),
    )


def _named(variable: str, what: str) -> str:
    """Raises UsageError."""
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"the variable {variable} is missing: {what}", hint="`fn deploy` and `fn export` set it")
    return value


async def _serve(settings: Settings, terminal: TextIO, door: Door, host: str, port: int) -> int:
    starting = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # until the worker hears them itself
        loop.add_signal_handler(number, starting.cancel if starting is not None else loop.stop)
    try:
        door.listen(host, port)
        return await worker.Worker(settings, _Voice(terminal, door, echo=False)).run()
    except asyncio.CancelledError:
        return worker.DONE  # told to end before there was anything to drain
    finally:
        door.close()


async def _check(settings: Settings, terminal: TextIO) -> int:
    return await worker.Worker(settings, LoneVoice(terminal)).check()


async def _forget(settings: Settings) -> int:
    """How many keys it had."""
    if settings.state is None:
        return 0
    from fleetfn_runtime import dapr_wiring  # noqa: PLC0415 - only where there is state

    store = await dapr_wiring.store(settings, settings.state.dapr)
    try:
        return await store.forget()
    finally:
        await store.close()


class _Voice(DoorVoice):
    def _leave(self) -> None:
        self._door.leave(LINGER)


def _metrics(settings: Settings) -> Callable[[], Awaitable[bytes]]:
    async def metrics() -> bytes:
        return await lone_parts.figures(settings.deliver) if settings.deliver is not None else b""

    return metrics
