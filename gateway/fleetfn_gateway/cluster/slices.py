"""Where a function's Service leads: its ready pods, or this gateway while there is none.

The Service has no selector; its one EndpointSlice is ours. It moves as soon as a pod is ready, and before the last one
goes. It belongs to the function's head, and so goes with that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from fleetfn.errors import FleetError
from fleetfn_spec.cluster import GATEWAY, HTTP_PORT, HTTP_PORT_NAME, LABEL_FUNCTION, LABEL_MANAGED_BY, MANAGER

from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.cluster.kube import Kube
from fleetfn_gateway.cluster.kube_objects import SLICES
from fleetfn_gateway.cluster.pods import Pods

log = logging.getLogger("fleetfn.gateway")

REFRESH = 120.0
"""Seconds between writes of all, also where nothing is new."""

_BACKOFF = (0.1, 10.0)
"""First and longest seconds between tries to write one."""


def name_of(function: str) -> str:
    return f"{function}-fleetfn"


class Slices:
    """Use on one loop. `port`: where requests for a function are held; None: it takes none. `uid`: of its head."""

    def __init__(
        self,
        kube: Kube,
        pods: Pods,
        *,
        address: str,
        port: Callable[[str], int | None],
        uid: Callable[[str], str | None],
        http_port: int = HTTP_PORT,
    ) -> None:
        self.problems: dict[str, str] = {}
        """By function, for people: those that could not be written."""
        self._kube = kube
        self._pods = pods
        self._address = address
        self._port = port
        self._uid = uid
        self._http_port = http_port
        self._written: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._open = False

    @property
    def known(self) -> Collection[str]:
        """Functions whose Services lead somewhere."""
        return list(self._written)

    def open(self) -> None:
        """From now on: pods and functions are known."""
        self._open = True

    async def refresh(self) -> None:
        """Now and then, until it is cancelled: one that somebody has deleted is there again."""
        while True:
            await asyncio.sleep(REFRESH)
            for function in list(self._written):
                self._written[function] = {}
                self.mend(function)

    def mend(self, function: str) -> None:
        """Something of it may be otherwise."""
        if not self._open:
            return
        self._news.setdefault(function, asyncio.Event()).set()
        if function not in self._tasks:
            self._tasks[function] = asyncio.create_task(self._keep(function), name=f"endpoints {function}")

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, function: str) -> None:
        """Until it is as it should be; later changes join."""
        backoff = Backoff(*_BACKOFF)
        news = self._news[function]
        try:
            while news.is_set():
                news.clear()
                try:
                    await self._write(function)
                    self.problems.pop(function, None)
                except FleetError as error:
                    self._say(function, error)
                    news.set()
                    await asyncio.sleep(backoff.failed())
        finally:
            del self._tasks[function]

    async def _write(self, function: str) -> None:
        wanted = self._wanted(function)
        if wanted == self._written.get(function):
            return
        if wanted is not None:
            await self._kube.apply(SLICES, name_of(function), wanted)
            self._written[function] = wanted
            return
        await self._kube.delete(SLICES, name_of(function))
        self._written.pop(function, None)

    def _wanted(self, function: str) -> dict[str, Any] | None:
        held_at, uid = self._port(function), self._uid(function)
        if held_at is None or uid is None:
            return None
        ready = [each.address for each in self._pods.ready(function)]
        addresses, port = (ready, self._http_port) if ready else ([self._address], held_at)
        conditions = {"ready": True, "serving": True, "terminating": False}
        return {
            "apiVersion": f"{SLICES.group}/{SLICES.version}",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name_of(function),
                "namespace": self._kube.namespace,
                "labels": {
                    "kubernetes.io/service-name": function,
                    "endpointslice.kubernetes.io/managed-by": GATEWAY,
                    LABEL_FUNCTION: function,
                    LABEL_MANAGED_BY: MANAGER,
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": function, "uid": uid}],
            },
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
            "endpoints": [{"addresses": [each], "conditions": conditions} for each in addresses],
            "ports": [{"name": HTTP_PORT_NAME, "port": port, "protocol": "TCP"}],
        }

    def _say(self, function: str, error: FleetError) -> None:
        problem = f"its Service cannot be led to it: {error.message}" + (f" ({error.hint})" if error.hint else "")
        if problem != self.problems.get(function):
            log.warning("%s: %s", function, problem)
        self.problems[function] = problem
