"""Log lines of all workers of a function: those that are there in order of time, those to come as they come."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import heapq
from collections.abc import AsyncIterator

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import LABEL_FUNCTION, LABEL_PART

from fleetfn_deploy.kubernetes import kinds, worker_pod
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, name_of
from fleetfn_deploy.kubernetes.refusals import NOT_FOUND, RefusedByClusterError
from fleetfn_deploy.kubernetes.waiting import selector

_LOOK = 1.0
"""Seconds between two looks for new pods."""
_QUEUE = 1000


async def lines(cluster: Cluster, name: str, *, follow: bool, since: float | None) -> AsyncIterator[bytes]:
    """As they are (JSON). Of pods that are there: a worker that went to sleep took its log along."""
    began = _rfc3339(since) if since is not None else None
    async for line in _following(cluster, name, began) if follow else _so_far(cluster, name, began):
        yield line


async def _so_far(cluster: Cluster, name: str, since: str | None) -> AsyncIterator[bytes]:
    """Merged by the time that the cluster notes for each line."""
    streams = [_of(cluster, pod, since, follow=False) for pod in await workers(cluster, name)]
    heads: list[tuple[bytes, int, bytes]] = []
    for number, stream in enumerate(streams):
        await _next(heads, number, stream)
    while heads:
        _, number, line = heapq.heappop(heads)
        yield line
        await _next(heads, number, streams[number])


async def _next(heads: list[tuple[bytes, int, bytes]], number: int, stream: AsyncIterator[tuple[bytes, bytes]]) -> None:
    async for when, line in stream:
        heapq.heappush(heads, (when, number, line))
        return


async def _following(cluster: Cluster, name: str, since: str | None) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes | TargetError] = asyncio.Queue(_QUEUE)
    looking = asyncio.create_task(_look(cluster, name, since, queue))
    try:
        while True:
            found = await queue.get()
            if isinstance(found, TargetError):
                raise found
            yield found
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def _look(cluster: Cluster, name: str, since: str | None, queue: asyncio.Queue[bytes | TargetError]) -> None:
    """A reader for each pod, until it ends; new pods come and go."""
    readers: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            for pod in await workers(cluster, name):
                if pod["metadata"]["uid"] not in readers and _has_begun(pod):
                    readers[pod["metadata"]["uid"]] = asyncio.create_task(_read(cluster, pod, since, queue))
            await asyncio.sleep(_LOOK)
    except TargetError as error:
        await queue.put(error)
    finally:
        for reader in readers.values():
            reader.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _read(cluster: Cluster, pod: Object, since: str | None, queue: asyncio.Queue[bytes | TargetError]) -> None:
    try:
        async for _, line in _of(cluster, pod, since, follow=True):
            await queue.put(line)
    except TargetError as error:
        await queue.put(error)


async def _of(cluster: Cluster, pod: Object, since: str | None, *, follow: bool) -> AsyncIterator[tuple[bytes, bytes]]:
    """Time and line. A pod that is gone, or has not begun, has none."""
    try:
        async for line in cluster.log(name_of(pod), worker_pod.CONTAINER, follow=follow, since=since):
            when, _, text = line.partition(b" ")
            yield when, text
    except RefusedByClusterError as error:
        if error.status != NOT_FOUND and _has_begun(pod):
            raise


async def workers(cluster: Cluster, name: str) -> list[Object]:
    return await cluster.list(kinds.POD, labels=selector({LABEL_FUNCTION: name, LABEL_PART: "worker"}))


def _has_begun(pod: Object) -> bool:
    states = (pod.get("status") or {}).get("containerStatuses") or []
    return any(each["name"] == worker_pod.CONTAINER and "waiting" not in (each.get("state") or {}) for each in states)


def _rfc3339(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
