"""The road of a deploy: preflight, image, gateway, a pod that checks the revision, objects, head, wait, prune.

Nothing that serves is touched before the check pod has ended well. What goes wrong after that is put back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from fleetfn.errors import FleetError, TargetError
from fleetfn_spec.cluster import GATEWAY, LABEL_FUNCTION, LABEL_PART
from fleetfn_spec.control import Plan, RevisionInfo
from fleetfn_spec.environments import Environment
from fleetfn_spec.gateway import TriggerRows
from fleetfn_spec.removals import removals

from fleetfn_deploy.kubernetes import (
    applying,
    certificates,
    deleting,
    errands,
    gateways,
    kinds,
    planning,
    preflight,
    refusals,
    render,
    revisions,
    turns,
    values,
)
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.images import Images
from fleetfn_deploy.kubernetes.kinds import Object, name_of
from fleetfn_deploy.kubernetes.refusals import UnreachableError
from fleetfn_deploy.kubernetes.revisions import History
from fleetfn_deploy.kubernetes.values import Deployable, Installation
from fleetfn_deploy.kubernetes.waiting import Wait
from fleetfn_deploy.target import Digest, Progress, Source

AskRows = Callable[[str], Awaitable[Mapping[str, TriggerRows]]]
"""What waits in the gateway for a function, by trigger; {} where it does not tell."""


class Road:
    """One deploy, or the plan of one."""

    def __init__(
        self,
        cluster: Cluster,
        images: Images,
        progress: Progress,
        *,
        force: bool,
        limit: float,
        clock: Callable[[], float],
        rows: AskRows,
    ) -> None:
        """`force`: take over fields that others manage; `limit`: seconds for each thing that is waited for."""
        self._cluster = cluster
        self._images = images
        self._progress = progress
        self._force = force
        self._clock = clock
        self._rows = rows
        self._wait = Wait(cluster, progress, limit=limit)

    async def deploy(self, what: Source | Digest, environment: Environment) -> RevisionInfo:
        wanted = await self._wanted(what, environment)
        async with turns.turn(self._cluster, wanted.name):
            history = await revisions.history(self._cluster, wanted.name)
            wanted = _numbered(wanted, history, self._clock())
            try:
                await self._make_true(what, environment, wanted, history)
            except UnreachableError as error:
                raise UnreachableError(
                    f"the deploy of {wanted.name} revision {wanted.short} broke off: {error.message}",
                    hint=f"{error.hint} The same command may be run again: it goes on from what is there.",
                ) from error
        return _info(wanted)

    async def _make_true(
        self, what: Source | Digest, environment: Environment, wanted: Deployable, history: History | None
    ) -> None:
        things = self._unkept(render.objects(wanted), history)
        await applying.check_owners(self._cluster, things, wanted.name)
        await self._gateway(wanted, what, environment)
        if history is None or history.head.revision != wanted.revision:
            await self._check(wanted, things, history)
        for removal in await self._removals(wanted, history) if history is not None else ():
            self._progress(removal)
        await self._switch(wanted, things, history)
        if gone := await revisions.prune(self._cluster, wanted.name):
            self._progress(f"removed {gone} old revisions")

    async def export(self, what: Source, environment: Environment) -> list[Object]:
        """The gateway's objects first: KEDA asks it for every function. Without a time, so that equal inputs are equal
        text: a revision's ConfigMap cannot be changed once it is applied.
        """
        wanted = replace(await self._built(what, environment, ()), created=0.0)
        gateway = await asyncio.to_thread(self._images.gateway, environment, self._progress)
        installation = Installation(self._cluster.namespace, gateway.reference, wanted.target)
        return [*render.gateway_objects(installation), *render.objects(wanted)]

    async def plan(self, what: Source | Digest, environment: Environment) -> Plan:
        wanted = await self._wanted(what, environment)
        history = await revisions.history(self._cluster, wanted.name)
        wanted = _numbered(wanted, history, self._clock())
        await applying.check_owners(self._cluster, render.objects(wanted), wanted.name)
        notes = await self._removals(wanted, history) if history is not None else []
        return await planning.plan(self._cluster, wanted, history, notes, force=self._force)

    async def _removals(self, wanted: Deployable, history: History) -> list[str]:
        return removals(history.head.function, wanted.function, await self._rows(wanted.name))

    async def _wanted(self, what: Source | Digest, environment: Environment) -> Deployable:
        """Not yet numbered. Of a digest, all is as it was when it was deployed."""
        if isinstance(what, Digest):
            found = (await revisions.known(self._cluster, what.name)).find(what.digest)
            await self._preflight(found.environment)
            return found.deployable(self._cluster.namespace, apart=await _api_servers(self._cluster))
        await self._preflight(environment)
        return await self._built(what, environment, await _api_servers(self._cluster))

    async def _preflight(self, environment: Environment) -> None:
        self._progress(f"looking at namespace {self._cluster.namespace} of {self._cluster}")
        for note in await preflight.check(self._cluster, environment):
            self._progress(note)

    async def _built(self, what: Source, environment: Environment, apart: tuple[str, ...]) -> Deployable:
        self._progress("building the image")
        built = await asyncio.to_thread(self._images.image, what, environment, self._progress)
        unnamed = Deployable(
            function=what.function,
            environment=environment,
            namespace=self._cluster.namespace,
            image=built.reference,
            revision="",
            number=1,
            created=self._clock(),
            apart=apart,
        )
        return replace(unnamed, revision=values.digest(unnamed.image, unnamed.needed))

    async def _gateway(self, wanted: Deployable, what: Source | Digest, environment: Environment) -> None:
        """A new revision brings the gateway to this version; an old one takes it as it is, where it is there."""
        await certificates.ensure(self._cluster, wanted.name)
        if isinstance(what, Source) or await self._cluster.get(kinds.STATEFUL_SET, GATEWAY) is None:
            built = await asyncio.to_thread(self._images.gateway, environment, self._progress)
            installation = Installation(wanted.namespace, built.reference, wanted.target)
            await gateways.ensure(self._cluster, installation, self._wait, self._progress, force=self._force)
        await self._wait.gateway(GATEWAY)

    def _unkept(self, things: list[Object], history: History | None) -> list[Object]:
        """The ConfigMap of a revision that is kept stays as it is."""
        kept = {each.config_map for each in history.kept} if history is not None else set()
        return [each for each in things if each["kind"] != kinds.CONFIG_MAP.name or name_of(each) not in kept]

    # check

    async def _check(self, wanted: Deployable, things: list[Object], history: History | None) -> None:
        """A pod of the new revision imports, binds, connects, and ends. What was made for it goes where it fails."""
        self._progress(f"checking revision {wanted.short} in a pod of its own")
        try:
            await errands.run(self._cluster, things, render.check_pod(wanted), self._wait, force=self._force)
        except UnreachableError:
            raise
        except FleetError as error:
            with contextlib.suppress(TargetError):  # the first reason is the one to tell
                await self._forget(wanted, history)
            raise TargetError(
                f"revision {wanted.short} of {wanted.name} did not pass its check: {error.message}",
                hint=f"{error.hint} {_still(history)}".strip(),
            ) from error

    async def _forget(self, wanted: Deployable, history: History | None) -> None:
        if history is None:
            await deleting.remove(self._cluster, wanted.name, self._wait)
        elif not any(each.digest == wanted.revision for each in history.kept):
            await self._cluster.delete(kinds.CONFIG_MAP, wanted.revision_name)

    # switch

    async def _switch(self, wanted: Deployable, things: list[Object], history: History | None) -> None:
        self._progress(f"switching to revision {wanted.short}")
        try:
            head, scaled = things[-1], [each for each in things if each["kind"] == kinds.SCALED_OBJECT.name]
            before = [each for each in things if each is not head and each not in scaled]
            await applying.apply(self._cluster, before, force=self._force)
            await self._wait.rollout(wanted.name, wanted.short, _workers(wanted.name))
            # KEDA asks the gateway about a function at once, and again only after a while.
            await applying.apply(self._cluster, [head, *scaled], force=self._force)
            await self._wait.scaled_object(wanted.name)
            await applying.sweep(self._cluster, wanted.name, things)
            await self._note(wanted)
        except UnreachableError:
            raise
        except TargetError as error:
            put_back = await self._put_back(wanted, history)
            raise TargetError(error.message, hint=f"{error.hint} {put_back}".strip()) from error

    async def _note(self, wanted: Deployable) -> None:
        """When it served last: its ConfigMap itself cannot be changed."""
        notes = {revisions.NUMBER: str(wanted.number), revisions.CREATED: repr(wanted.created)}
        await self._cluster.merge(kinds.CONFIG_MAP, wanted.revision_name, {"metadata": {"annotations": notes}})

    async def _put_back(self, wanted: Deployable, history: History | None) -> str:
        """What serves after a failure, in a sentence."""
        try:
            if history is None:
                await deleting.remove(self._cluster, wanted.name, self._wait)
                return "What was made of it is removed again."
            before = history.now(self._cluster.namespace, apart=wanted.apart)
            await applying.apply(self._cluster, self._unkept(render.objects(before), history), force=True)
            await self._forget(wanted, history)
        except TargetError as error:
            return f"Putting back what served failed, too: {error.message}"
        return _still(history)


def _numbered(wanted: Deployable, history: History | None, now: float) -> Deployable:
    if history is None:
        return replace(wanted, number=1, created=now)
    same = history.head.revision == wanted.revision
    return replace(
        wanted,
        number=history.number_of(wanted.revision),
        created=history.head.created if same else now,
        paused=history.head.paused,
    )


def _still(history: History | None) -> str:
    if history is None:
        return "Nothing serves yet."
    return f"Revision {history.head.number} ({history.head.revision[:12]}) goes on serving."


def _workers(name: str) -> dict[str, str]:
    return {LABEL_FUNCTION: name, LABEL_PART: "worker"}


async def _api_servers(cluster: Cluster) -> tuple[str, ...]:
    """Addresses, as pods reach them; () where they may not be looked at."""
    try:
        found = await cluster.get(kinds.ENDPOINT_SLICE, "kubernetes", namespace="default")
    except refusals.RefusedByClusterError as error:
        if error.status == refusals.FORBIDDEN:
            return ()
        raise
    endpoints = (found or {}).get("endpoints") or []
    return tuple(sorted({address for each in endpoints for address in each["addresses"]}))


def _info(wanted: Deployable) -> RevisionInfo:
    paths = [each.http.path for each in wanted.function.spec.triggers if each.http is not None]
    url = f"http://{wanted.name}.{wanted.namespace}.svc"
    return RevisionInfo(
        name=wanted.name,
        digest=wanted.revision,
        number=wanted.number,
        created=wanted.created,
        serving=True,
        environment=wanted.environment.name,
        urls=list(dict.fromkeys(url + path for path in paths)),
    )
