"""Which dead letters a command is about: by number, or by what they have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from fleetfn.errors import UsageError

from fleetfn_cli.durations import seconds_of

if TYPE_CHECKING:
    from fleetfn_deploy.platform import Platform
    from fleetfn_triggers.inbox import Row, Which

Numbers = Annotated[list[int] | None, typer.Argument(help="Numbers of dead letters.", show_default=False)]
Function = Annotated[str | None, typer.Option("--function", help="Only of this function.")]
Trigger = Annotated[str | None, typer.Option("--trigger", "-t", help="Only of this trigger.")]
Key = Annotated[str | None, typer.Option("--key", "-k", help="Only of this key.")]
Reason = Annotated[
    Literal["rejected", "attempts", "unreadable", "crashed", "timeout", "output refused", "removed"] | None,
    typer.Option(help="Only for this reason."),
]
Older = Annotated[str | None, typer.Option("--older-than", metavar="1d", help="Only those given up longer ago.")]
Newer = Annotated[str | None, typer.Option("--newer-than", metavar="1h", help="Only those given up since then.")]
All = Annotated[bool, typer.Option("--all", help="All there are.")]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """`before`, `since`: Unix seconds of giving up."""

    function: str | None = None
    trigger: str | None = None
    key: str | None = None
    reason: str | None = None
    before: float | None = None
    since: float | None = None

    def __bool__(self) -> bool:
        return self != Choice()

    def rows(self, client: Platform, *, after: int | None = None, limit: int | None = None) -> Iterator[Row]:
        """In order of sequence, page by page."""
        left = limit
        while left is None or left > 0:
            size = _PAGE if self.since is not None or left is None else min(left, _PAGE)
            page = client.dead(
                function=self.function,
                trigger=self.trigger,
                key=self.key,
                reason=self.reason,
                before=self.before,
                after=after,
                limit=size,
            )
            fits = [row for row in page if self.since is None or row.created >= self.since]
            yield from fits[:left]
            left = None if left is None else left - len(fits)
            if len(page) < size:
                return
            after = page[-1].sequence


def choice(
    function: str | None,
    trigger: str | None,
    key: str | None,
    reason: str | None,
    older: str | None,
    newer: str | None,
) -> Choice:
    """Raises UsageError."""
    now = time.time()
    before = now - seconds_of(older, "--older-than") if older is not None else None
    since = now - seconds_of(newer, "--newer-than") if newer is not None else None
    return Choice(function, trigger, key, reason, before, since)


def which(client: Platform, numbers: list[int], common: Choice, *, everything: bool) -> Which | None:
    """What to ask the node for; None: nothing fits. Raises UsageError unless exactly one way of choosing is used."""
    from fleetfn_triggers.inbox import Which

    if sum((bool(numbers), bool(common), everything)) != 1:
        raise UsageError("choose dead letters by number, by options, or --all", hint="For example: 12 13, or --key V1")
    if numbers:
        return Which(sequences=tuple(numbers))
    if common.since is not None:  # the node knows only `before`
        found = tuple(row.sequence for row in common.rows(client))
        return Which(sequences=found) if found else None
    return Which(
        function=common.function, trigger=common.trigger, key=common.key, reason=common.reason, before=common.before
    )
