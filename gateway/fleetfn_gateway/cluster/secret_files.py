"""Secrets that connections name, as files of this process: read from the API server, kept up to date.

They lie in memory (an emptyDir of medium Memory) and are read by whoever connects, so a changed password holds from the
next connection on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec import secrets
from fleetfn_triggers.mqtt_connection import MqttConnection

from fleetfn_gateway.cluster.kube import Kube, KubeError
from fleetfn_gateway.cluster.kube_objects import SECRETS, Secret

log = logging.getLogger("fleetfn.gateway")

LOOK = 60.0
"""Seconds between looks whether Secrets have changed."""

SOON = 5.0
"""The same for those that could not be read."""


class Reference(NamedTuple):
    name: str
    key: str


def named(connections: Mapping[str, MqttConnection], folder: Path) -> set[Reference]:
    """In connections whose references are files by now."""
    files = (reference.file for each in connections.values() for _, reference in secrets.in_struct(each))
    below = (Path(each).relative_to(folder) for each in files if each is not None and Path(each).is_relative_to(folder))
    return {Reference(str(each.parent), each.name) for each in below}


def as_files(connection: MqttConnection, folder: Path) -> MqttConnection:
    """`{secret: name/key}` as `{file: FOLDER/name/key}`."""

    def replaced(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if isinstance(where := value.get("secret"), str):
            return {"file": str(folder / where)}
        return {name: replaced(each) for name, each in value.items() if each is not None}

    return msgspec.convert(replaced(msgspec.to_builtins(connection)), MqttConnection)


class SecretFiles:
    """Use on one loop."""

    def __init__(self, kube: Kube, folder: Path) -> None:
        self.folder = folder
        self.problems: dict[Reference, str] = {}
        """Those that could not be read, the last time."""
        self._kube = kube
        self._wanted: frozenset[Reference] = frozenset()
        self._reading = asyncio.Lock()

    async def want(self, references: Iterable[Reference]) -> None:
        """These and no others from now on: new ones are written now, others go."""
        new = frozenset(references)
        missing = new - self._wanted | (new & self.problems.keys())
        for gone in self._wanted - new:
            (self.folder / gone.name / gone.key).unlink(missing_ok=True)
            self.problems.pop(gone, None)
        self._wanted = new
        await self._read(missing)

    def problem(self, connections: Mapping[str, MqttConnection]) -> str:
        """Of those that these name; '' where there is none."""
        references = named(connections, self.folder)
        return "; ".join(sorted({self.problems[each] for each in references if each in self.problems}))

    async def run(self) -> None:
        """Until it is cancelled."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(min(SOON, LOOK))
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                await self._read(self._wanted)
            else:
                await self._read(list(self.problems))

    async def _read(self, references: Iterable[Reference]) -> None:
        async with self._reading:
            by_name: dict[str, list[Reference]] = {}
            for each in references:
                by_name.setdefault(each.name, []).append(each)
            for name, keys in by_name.items():
                await self._read_one(name, keys)

    async def _read_one(self, name: str, keys: list[Reference]) -> None:
        try:
            found: Mapping[str, bytes] = (await self._kube.get(SECRETS, name, Secret)).data
            failure = ""
        except KubeError as error:
            found, failure = {}, f"Secret {name!r} cannot be read: {error.message}"
            if error.status == 404:  # noqa: PLR2004 - HTTP's own number
                failure = f"there is no Secret {name!r} in namespace {self._kube.namespace!r}"
        except FleetError as error:
            found, failure = {}, f"Secret {name!r} cannot be read: {error.message}"
        for each in keys:
            problem = failure or ("" if each.key in found else f"Secret {name!r} has no key {each.key!r}")
            if not problem:
                problem = self._write(each, found[each.key])
            self._note(each, problem)

    def _write(self, reference: Reference, value: bytes) -> str:
        path = self.folder / reference.name / reference.key
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.exists() and path.read_bytes() == value:
                return ""
            new = path.with_name(f"{path.name}.new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
            new.replace(path)
        except OSError as error:
            return f"{path} cannot be written: {error.strerror or error}"
        log.info("Secret %s, key %s: read", reference.name, reference.key)
        return ""

    def _note(self, reference: Reference, problem: str) -> None:
        if not problem:
            self.problems.pop(reference, None)
        elif reference in self._wanted and self.problems.get(reference) != problem:
            log.warning("%s", problem)
            self.problems[reference] = problem
