"""A namespace of a cluster as a target. KEDA and Dapr are used as they are found there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from fleetfn.errors import TargetError
from fleetfn_spec.control import FunctionStatus, Plan, RevisionInfo
from fleetfn_spec.environments import Environment
from fleetfn_spec.gateway import GatewayStatus, TriggerRows

from fleetfn_deploy.client import ControlClient
from fleetfn_deploy.kubernetes import certificates, deleting, forwarding, logs, pausing, revisions, statuses, turns
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.deploying import Road
from fleetfn_deploy.kubernetes.images import Images
from fleetfn_deploy.kubernetes.kinds import Object
from fleetfn_deploy.kubernetes.waiting import Wait
from fleetfn_deploy.target import Digest, Progress, Source

PATIENCE = 300.0
"""Seconds for each thing that is waited for: a large image takes a while to be pulled for the first time."""


def _silent(_: str) -> None: ...


class KubernetesTarget:
    """Implements Target. The namespace is the cluster's; an environment given to a deploy says the rest."""

    def __init__(
        self,
        cluster: Cluster,
        images: Images,
        *,
        force: bool = False,
        limit: float = PATIENCE,
        clock: Callable[[], float] = time.time,
        gateway: ControlClient | None = None,
    ) -> None:
        """`force`: take over fields that others manage; `limit`: seconds for each thing that is waited for; `gateway`:
        the namespace's, reached otherwise than by forwarding its port.
        """
        self._cluster = cluster
        self._images = images
        self._force = force
        self._limit = limit
        self._clock = clock
        self._gateway = gateway

    async def plan(self, what: Source | Digest, environment: Environment, *, progress: Progress = _silent) -> Plan:
        """Builds and pushes the image, since its digest names the revision; the cluster only answers dry runs."""
        return await self._road(progress).plan(what, environment)

    async def deploy(self, what: Source | Digest, environment: Environment, *, progress: Progress) -> RevisionInfo:
        return await self._road(progress).deploy(what, environment)

    async def export(self, what: Source, environment: Environment, *, progress: Progress = _silent) -> list[Object]:
        """All objects of the function and of its gateway, without certificates; the cluster is not asked."""
        return await self._road(progress).export(what, environment)

    async def status(self, name: str | None = None) -> list[FunctionStatus]:
        if name is None:
            return await statuses.all_of(self._cluster, self._ask_gateway)
        return [await statuses.one(self._cluster, name, self._ask_gateway)]

    async def delete(self, name: str, *, keep_state: bool, progress: Progress = _silent) -> None:
        history = await revisions.known(self._cluster, name)
        async with turns.turn(self._cluster, name):
            await deleting.delete(self._cluster, history, self._wait(progress), progress, keep_state=keep_state)

    async def delete_gateway(self, *, keep_data: bool, progress: Progress = _silent) -> None:
        """Of a namespace without functions, with what waits there and all dead letters unless they are kept."""
        await deleting.delete_gateway(self._cluster, self._wait(progress), keep_data=keep_data)

    async def logs(self, name: str, *, follow: bool, since: float | None) -> AsyncIterator[bytes]:
        if await revisions.find_head(self._cluster, name) is None:
            raise revisions.unknown(self._cluster, name)
        async for line in logs.lines(self._cluster, name, follow=follow, since=since):
            yield line

    # beyond the port

    async def revisions(self, name: str) -> list[RevisionInfo]:
        """Newest first."""
        return (await revisions.known(self._cluster, name)).infos()

    async def rollback(self, name: str, digest: str | None = None, *, progress: Progress = _silent) -> RevisionInfo:
        """Back to `digest`; None: to the revision that served before. By the same road as a deploy."""
        history = await revisions.known(self._cluster, name)
        found = history.find(digest) if digest is not None else history.before()
        return await self.deploy(Digest(name, found.digest), found.environment, progress=progress)

    async def pause(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus:
        """No triggers named: all."""
        return await self._pause(name, triggers, stop=True)

    async def resume(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus:
        return await self._pause(name, triggers, stop=False)

    def gateway(self) -> ControlClient:
        """The control API of the namespace's gateway, by plain calls that wait."""
        return self._gateway or forwarding.gateway(self._cluster.access, self._cluster.namespace)

    async def certify(self) -> None:
        """Make or renew the certificates of the gateway and of all functions: where GitOps applies the rest."""
        await certificates.ensure(self._cluster)
        for head in await revisions.heads(self._cluster):
            await certificates.ensure(self._cluster, head.function.name)

    async def _pause(self, name: str, triggers: Sequence[str], *, stop: bool) -> FunctionStatus:
        async with turns.turn(self._cluster, name):
            history = await revisions.known(self._cluster, name)
            await pausing.pause(self._cluster, history, triggers, stop=stop, force=self._force)
        return await statuses.one(self._cluster, name, self._ask_gateway)

    async def _ask_gateway(self) -> GatewayStatus:
        return await asyncio.to_thread(lambda: self.gateway().gateway())

    async def _rows(self, name: str) -> dict[str, TriggerRows]:
        try:
            return (await self._ask_gateway()).functions.get(name, {})
        except TargetError:  # a note is no reason to fail
            return {}

    def _road(self, progress: Progress) -> Road:
        return Road(
            self._cluster,
            self._images,
            progress,
            force=self._force,
            limit=self._limit,
            clock=self._clock,
            rows=self._rows,
        )

    def _wait(self, progress: Progress) -> Wait:
        return Wait(self._cluster, progress, limit=self._limit)
