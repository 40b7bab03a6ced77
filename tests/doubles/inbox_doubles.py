"""What tests of the road need around an inbox: a clock, bad luck between the two, and somebody who pushes its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from fleetfn.invocation import Again, Outcome, Rejected
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_runtime.road import Road
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Answer, Claim, Claimed, Letter, Offer, Row


class Clock:
    """Unix seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FarInbox:
    """An inbox some way off. `storm` is called before and after it does what is asked, and may raise."""

    def __init__(self, inbox: MemoryInbox, storm: Callable[[], None] = lambda: None) -> None:
        self.inbox = inbox
        self.storm = storm
        self.offered: list[list[Offer]] = []
        self.told: dict[int, int] = {}
        """What it was told to be committed, by partition."""

    async def put(self, arrivals: Sequence[object]) -> list[int]:
        raise NotImplementedError

    async def offer(self, offers: Sequence[Offer]) -> list[Answer]:
        await self._way()
        self.offered.append(list(offers))
        answers = await self.inbox.offer(offers)
        await self._way()
        return answers

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        await self._way()
        sequences = await self.inbox.bury(letters)
        await self._way()
        return sequences

    async def claim(self, claim: Claim) -> Claimed:
        await self._way()
        claimed = await self.inbox.claim(claim)
        await self._way()
        return claimed

    async def passed(self, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
        await self._way()
        self.told |= offsets
        await self.inbox.passed(function, trigger, stream, offsets)

    async def close(self) -> None: ...

    async def _way(self) -> None:
        await asyncio.sleep(0)
        self.storm()


class Pusher:
    """A gateway's dispatch: pushes what is ready to a road that `choose` says, one row of a lane at a time."""

    def __init__(self, inbox: MemoryInbox, choose: Callable[[], Road], function: str = "watch") -> None:
        self.pushed: list[Row] = []
        self._inbox = inbox
        self._choose = choose
        self._function = function
        self.tasks: set[asyncio.Task[None]] = set()

    async def push(self, triggers: Sequence[str] = ("telemetry",), *, lost: bool = False) -> int:
        """How many there were. `lost`: nobody hears of them again, and they are pushed again."""
        rows = await self._inbox.take(self._function, triggers, 100, 1 << 30)
        for row in rows:
            self.pushed.append(row)
            source = PushedRow(self, row)
            delivery = Delivery(row.trigger, row.key, row.event, row.position, source, row.attempts)
            self._choose().take([delivery])
            if lost:
                source.gone = True
                self._inbox.release(row.sequence)
        return len(rows)

    def told(self, row: Row, outcome: Outcome) -> None:
        if isinstance(outcome, Again | Rejected):
            self._inbox.release(row.sequence)
            return
        task = asyncio.ensure_future(self._done(row))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _done(self, row: Row) -> None:
        await self._inbox.done([row.sequence])


class PushedRow:
    """The source of one pushed row."""

    def __init__(self, pusher: Pusher, row: Row) -> None:
        self.gone = False
        self._pusher = pusher
        self._row = row

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:  # noqa: ARG002 - the port's
        assert not self.gone
        self._pusher.told(self._row, outcome)

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        return not self.gone
