"""What waits at the inbox instead of in its lane: events to be tried again later, and those of their keys behind them.

A key of a trigger is *held* from when one of its pulled events may wait in the inbox (it was offered there, its dead
letter parks its lane, or the inbox says so of claimed partitions) until the inbox answers `free`. The key's later
pulled events go aside as they reach the head of their lane, and are offered in order; everything else of the key runs
as ever, since the lane does not wait for them.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from fleetfn.errors import StoreError
from fleetfn.invocation import Again
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Answer, Claim, Claimed, Inbox, Offer

from fleetfn_runtime.ends import Ends
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.outages import BACKOFF, Outages
from fleetfn_runtime.runs import Route, Run
from fleetfn_runtime.tasks import Tasks

log = logging.getLogger("fleetfn.road")

CHUNK = 256
"""Events of one key in one offer."""

_QUEUED = Again(reason="it waits in the inbox", counted=False)


@runtime_checkable
class Claimant(Protocol):
    """A source of deliveries that have an epoch."""

    def stale(self) -> None:
        """The inbox knows of a later claim than this one."""
        ...


class Holds:
    """`changed` is called when a lane may have become ready."""

    def __init__(
        self,
        *,
        function: str,
        inbox: Inbox,
        lanes: Lanes[Run],
        ends: Ends,
        outages: Outages,
        tasks: Tasks,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.problem = ""
        """Why the inbox does not take what is to wait there, since when; '' where it does, as far as is known."""
        self._function = function
        self._inbox = inbox
        self._lanes = lanes
        self._ends = ends
        self._outages = outages
        self._tasks = tasks
        self._changed = changed
        self._clock = clock
        self._aside: dict[tuple[Route, str], deque[Run]] = {}
        self._pause = BACKOFF[0]
        """Seconds until the next try, where the inbox did not answer."""
        self._claims = 0
        """Claims begun or answered: what the inbox said of a key before may have been overtaken."""
        self._claiming = 0

    def __len__(self) -> int:
        """Events that are aside."""
        return sum(map(len, self._aside.values()))

    async def claim(self, route: Route, stream: str, partitions: dict[int, int | None]) -> Claimed:
        """Become the owner of partitions, by their committed offsets. Raises StoreError."""
        self._claims += 1
        self._claiming += 1
        try:
            claim = Claim(function=self._function, trigger=route.trigger, stream=stream, partitions=partitions)
            claimed = await self._inbox.claim(claim)
            route.held |= claimed.held
        finally:
            self._claiming -= 1
            self._claims += 1
        return claimed

    async def passed(self, route: Route, stream: str, offsets: dict[int, int]) -> None:
        """These offsets are committed. Raises StoreError."""
        await self._inbox.passed(self._function, route.trigger, stream, offsets)

    # To be tried again later

    def later(self, run: Run, delay: float) -> None:
        """Have the inbox keep a run, which is out, for so many seconds; its lane waits until it answers."""
        run.due = self._clock() + delay
        run.odd = True
        run.route.out -= 1  # it takes nobody's place meanwhile
        self._tasks.spawn(self._keep(run, run.due))

    async def _keep(self, run: Run, due: float) -> None:
        delivery, held = run.delivery, run.route.held
        if not _owned(run):
            run.route.out += 1
            self._ends.leave(run)
            return
        answers = await self._ask([run], due)
        answer = answers[0] if answers is not None else None
        run.route.out += 1
        if delivery.epoch and delivery.key is not None and answer != "free":
            held.add(delivery.key)  # without an answer, too: it may have been taken all the same
        if answer == "queued" or (answer == "stale" and not delivery.epoch):
            self._ends.settle(run, _QUEUED)
        elif answer == "stale":
            self._ends.leave(run)
        elif answer == "free":  # an inbox that delivers nothing
            run.due = None
            self._ends.hold(run, due - self._clock())
        else:
            self._ends.hold(run, min(self._pause, due - self._clock()))

    # Behind what waits

    def sift(self, route: Route, runs: list[Run]) -> list[Run]:
        """Those of `runs`, just taken from their lanes, that may run now. The others go aside."""
        staying: list[Run] = []
        for run in runs:
            key = run.delivery.key
            if key is None or key not in route.held:
                staying.append(run)
            elif not _asks(run):
                self._ends.put_back(run, 0)
                staying.append(run)
            else:
                self._lanes.take_behind(run)
                self._put_aside(route, key, run)
        return staying

    def sweep(self, lost: Callable[[Run], bool]) -> None:
        """Drop what is aside and for which `lost` says so."""
        for aside in self._aside.values():
            _drop(aside, lost)

    def _put_aside(self, route: Route, key: str, run: Run) -> None:
        asks = list(itertools.takewhile(_asks, run.links()))
        self._ends.put_back(run, len(asks) - 1)
        self._lanes.finish(run)
        run.more = ()
        self._ends.off(run)
        aside = self._aside.get((route, key))
        if aside is None:
            self._aside[route, key] = aside = deque()
            self._tasks.spawn(self._offer(route, key, aside))
        aside.extend(asks)

    async def _offer(self, route: Route, key: str, aside: deque[Run]) -> None:
        """Until the inbox has all that is aside of a key, or says that none of it has to wait."""
        while aside and not self._outages.stopping.is_set():
            claims = self._claims
            asked = [run for run in itertools.islice(aside, CHUNK) if _owned(run)]
            if not asked:
                _drop(aside, lambda run: not _owned(run))
                continue
            answers = await self._ask(asked, None)
            if answers is None:
                await self._outages.rest(self._pause)
                continue
            free: list[Run] = []
            _drop(aside, lambda run: not _owned(run))
            for run, answer in zip(asked, answers, strict=True):
                if not aside or aside[0] is not run:
                    continue  # lost meanwhile
                aside.popleft()
                if answer == "free":
                    free.append(run)
                elif answer == "queued":
                    run.delivery.source.settle(run.delivery, _QUEUED)
            if not free:
                continue
            if self._claiming or claims != self._claims:
                # What a claim has told of the key since may be newer than `free`.
                aside.extendleft(reversed(free))
                await self._outages.rest(BACKOFF[0])
                continue
            route.held.discard(key)
            first = [*free, *aside]
            aside.clear()
            self._lanes.put_first(first)
            self._changed()
        del self._aside[route, key]

    async def _ask(self, runs: Sequence[Run], due: float | None) -> list[Answer] | None:
        """None: the inbox did not answer, or takes no more."""
        offers = [_as_offer(self._function, run.delivery, due) for run in runs]
        try:
            answers = await self._inbox.offer(offers)
        except StoreError as error:
            if not self.problem:
                since = time.strftime("%H:%M:%S", time.gmtime())
                self.problem = f"keys wait here since {since} UTC, as the inbox takes no events: {error}"
                log.warning("%s", self.problem)
            self._pause = min(self._pause * 2, BACKOFF[1])
            return None
        if self.problem:
            self.problem = ""
            log.info("the inbox takes events again")
        self._pause = BACKOFF[0]
        if "stale" in answers:
            self._left(runs[answers.index("stale")])
        return answers

    def _left(self, run: Run) -> None:
        """Its partition has another owner, as far as the inbox knows."""
        delivery = run.delivery
        log.info("events of trigger %s, key %s, are left to their partition's owner", delivery.trigger, delivery.key)
        if isinstance(delivery.source, Claimant):
            delivery.source.stale()


def _owned(run: Run) -> bool:
    """Of a partition that is gone nothing may be offered: what came before it here was dropped, and comes again."""
    return run.delivery.source.owns(run.delivery)


def _drop(aside: deque[Run], lost: Callable[[Run], bool]) -> None:
    if any(map(lost, aside)):
        staying = [run for run in aside if not lost(run)]
        aside.clear()
        aside.extend(staying)


def _asks(run: Run) -> bool:
    """Its turn is the inbox' to tell: it was pulled, and is to be run (not on a turn that it was given already)."""
    delivery = run.delivery
    return bool(
        delivery.epoch
        and delivery.problem is None
        and run.result is None
        and run.due is None
        and run.final is None
        and not run.killed_too_often
        and _owned(run)
    )


def _as_offer(function: str, delivery: Delivery, due: float | None) -> Offer:
    return Offer(
        function=function,
        trigger=delivery.trigger,
        key=delivery.key,
        event=delivery.event,
        position=delivery.position,
        attempts=delivery.attempts,
        due=due,
        epoch=delivery.epoch,
    )
