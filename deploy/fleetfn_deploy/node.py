"""The node of this machine as a target: a source or a digest goes to it through its control API."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from fleetfn.errors import TargetError
from fleetfn_plumbing import source
from fleetfn_spec.control import DeployLine, DeployRequest, FunctionStatus, Plan, RevisionInfo
from fleetfn_spec.environments import Environment

from fleetfn_deploy.client import Lines, NodeClient, RefusedError
from fleetfn_deploy.target import Digest, Progress, Source

T = TypeVar("T")

_BLOCK = 64 * 1024
_IN_MEMORY = 8 * 1024 * 1024
"""Bytes of a packed source that are kept in memory; more go to a temporary file."""


class NodeTarget:
    """Implements Target. Calls block on a thread; cancelling closes their connection, and the node finishes or not."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def plan(self, what: Source | Digest, environment: Environment) -> Plan:
        if isinstance(what, Digest):
            return await asyncio.to_thread(self._plan_switch, what)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as packed:
            request = await self._request(what, environment, packed, dry_run=True)
            async for line in _each(lambda: self._client.deploy(request, _blocks(packed))):
                _raise(line)
                if line.plan is not None:
                    return line.plan
        raise TargetError("the node ended its answer without a plan", hint="The end of node.log tells why.")

    async def deploy(self, what: Source | Digest, environment: Environment, *, progress: Progress) -> RevisionInfo:
        if isinstance(what, Digest):
            return await self._follow(lambda: self._client.rollback(what.name, what.digest), progress)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as packed:
            request = await self._request(what, environment, packed, dry_run=False)
            return await self._follow(lambda: self._client.deploy(request, _blocks(packed)), progress)

    async def status(self, name: str | None = None) -> list[FunctionStatus]:
        if name is None:
            return await asyncio.to_thread(self._client.functions)
        return [await asyncio.to_thread(self._client.function, name)]

    async def delete(self, name: str, *, keep_state: bool) -> None:
        await asyncio.to_thread(functools.partial(self._client.delete, name, keep_state=keep_state))

    async def logs(self, name: str, *, follow: bool, since: float | None) -> AsyncIterator[bytes]:
        async for line in _each(lambda: self._client.logs(name, follow=follow, since=since)):
            yield line

    def _plan_switch(self, what: Digest) -> Plan:
        revisions = self._client.revisions(what.name)
        serving = next((revision.digest for revision in revisions if revision.serving), None)
        if not any(revision.digest == what.digest for revision in revisions):
            raise TargetError(
                f"{what.name!r} has no revision {what.digest!r}", hint=f"Those it has: fn revisions {what.name}"
            )
        return Plan(name=what.name, digest=what.digest, serving=serving)

    async def _request(
        self, what: Source, environment: Environment, packed: IO[bytes], *, dry_run: bool
    ) -> DeployRequest:
        await asyncio.to_thread(_pack, what.folder, packed)
        return DeployRequest(function=what.function, environment=environment, dry_run=dry_run)

    async def _follow(self, begin: Callable[[], Lines[DeployLine]], progress: Progress) -> RevisionInfo:
        async for line in _each(begin):
            _raise(line)
            if line.step is not None:
                progress(line.step)
            if line.revision is not None:
                return line.revision
        raise TargetError(
            "the node ended its answer before the revision served",
            hint="What serves now: fn list. The end of node.log tells why.",
        )


async def _each(begin: Callable[[], Lines[T]]) -> AsyncIterator[T]:
    """The lines of a blocking answer, one thread hop each. Closes the answer whatever happens."""
    lines = await asyncio.to_thread(begin)
    try:
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line
    finally:
        lines.close()


def _raise(line: DeployLine) -> None:
    if line.refusal is not None:
        raise RefusedError(line.refusal)


def _pack(folder: Path, into: IO[bytes]) -> None:
    source.pack(folder, into)
    into.seek(0)


def _blocks(packed: IO[bytes]) -> Iterator[bytes]:
    while block := packed.read(_BLOCK):
        yield block
