"""The Platform port: what `fn` asks of the place where functions are, by plain calls that wait for their answer.

A node is one (client.NodeClient), a namespace of a cluster another. Every method raises TargetError: nobody there,
refused, cut off, with the reason and the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from fleetfn_spec.control import (
        DeployLine,
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

T_co = TypeVar("T_co", covariant=True)


class Answers(Iterator[T_co], AbstractContextManager["Answers[T_co]"], Protocol[T_co]):
    """What is told while it happens; closed early, the asking ends."""

    def close(self) -> None:
        """From any thread: a wait under way ends, too."""
        ...


class Platform(Protocol):
    def functions(self) -> list[FunctionStatus]: ...

    def function(self, name: str) -> FunctionStatus: ...

    def delete(self, name: str, *, keep_state: bool) -> None: ...

    def revisions(self, name: str) -> list[RevisionInfo]:
        """Newest first."""
        ...

    def rollback(self, name: str, digest: str | None = None) -> Answers[DeployLine]:
        """Back to `digest`; None: to the revision that served before."""
        ...

    def pause(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus:
        """No triggers named: all."""
        ...

    def resume(self, name: str, triggers: Sequence[str] = ()) -> FunctionStatus: ...

    def fire(self, name: str, request: FireRequest) -> Fired:
        """Fire a clock by hand."""
        ...

    def invoke(self, name: str, request: InvokeRequest) -> InvokeReply: ...

    def send(self, name: str, trigger: str, items: Iterable[SendItem], *, batch: int = 1) -> Answers[SendLine]:
        """Items are taken one by one while progress comes back. `batch`: so many go at once, where nobody waits."""
        ...

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: float | None = None,
        level: str | None = None,
        key: str | None = None,
    ) -> Answers[bytes]:
        """Log lines as they are (JSON), of all workers. `since`: Unix seconds."""
        ...

    def states(self, name: str, *, after: str | None = None, limit: int = 1000) -> StatePage: ...

    def state(self, name: str, key: str) -> StateEntry: ...

    def dead(
        self,
        *,
        function: str | None = None,
        trigger: str | None = None,
        key: str | None = None,
        reason: str | None = None,
        before: float | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """Dead letters in order of sequence. `before`: given up before this Unix time; `after`: a sequence."""
        ...

    def dead_letter(self, sequence: int) -> Row: ...

    def redrive(self, redrive: Redrive) -> int:
        """How many were (in a dry run: would be) redriven."""
        ...

    def discard(self, which: Which) -> int: ...
