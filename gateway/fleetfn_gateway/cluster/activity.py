"""Asks each pod what it does: whether it takes work by now, and how much it has in flight.

GET /activity on its delivery port. A pod that is starting and did not say yet that it takes work is asked many times a
second, since the kubelet would tell a second late; one that is ready about once a second, so that requests which come
to it directly keep it awake. Which triggers are paused by hand, it is told at the same time where it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import HttpClient
from fleetfn_spec.cluster import Activity, Figures

from fleetfn_gateway.cluster.pods import Pods, Seen

log = logging.getLogger("fleetfn.gateway")

STARTING = 0.06
"""Seconds between questions to a pod that is not ready."""

READY = 1.0
"""Seconds between questions to one that is."""

EAGER = 180.0
"""Seconds after which a pod that does not get ready is asked as seldom as a ready one."""

ANSWER = 2.0
"""Seconds for an answer; a starting pod has less, since a connection may be lost before its network is there."""

SHORT = 0.4


_decoder = msgspec.json.Decoder(Activity)


class Asking:
    """Use on one loop. `client_of`: asks a function's pod at its delivery place. `paused`: a function's triggers that
    are paused by hand; None: it is not known. `count`: told what a pod did.
    """

    def __init__(
        self,
        pods: Pods,
        client_of: Callable[[str, str], HttpClient],
        paused: Callable[[str], Collection[str] | None],
        count: Callable[[Seen, Figures], None],
    ) -> None:
        self._pods = pods
        self._client_of = client_of
        self._paused = paused
        self._count = count
        self._tasks: dict[Seen, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def follow(self) -> None:
        """To be called when pods have come or gone."""
        there = {each for each in self._pods.all() if each.address}
        for gone in self._tasks.keys() - there:
            self._tasks.pop(gone).cancel()
        for new in there - self._tasks.keys():
            self._tasks[new] = asyncio.create_task(self._ask(new), name=f"activity {new.name}")

    def hurry(self) -> None:
        """What is paused may have changed: all pods are asked, and told, now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, pod: Seen) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        client = self._client_of(pod.function, pod.place)
        try:
            if pod.told:  # it has said so itself just now
                await asyncio.sleep(READY)
            while True:
                news = self._news  # by now, so that what changes while it is asked counts
                await self._ask_once(pod, client)
                eager = not pod.ready and not pod.ending and loop.time() - began < EAGER
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), STARTING if eager else READY)
        finally:
            await client.close()

    async def _ask_once(self, pod: Seen, client: HttpClient) -> None:
        try:
            reply = await client.request("GET", "/activity", limit=ANSWER if pod.told is not None else SHORT)
            said = _decoder.decode(reply.body) if reply.status == 200 else None  # noqa: PLR2004 - HTTP's own number
        except (FleetError, msgspec.MsgspecError, UnicodeDecodeError):
            said = None
        if said is None:
            pod.missed += 1
        else:
            pod.told, pod.missed = said.ready, 0
            pod.in_flight, pod.idle = said.in_flight, said.last
            if said.figures is not None:
                pod.figures = said.figures
                self._count(pod, said.figures)
            await self._tell_paused(pod, client, said.paused)
        self._pods.update(pod.function)

    async def _tell_paused(self, pod: Seen, client: HttpClient, known: Collection[str]) -> None:
        paused = self._paused(pod.function)
        if paused is None:
            return
        for path, triggers in (("/pause", set(paused) - set(known)), ("/resume", set(known) - set(paused))):
            if not triggers:
                continue
            body = msgspec.json.encode({"triggers": sorted(triggers)})
            with contextlib.suppress(FleetError):  # it is told again
                reply = await client.request("POST", path, body, limit=ANSWER)
                if reply.status >= 400:  # noqa: PLR2004 - HTTP's own number
                    log.debug("%s: POST %s is answered %d: %r", pod.name, path, reply.status, reply.body[:200])
