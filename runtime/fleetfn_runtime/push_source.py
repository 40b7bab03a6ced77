"""Rows that a gateway pushes become deliveries on the road, and the gateway is told what became of each.

A row that is pushed again while it is under way here, or after it was done (the gateway was started anew, or lost the
connection), is not run a second time: whoever pushed it last is told, too.

Rows of one key come together, in order. Where one of them has to wait elsewhere, those behind it are given back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from fleetfn.invocation import Again, Outcome, Rejected
from fleetfn.position import At
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import INBOX
from fleetfn_triggers.push import Pushed, Told
from fleetfn_triggers.reading import Unreadable

from fleetfn_runtime import http_async
from fleetfn_runtime.burial import REFUSED_BY
from fleetfn_runtime.load import LoadedTrigger
from fleetfn_runtime.push_decoding import Decoded, Decoding

NOT_HERE = 1.0
"""Seconds after which a row may be pushed again whose trigger is paused here, or is not this revision's: the gateway
learns of the pause, or the next revision takes over, within about that time.
"""


REMEMBER = 10_000
"""Rows that are known to be done: more than one worker has in flight."""


class Asker(Protocol):
    """Who pushed rows."""

    def tell(self, told: list[Told], *, last: bool) -> None:
        """`last`: all rows of the push are told of. Nothing happens if it is gone."""
        ...


class PushSource:
    """Use on one loop. `take` gets the deliveries, from `start` on: before, another worker may own the keys. `refuses`
    says after how many seconds rows of a trigger may be pushed again that cannot be run now; None: they can.
    """

    def __init__(
        self,
        triggers: Sequence[LoadedTrigger],
        take: Callable[[Sequence[Delivery]], None],
        refuses: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._triggers = {trigger.spec.name: trigger for trigger in triggers}
        self._take = take
        self._refuses = refuses
        self._under_way: dict[object, _Row] = {}
        self._done: OrderedDict[object, None] = OrderedDict()
        """Rows of the inbox' own, oldest first: it never numbers another one so."""
        self._early: list[_Row] = []
        self._decodings: dict[str, Decoding[_Row]] = {}
        self.decoding = 0
        """Rows whose `decode` is under way, or waits for those before: they are not on the road yet."""
        self._started = self._stopped = False
        self._paused: set[str] = set()

    def push(self, rows: Sequence[Pushed], asker: Asker) -> None:
        push = _Push(asker, len(rows))
        new: list[_Row] = []
        before: _Row | None = None
        for row in rows:
            trigger = self._triggers.get(row.trigger)
            if self._stopped:
                push.tell(row.sequence, "lost")
            elif trigger is None or row.trigger in self._paused:
                push.tell(row.sequence, "lost", NOT_HERE)
            elif known := self._under_way.get((row.trigger, row.position)):
                known.asked.append((push, row.sequence))
                before = known.follow(before)
            elif (row.trigger, row.position) in self._done:
                push.tell(row.sequence, "done")
            elif (after := self._refuses(row.trigger)) is not None:
                push.tell(row.sequence, "lost", after)
            else:
                new.append(self._begin(row, trigger, push))
                before = new[-1].follow(before)
        if any(row.trigger.decode is not None for row in new):
            self._decode(new)
        else:
            self._come(new)

    def _decode(self, rows: Sequence[_Row]) -> None:
        """All of a trigger that has `decode`, so that none passes another."""
        self._come([row for row in rows if row.trigger.decode is None])
        for name in dict.fromkeys(row.delivery.trigger for row in rows if row.trigger.decode is not None):
            given = [(row, row.delivery.event, row.raw) for row in rows if row.delivery.trigger == name]
            self.decoding += len(given)
            self._decoding(name).give(given)

    def _decoding(self, trigger: str) -> Decoding[_Row]:
        found = self._decodings.get(trigger)
        if found is None:
            decode = self._triggers[trigger].decode
            assert decode is not None  # noqa: S101 - its rows are not given else
            found = self._decodings[trigger] = Decoding(trigger, decode, self._decoded)
        return found

    def _decoded(self, rows: Sequence[tuple[_Row, Decoded]]) -> None:
        self.decoding -= len(rows)
        for row, (event, problem) in rows:
            row.delivery.event = event
            row.delivery.problem = row.delivery.problem or problem
        self._come([row for row, _ in rows])

    def _come(self, rows: Sequence[_Row]) -> None:
        if self._started:
            self._take([row.delivery for row in rows if not row.lost])
        else:
            self._early.extend(rows)

    def start(self) -> None:
        """Run what came and what comes: the function is this worker's."""
        self._started = True
        early, self._early = self._early, []
        self._take([row.delivery for row in early if not row.lost])

    def stop(self) -> None:
        """Run nothing more that was not begun, and leave it to another worker."""
        self._stopped = True
        for decoding in self._decodings.values():
            decoding.close()
        self._give_back(self._waiting())

    def pause(self, trigger: str) -> None:
        """Its rows are left to be pushed later; what has begun goes on."""
        self._paused.add(trigger)
        self._give_back([row for row in self._waiting() if row.delivery.trigger == trigger], NOT_HERE)

    def resume(self, trigger: str) -> None:
        self._paused.discard(trigger)

    def settled(self, row: _Row, outcome: Outcome) -> None:
        if isinstance(outcome, Again):
            self._end(row, "later")
            self._give_back_behind(row)
        elif isinstance(outcome, Rejected):
            self._end(row, "dead")
            if self._triggers[row.delivery.trigger].route.park:
                self._give_back_behind(row)
        else:
            self._end(row, "done")
            self._remember(row)

    def _begin(self, pushed: Pushed, trigger: LoadedTrigger, push: _Push) -> _Row:
        row = _Row(self, pushed, trigger)
        row.asked.append((push, pushed.sequence))
        self._under_way[row.name] = row
        return row

    def _remember(self, row: _Row) -> None:
        position = row.delivery.position
        if isinstance(position, At) and position.stream.startswith(INBOX):
            self._done[row.name] = None
            if len(self._done) > REMEMBER:
                self._done.popitem(last=False)

    def _give_back_behind(self, row: _Row) -> None:
        """None of them has begun: their lane is the row's until it is settled."""
        while (behind := row.behind) is not None:
            row = behind
            if self._under_way.get(row.name) is row:  # it may have been given back before, and pushed again
                row.lost = True
                self._end(row, "behind")

    def _waiting(self) -> list[_Row]:
        return [row for row in self._under_way.values() if not row.delivery.invocation]

    def _give_back(self, rows: Sequence[_Row], after: float = 0.0) -> None:
        for row in rows:
            row.lost = True
            self._end(row, "lost", after)

    def _end(self, row: _Row, outcome: _Word, after: float = 0.0) -> None:
        self._under_way.pop(row.name, None)
        for push, sequence in row.asked:
            push.tell(sequence, outcome, after)


_Word = Literal["done", "later", "dead", "lost", "behind"]


class _Row:
    """The source of one delivery. What a run does counts even if the gateway goes away: the marks will tell."""

    __slots__ = ("_of", "asked", "behind", "delivery", "lost", "name", "raw", "trigger")

    def __init__(self, of: PushSource, pushed: Pushed, trigger: LoadedTrigger) -> None:
        self._of = of
        self.trigger = trigger
        self.raw = pushed.raw
        """Its data is to be decoded."""
        # Without a position it cannot be told from others.
        self.name = object() if pushed.position is None else (pushed.trigger, pushed.position)
        self.asked: list[tuple[_Push, int]] = []
        self.lost = False
        """Given back: what still runs of it here counts no more."""
        self.behind: _Row | None = None
        """The next one of its trigger and key that came with it."""
        self.delivery = _delivery(pushed, trigger, self)

    def follow(self, before: _Row | None) -> _Row:
        """`before` came before it in one push."""
        mine = self.delivery
        if before is not None and mine.key is not None and before is not self:
            its = before.delivery
            if its.key == mine.key and its.trigger == mine.trigger:
                before.behind = self
        return self

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:  # noqa: ARG002 - the port's
        self._of.settled(self, outcome)

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        return not self.lost


class _Push:
    """One request: what is told within one turn of the loop goes out together."""

    def __init__(self, asker: Asker, rows: int) -> None:
        self._asker = asker
        self._left = rows
        self._told: list[Told] = []
        self._loop = asyncio.get_running_loop()
        if not rows:
            self._loop.call_soon(self._send)

    def tell(self, sequence: int, outcome: _Word, after: float = 0.0) -> None:
        if not self._told:
            self._loop.call_soon(self._send)
        self._told.append(Told(sequence, outcome, after))

    def _send(self) -> None:
        told, self._told = self._told, []
        self._left -= len(told)
        self._asker.tell(told, last=not self._left)


def _delivery(row: Pushed, trigger: LoadedTrigger, source: _Row) -> Delivery:
    event, request, problem = row.event, None, None
    try:
        if trigger.spec.http is not None:
            event, request = http_async.restored(event)
    except Unreadable as unreadable:
        problem = str(unreadable)
    if row.key is None and trigger.spec.key_expression is not None:
        # A dead letter that had none was redriven: it cannot run, since state and order are per key.
        problem = problem or "no key: none was found when the event came; send it again, to have it read anew"
    if (output := next((value for name, value in event.headers if name == REFUSED_BY), None)) is not None:
        problem = f"it is what output {output.decode(errors='replace')} refused, and no event to be handled; discard it"
    return Delivery(
        row.trigger,
        row.key,
        event,
        row.position,
        source,
        row.attempts,
        request=request,
        problem=problem,
        pushed=True,
    )
