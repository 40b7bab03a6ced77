"""A target that keeps its revisions in memory: what Target promises, without a node."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable

import msgspec
from fleetfn.errors import TargetError
from fleetfn_plumbing import source
from fleetfn_spec.control import Change, Counters, FunctionStatus, Plan, RevisionInfo, TriggerStatus
from fleetfn_spec.environments import Environment

from fleetfn_deploy.target import Digest, Progress, Source


class MemoryTarget:
    """Implements Target. `broken`: a check that may refuse a source, as a node does when it cannot get ready."""

    def __init__(
        self, *, broken: Callable[[Source], str] = lambda _: "", clock: Callable[[], float] = time.time
    ) -> None:
        self._broken = broken
        self._clock = clock
        self._history: dict[str, list[tuple[RevisionInfo, Source]]] = {}
        self.lines: dict[str, list[bytes]] = {}

    async def plan(self, what: Source | Digest, environment: Environment) -> Plan:
        found, digest = self._resolve(what)
        name = found.function.name
        serving = self._serving(name)
        changes = []
        if serving is not None and serving[0].digest != digest:
            changes.append(Change("source", serving[0].digest[:12], digest[:12]))
        if serving is not None and serving[0].environment != environment.name:
            changes.append(Change("environment.name", serving[0].environment, environment.name))
        return Plan(name=name, digest=digest, serving=serving[0].digest if serving else None, changes=changes)

    async def deploy(self, what: Source | Digest, environment: Environment, *, progress: Progress) -> RevisionInfo:
        found, digest = self._resolve(what)
        progress("getting ready")
        if problem := self._broken(found):
            raise TargetError(problem, hint="mend it, then deploy again")
        name = found.function.name
        before = self._history.get(name, [])
        revision = RevisionInfo(
            name=name,
            digest=digest,
            number=len(before) + 1,
            created=self._clock(),
            serving=True,
            environment=environment.name,
        )
        retired = [(msgspec.structs.replace(info, serving=False), old) for info, old in before]
        self._history[name] = [*retired, (revision, found)]
        return revision

    async def status(self, name: str | None = None) -> list[FunctionStatus]:
        return [self._status(each) for each in ([name] if name is not None else sorted(self._history))]

    async def delete(self, name: str, *, keep_state: bool) -> None:  # noqa: ARG002 - there is none
        self._known(name)
        del self._history[name]

    async def logs(self, name: str, *, follow: bool, since: float | None) -> AsyncIterator[bytes]:  # noqa: ARG002 - the port's
        self._known(name)
        for line in self.lines.get(name, []):
            yield line

    def _resolve(self, what: Source | Digest) -> tuple[Source, str]:
        if isinstance(what, Source):
            packed = io.BytesIO()
            source.pack(what.folder, packed)
            return what, hashlib.sha256(packed.getvalue() + msgspec.json.encode(what.function)).hexdigest()
        self._known(what.name)
        for info, found in self._history[what.name]:
            if info.digest.startswith(what.digest):
                return found, info.digest
        raise TargetError(f"{what.name!r} has no revision {what.digest!r}", hint="deploy the folder")

    def _serving(self, name: str) -> tuple[RevisionInfo, Source] | None:
        return self._history[name][-1] if name in self._history else None

    def _known(self, name: str) -> None:
        if name not in self._history:
            raise TargetError(f"no function {name!r}", hint="deploy it first")

    def _status(self, name: str) -> FunctionStatus:
        self._known(name)
        revision, found = self._history[name][-1]
        return FunctionStatus(
            name=name,
            phase="sleeping",
            reason="nothing runs in memory",
            revision=revision,
            triggers=[
                TriggerStatus(name=each.name, kind=each.kind.name, where="memory")
                for each in found.function.spec.triggers
            ],
            counters=Counters(),
        )
