"""Following one kind of object: all there are, then each change, and all anew where the API server has forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from fleetfn.errors import FleetError

from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.cluster.kube import ForgottenError, Kube, KubeAwayError
from fleetfn_gateway.cluster.kube_objects import Resource

log = logging.getLogger("fleetfn.gateway")

_BACKOFF = (0.2, 15.0)
"""First and longest seconds between tries."""

SHORT = 1.0
"""Seconds: a watch that ended sooner is not begun again at once."""

T = TypeVar("T")


class Watching(Generic[T]):
    """Use on one loop. `replace` gets all there are, `change` one that was put (False) or deleted (True)."""

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        kind: type[T],
        labels: str,
        *,
        replace: Callable[[list[T]], Awaitable[None]],
        change: Callable[[T, bool], Awaitable[None]],
    ) -> None:
        self.synced = asyncio.Event()
        """Set once all there are were told."""
        self.problem = ""
        """Why changes are not seen now, for people; '' where they are."""
        self._kube = kube
        self._resource = resource
        self._kind = kind
        self._labels = labels
        self._replace = replace
        self._change = change
        self._version = ""
        self._backoff = Backoff(*_BACKOFF)

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._follow()
                if loop.time() - began >= SHORT:
                    self._backoff.reset()
                wait = self._backoff.failed()
            except ForgottenError:
                self._version = ""
                wait = self._backoff.failed()
            except KubeAwayError as error:
                self._say(error.message)
                wait = self._backoff.failed()
            except FleetError as error:
                self._version = ""
                self._say(error.message + (f" ({error.hint})" if error.hint else ""))
                wait = self._backoff.failed()
            except Exception as error:
                log.exception("what the API server told of %s failed; all are listed anew", self._resource.plural)
                self._version, self.problem = "", f"following {self._resource.plural} failed: {error}"
                wait = self._backoff.failed()
            await asyncio.sleep(wait)

    async def _follow(self) -> None:
        if not self._version:
            listed = await self._kube.list(self._resource, self._kind, self._labels)
            await self._replace(listed.items)
            self._version = listed.version
            self.synced.set()
        changes = self._kube.watch(self._resource, self._kind, self._labels, self._version)
        async with aclosing(changes):
            async for each in changes:
                self.problem = ""
                if each.item is not None:
                    await self._change(each.item, each.kind == "DELETED")
                    self._backoff.reset()
                self._version = each.version

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s are not followed: %s", self._resource.plural, problem)
        self.problem = problem
