"""A deploy: check, unpack, dependencies, start the new worker, wait until it is ready, and only then switch.

Whatever fails before the switch leaves the old revision serving.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec import removals
from fleetfn_spec.check import NOWHERE, check_function, check_spec
from fleetfn_spec.control import DeployRequest, Plan
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function
from fleetfn_spec.gateway import TriggerRows

from fleetfn_node import activation, plans, sources
from fleetfn_node.hosting import Candidate, Hosted
from fleetfn_node.links import WorkerFailedError, WorkerLink
from fleetfn_node.revisions import SHOWN, Deploy, Revision, Revisions

Progress = Callable[[str], None]


class DeployRefused(FleetError):  # noqa: N818 - a decision, not a fault
    """`status`: as the control API answers it. `problems`: all of them, where there are several."""

    def __init__(self, message: str, *, hint: str = "", problems: list[str] | None = None, status: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems or []
        self.status = status


class House(Protocol):
    """What a deploy needs of the node."""

    def hosted(self, name: str) -> Hosted | None: ...

    def revisions(self, name: str) -> Revisions: ...

    def incoming(self) -> Path: ...

    def conflicts(self, function: Function) -> list[str]:
        """HTTP routes of other functions that it would take."""
        ...

    async def prepare(self, function: Function, environment: Environment, source: Path, progress: Progress) -> None:
        """Its dependency set, and the embedded broker where a connection has no address.

        Raises FleetError; a resolver's own lines are quoted.
        """
        ...

    async def start(
        self, revision: Revision, deploy: Deploy, source: Path, paused: list[str], listener: Candidate
    ) -> WorkerLink: ...

    async def switch(
        self, revision: Revision, environment: Environment, link: WorkerLink, listener: Candidate, paused: list[str]
    ) -> Hosted:
        """Durably: the new worker takes over, and the front door's routes follow. `paused`: as the worker was told."""
        ...

    async def announce(self, hosted: Hosted, progress: Progress) -> None:
        """To the gateway: its sessions and clocks begin. What keeps them from it is told, and is no failure."""
        ...

    async def rows(self, name: str) -> dict[str, TriggerRows]:
        """What waits in the inbox, by trigger, as far as that can be told now."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A source that is on the node: unpacked, not yet a revision."""

    source: Path
    digest: str
    files: str


class Deploying:
    def __init__(self, house: House) -> None:
        self._house = house
        self._under_way: set[str] = set()

    async def deploy(self, request: DeployRequest, packed: Path | None, progress: Progress) -> Hosted | Plan:
        """`packed`: the source's tar; None: `request.digest` names a revision that the node has.

        Raises DeployRefused, and other FleetErrors of what failed.
        """
        name = request.function.name
        with self.alone(name):
            self._check(request.function, request.environment)
            if packed is None:
                if not request.digest:
                    raise DeployRefused("a deploy brings a source or names a digest; this one has neither")
                revision = await asyncio.to_thread(self._house.revisions(name).get, request.digest)
                return await self._switch(revision, request, progress)
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._house.incoming()))
            try:
                return await self._new(request, packed, folder, progress)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def rollback(self, name: str, digest: str | None, progress: Progress) -> Hosted:
        """To `digest`, or to the deploy before the serving one; through the same ready check."""
        revisions = self._house.revisions(name)
        head = await asyncio.to_thread(revisions.head)
        if head is None:
            raise DeployRefused(f"no function {name!r} is deployed here", status=404)
        if digest is None:
            target = revisions.before(head)
        else:
            whole = (await asyncio.to_thread(revisions.get, digest)).digest
            target = next((each for each in reversed(head.history) if each.digest == whole), head.serving)
        revision = await asyncio.to_thread(revisions.get, digest or target.digest)
        request = DeployRequest(function=revision.function, environment=target.environment, digest=revision.digest)
        done = await self.deploy(request, None, progress)
        if isinstance(done, Plan):
            raise TypeError("a rollback is never a dry run")
        return done

    async def _new(self, request: DeployRequest, packed: Path, folder: Path, progress: Progress) -> Hosted | Plan:
        progress("reading the source")
        arrived = await asyncio.to_thread(_arrive, packed, folder / "source", request.function)
        if request.dry_run:
            return await self._plan(request, arrived.digest, arrived.files)
        revision = await asyncio.to_thread(
            self._house.revisions(request.function.name).add,
            arrived.source,
            request.function,
            arrived.digest,
        )
        return await self._switch(revision, request, progress)

    async def _switch(self, revision: Revision, request: DeployRequest, progress: Progress) -> Hosted | Plan:
        name, environment = revision.function.name, request.environment
        revisions = self._house.revisions(name)
        if request.dry_run:
            files = await asyncio.to_thread(sources.digest, revisions.source(revision.digest))
            return await self._plan(request, revision.digest, files)
        await self._house.prepare(revision.function, environment, revisions.source(revision.digest), progress)
        head = await asyncio.to_thread(revisions.last)
        paused = head.paused if head else []
        listener = Candidate(progress)
        progress(f"starting a worker of revision {revision.digest[:SHOWN]}")
        deploy = Deploy(number=0, digest=revision.digest, environment=environment, at=0)
        source = revisions.source(revision.digest)
        link = await self._house.start(revision, deploy, source, paused, listener)
        await _until_ready(link)
        progress("ready; switching")
        old = self._house.hosted(name)
        before = old.function if old is not None else revision.function
        try:
            hosted = await self._house.switch(revision, environment, link, listener, paused)
        except BaseException:
            link.kill()
            raise
        for removal in removals.removals(before, revision.function, await self._house.rows(name)):
            progress(removal)
        await self._house.announce(hosted, progress)
        return hosted

    async def _plan(self, request: DeployRequest, digest: str, files: str) -> Plan:
        old = self._house.hosted(request.function.name)
        before = None
        if old is not None:
            old_files = await asyncio.to_thread(sources.digest, old.source)
            before = (old.head, old.revision, old_files)
        rows = await self._house.rows(request.function.name)
        return plans.plan(request.function, request.environment, digest, source=files, before=before, rows=rows)

    def _check(self, function: Function, environment: Environment) -> None:
        found = [*check_spec(function, NOWHERE), *check_function(function, environment)]
        problems = [str(each) for each in found]
        if problems:
            raise DeployRefused(f"{function.name} cannot be deployed", problems=problems)
        conflicts = self._house.conflicts(function)
        if conflicts:
            raise DeployRefused(
                f"{function.name} asks for paths that other functions have",
                hint="choose another path or method, or delete the other function",
                problems=conflicts,
                status=409,
            )

    def alone(self, name: str) -> _Alone:
        """A context in which nobody else deploys or deletes it. Raises DeployRefused."""
        if name in self._under_way:
            raise DeployRefused(
                f"a deploy of {name} is under way", hint="wait until it has ended, then deploy again", status=409
            )
        return _Alone(self._under_way, name)


class _Alone:
    def __init__(self, under_way: set[str], name: str) -> None:
        self._under_way, self._name = under_way, name

    def __enter__(self) -> None:
        self._under_way.add(self._name)

    def __exit__(self, *_: object) -> None:
        self._under_way.discard(self._name)


async def _until_ready(link: WorkerLink) -> None:
    """Raises DeployRefused with the user's own line; the worker is gone then."""
    try:
        await asyncio.wait_for(asyncio.shield(link.ready), activation.READY_LIMIT)
    except WorkerFailedError as failed:
        link.kill()
        where = [f"{failed.place}: {failed.message}"] if failed.place else []
        raise DeployRefused(failed.message, hint=failed.hint, problems=where, status=422) from failed
    except TimeoutError:
        link.kill()
        raise DeployRefused(
            f"the new worker was not ready within {activation.READY_LIMIT:.0f} s", hint="see its log", status=422
        ) from None
    except asyncio.CancelledError:
        link.kill()
        raise


def _arrive(packed: Path, folder: Path, function: Function) -> Arrived:
    folder.mkdir()
    with packed.open("rb") as file:
        sources.unpack(file, folder)
    files = sources.digest(folder)
    return Arrived(folder, sources.digest(folder, msgspec.json.encode(function, order="deterministic")), files)
