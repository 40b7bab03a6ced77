"""The Target port: where revisions live. A target takes a source (a folder) or the digest of what it already has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleetfn_spec.control import FunctionStatus, Plan, RevisionInfo
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function


@dataclass(frozen=True, slots=True)
class Source:
    """A function's folder, already checked on this side."""

    folder: Path
    function: Function


@dataclass(frozen=True, slots=True)
class Digest:
    """A revision the target has already (rollback, promote)."""

    name: str
    digest: str


Progress = Callable[[str], None]
"""One line per step, while it happens."""


class Target(Protocol):
    """Every method raises TargetError (no such target, refused, failed: with the reason and the user's own line)."""

    async def plan(self, what: Source | Digest, environment: Environment) -> Plan:
        """What a deploy would change; changes nothing."""
        ...

    async def deploy(self, what: Source | Digest, environment: Environment, *, progress: Progress) -> RevisionInfo:
        """Make it the serving revision; returns when it serves. A failure leaves the old one serving."""
        ...

    async def status(self, name: str | None = None) -> list[FunctionStatus]: ...

    async def delete(self, name: str, *, keep_state: bool) -> None: ...

    def logs(self, name: str, *, follow: bool, since: float | None) -> AsyncIterator[bytes]: ...
