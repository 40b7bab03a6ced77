"""A namespace of a cluster for `fn`, by plain calls: what the API server knows is asked there, the rest its gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fleetfn.errors import TargetError
from fleetfn_runtime.log_reader import Choice
from fleetfn_spec.control import DeployLine

from fleetfn_deploy.kubernetes import forwarding
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_deploy.kubernetes.telling import Telling

if TYPE_CHECKING:
    from fleetfn_spec.control import (
        FunctionStatus,
        InvokeReply,
        InvokeRequest,
        RevisionInfo,
        SendItem,
        SendLine,
        StateEntry,
        StatePage,
    )
    from fleetfn_spec.gateway import Fired, FireRequest, Redrive
    from fleetfn_triggers.inbox import Row, Which

    from fleetfn_deploy.client import ControlClient
    from fleetfn_deploy.kubernetes.access import Access
    from fleetfn_deploy.kubernetes.images import Images
    from fleetfn_deploy.platform import Answers

T = TypeVar("T")


class NamespacePlatform:
    """Implements Platform."""

    def __init__(
        self,
        access: Access,
        namespace: str,
        images: Images,
        *,
        connect: Callable[[], Cluster] | None = None,
        gateway: ControlClient | None = None,
    ) -> None:
        """`connect`, `gateway`: other ways to the API server (anew for each call, which has a loop of its own), and to
        the gateway.
        """
        self._connect = connect or (lambda: Cluster(access, namespace))
        self._images = images
        self._gateway = gateway or forwarding.gateway(access, namespace)

    def functions(self) -> list[FunctionStatus]:
        return self._run(lambda target: target.status())

    def function(self, name: str) -> FunctionStatus:
        return self._run(lambda target: target.status(name))[0]

    def delete(self, name: str, *, keep_state: bool) -> None:
        self._run(lambda target: target.delete(name, keep_state=keep_state))

    def revisions(self, name: str) -> list[RevisionInfo]:
        return self._run(lambda target: target.revisions(name))

    def rollback(self, name: str, digest: str | None = None) -> Answers[DeployLine]:
        return Telling(lambda: self._rollback(name, digest))

    def pause(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus:
        return self._run(lambda target: target.pause(name, triggers))

    def resume(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus:
        return self._run(lambda target: target.resume(name, triggers))

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: float | None = None,
        level: str | None = None,
        key: str | None = None,
    ) -> Answers[bytes]:
        """`key`: refused, since each pod hashes keys by a secret of its own."""
        if key is not None:
            raise TargetError("lines cannot be chosen by key in a cluster", hint="Choose by invocation, or by time.")
        return Telling(lambda: self._logs(name, follow=follow, since=since, level=level))

    # the gateway's

    def fire(self, name: str, request: FireRequest) -> Fired:
        return self._gateway.fire(name, request)

    def invoke(self, name: str, request: InvokeRequest) -> InvokeReply:
        return self._gateway.invoke(name, request)

    def send(self, name: str, trigger: str, items: Iterable[SendItem], *, batch: int = 1) -> Answers[SendLine]:
        return self._gateway.send(name, trigger, items, batch=batch)

    def states(self, name: str, *, after: str | None = None, limit: int = 1000) -> StatePage:
        return self._gateway.states(name, after=after, limit=limit)

    def state(self, name: str, key: str) -> StateEntry:
        return self._gateway.state(name, key)

    def dead(self, **which: Any) -> list[Row]:
        return self._gateway.dead(**which)

    def dead_letter(self, sequence: int) -> Row:
        return self._gateway.dead_letter(sequence)

    def redrive(self, redrive: Redrive) -> int:
        return self._gateway.redrive(redrive)

    def discard(self, which: Which) -> int:
        return self._gateway.discard(which)

    # how

    def _target(self, cluster: Cluster) -> KubernetesTarget:
        return KubernetesTarget(cluster, self._images, gateway=self._gateway)

    def _run(self, ask: Callable[[KubernetesTarget], Awaitable[T]]) -> T:
        async def once() -> T:
            async with self._connect() as cluster:
                return await ask(self._target(cluster))

        return asyncio.run(once())

    async def _rollback(self, name: str, digest: str | None) -> AsyncIterator[DeployLine]:
        told: asyncio.Queue[str | None] = asyncio.Queue()
        async with self._connect() as cluster:
            target = self._target(cluster)
            doing = asyncio.ensure_future(target.rollback(name, digest, progress=told.put_nowait))
            doing.add_done_callback(lambda _: told.put_nowait(None))
            try:
                while (step := await told.get()) is not None:
                    yield DeployLine(step=step)
                yield DeployLine(revision=await doing)
            finally:
                doing.cancel()
                await asyncio.wait({doing})

    async def _logs(self, name: str, *, follow: bool, since: float | None, level: str | None) -> AsyncIterator[bytes]:
        choice = Choice(since=since, level=level)
        async with self._connect() as cluster:
            async for line in self._target(cluster).logs(name, follow=follow, since=since):
                if choice.wants(line):
                    yield line
