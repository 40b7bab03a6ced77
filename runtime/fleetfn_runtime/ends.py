"""How runs end: settled, held until their next attempt, buried, or left to whoever owns them now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from fleetfn.errors import RecordError
from fleetfn.invocation import Again, Done, Failure, Outcome, Rejected, Result
from fleetfn.position import Named
from fleetfn.store import Record

from fleetfn_runtime import duplicates
from fleetfn_runtime.breaker import alike_of
from fleetfn_runtime.burial import Burial
from fleetfn_runtime.invoker import NoNotes, Notes
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import BACKOFF
from fleetfn_runtime.records import RecordCache
from fleetfn_runtime.runs import Final, Run
from fleetfn_runtime.tasks import Tasks

log = logging.getLogger("fleetfn.road")

BLOCKED = "state"
"""Reason of an Again whose key waits until somebody mends its record: it cannot be read, or does not decode."""

BLOCKED_FOR = 60.0
"""Seconds between looks at such a lane. A revision that can decode the state ends the waiting, too."""

HERE = 2.0
"""Seconds that a lane waits by itself at most. For longer ones its event is offered to the inbox."""

LATER = BACKOFF[1]
"""Seconds after which a caller may come again who met an outage."""

_DONE = Done()


class Gates(Protocol):
    """What ends need of the breakers."""

    def failed(self, run: Run, outcome: Again) -> bool: ...

    def hold(self, run: Run) -> None: ...

    def ended(self, run: Run) -> None: ...


class Ends:
    """`changed` is called whenever a lane may have become ready."""

    def __init__(
        self,
        *,
        lanes: Lanes[Run],
        cache: RecordCache,
        burial: Burial,
        meter: Meter,
        tasks: Tasks,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.last_error = ""
        self.last_error_time: float | None = None
        self.out = 0
        """Runs taken from the lanes and not ended."""
        self.solo: Run | None = None
        """The suspect that runs alone."""
        self.blocked: dict[Run, str] = {}
        """Runs held for the sake of their record, and why."""
        self.stopping = False
        self.notes: Notes = NoNotes()
        self.gates: Gates
        """The triggers' breakers; set by the road."""
        self.later: Callable[[Run, float], None] = self.hold
        """Has the inbox keep a run for so many seconds."""
        self._lanes = lanes
        self._cache = cache
        self._burial = burial
        self._meter = meter
        self._tasks = tasks
        self._changed = changed
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def done(self, run: Run) -> None:
        links = run.links()
        when = links[-1].delivery.event.time
        # One age per chain: reading a time costs as much as a short handler.
        age = None if when is None else self._clock() - when.timestamp()
        self._meter.done(run.delivery.trigger, [link.took for link in links], age)
        for link in links:
            delivery = link.delivery
            outcome = link.result.outcome if link.result is not None else _DONE
            if link.asked is not None:
                self._tell(link, outcome)
            elif (source := delivery.source).owns(delivery):
                source.settle(delivery, outcome)
        self._finish(run)

    def duplicate(self, run: Run, record: Record) -> None:
        trigger, position = run.delivery.trigger, run.delivery.position
        self._meter.duplicate(trigger)
        if isinstance(position, Named):
            self.settle(run, Done(duplicates.reply(record.marks.reply(trigger, position))))
        else:
            self.settle(run, _DONE)

    def failed(self, run: Run, outcome: Outcome) -> None:
        if isinstance(outcome, Again):
            self._again(run, outcome)
        elif isinstance(outcome, Rejected):
            self.give_up(run, outcome)

    def _again(self, run: Run, outcome: Again) -> None:
        """Hold the lane until the next attempt, or give up after the last."""
        delivery, policy = run.delivery, run.route.policy
        self.note(run, outcome)
        self._meter.retried(delivery.trigger)
        if run.waits:
            self.gates.failed(run, outcome)
            self.settle(run, outcome)
        elif outcome.reason == BLOCKED and not outcome.counted:
            self.blocked[run] = _what(outcome)
            self.hold(run, BLOCKED_FOR)
        elif self.gates.failed(run, outcome):
            self.gates.hold(run)
        else:
            delivery.attempts += outcome.counted
            if delivery.attempts >= policy.attempts:
                reason = "timeout" if outcome.timed_out else "attempts"
                self._give_up_later(run, Final(reason, _what(outcome), outcome.failure), outcome)
            else:
                self.wait(run, policy.delay(outcome, delivery.attempts))

    def _give_up_later(self, run: Run, final: Final, outcome: Again) -> None:
        """Not before the breaker had time to see what others meet."""
        breaker = run.route.breaker
        if breaker is None or alike_of(outcome) is None:
            self.bury(run, *final)
        else:
            run.final = final
            run.odd = True
            self.hold(run, breaker.window)

    def wait(self, run: Run, delay: float) -> None:
        """Until the next attempt: not here, where it is long."""
        run.result = None
        run.due = None
        if delay > HERE and run.delivery.position is not None:
            self.later(run, delay)
        else:
            self.hold(run, delay)

    def hold(self, run: Run, delay: float) -> None:
        """The lane waits by itself."""
        run.result = None
        if self.stopping:
            self.keep_attempts(run)
            self.leave(run)
            return
        self._lanes.hold(run, self._loop.time() + delay)
        self.off(run)

    def give_up(self, run: Run, outcome: Rejected) -> None:
        self._meter.rejected(run.delivery.trigger)
        self.note(run, outcome)
        if run.waits:
            self.settle(run, outcome)
            return
        run.delivery.attempts += run.delivery.problem is None
        reason = {400: "unreadable", 500: "output refused"}.get(outcome.status, "rejected")
        self.bury(run, reason, outcome.reason, outcome.failure)

    def bury(self, run: Run, reason: str, detail: str, failure: Failure | None) -> None:
        async def bury() -> None:
            key, route = run.delivery.key, run.route
            park = route.park and key is not None
            if await self._burial.event(run.delivery, reason, detail, failure, park=park):
                if park and key is not None:
                    route.held.add(key)
                self.settle(run, Rejected(detail, failure))
            else:
                self.leave(run)

        self._tasks.spawn(bury())

    def settle(self, run: Run, outcome: Outcome) -> None:
        self._tell(run, outcome)
        self._finish(run)

    def _tell(self, run: Run, outcome: Outcome) -> None:
        """Tell whoever is to know what came of it."""
        delivery = run.delivery
        if run.asked is not None:
            if not run.asked.done():
                result = run.result or Result(outcome)
                run.asked.set_result(Result(outcome, result.value, result.emits))
        elif delivery.source.owns(delivery):
            delivery.source.settle(delivery, outcome)

    def leave(self, run: Run) -> None:
        """Somebody else will get it, or has: nothing is settled."""
        for link in run.links():
            self.forget(link)
        if run.asked is not None and not run.asked.done():
            run.asked.set_result(Result(Again(counted=False, reason="the worker is stopping")))
        self._finish(run)

    def turn_away(self, run: Run) -> None:
        """It has not begun and will not, here: who waits is told to come again."""
        outcome = Again(after=1.0, counted=False, reason="the worker is being replaced")
        if run.waits:
            self._tell(run, outcome)

    def stuck(self, run: Run, outcome: Again) -> None:
        """Its handler does not end: who waits is told so, and nothing else happens to it here."""
        self.note(run.at, outcome)
        if run.waits:
            self._tell(run, outcome)
        self.off(run)

    def _finish(self, run: Run) -> None:
        if self.blocked:
            self.blocked.pop(run, None)
        self._lanes.finish(run)
        self.off(run)

    def off(self, run: Run) -> None:
        """It is out no more: ended, or held in its lane."""
        run.route.out -= 1
        self.out -= 1
        if run.odd:
            if self.solo is run:
                self.solo = None
            self.gates.ended(run)
        self._changed()

    def put_back(self, run: Run, place: int, keep: Run | None = None) -> None:
        """Links from `place` on wait in the lane again. Their results count no more, but for that of `keep`."""
        if not run.more:
            return
        back, run.more = run.more[place:], run.more[:place]
        for link in back:
            if link is not keep:
                link.result = None
                link.delivery.invocation = ""  # it has not begun, or as if it had not
            else:
                link.odd = True
        self._lanes.put_back(run, back)

    def all_ours(self, run: Run) -> bool:
        for link in run.links():
            delivery = link.delivery
            if not delivery.source.owns(delivery):
                return False
        return True

    def still_ours(self, run: Run) -> bool:
        if run.asked is not None or self.all_ours(run):
            return True
        self.drop_lost(run)
        return False

    def drop_lost(self, run: Run) -> None:
        """Drop the links that somebody else owns by now; those still owned wait in the lane again, and run anew."""
        lost = [link for link in run.links() if not link.delivery.source.owns(link.delivery)]
        kept = [link for link in run.links() if link not in lost]
        for link in kept:
            link.result = None
        self._lanes.put_back(run, kept)
        self.forget(run)
        run.more = lost[1:]  # so that as many are finished as are lost
        self._finish(run)

    def staying(self, runs: list[Run], why: str) -> list[Run]:
        """Who waits is told to come again. While stopping, the next worker goes on with the others."""
        staying: list[Run] = []
        for run in runs:
            if run.waits:
                self.forget(run)
                self.settle(run, Again(after=LATER, reason=why, counted=False))
            elif self.stopping:
                self.leave(run)
            else:
                staying.append(run)
        return staying

    def without_key(self, runs: list[Run], error: RecordError) -> list[Run]:
        """Hold the lanes of a key whose record is the trouble; the others go on."""
        staying: list[Run] = []
        for run in runs:
            if run.delivery.key != error.key:
                staying.append(run)
                continue
            self.forget(run)
            self.put_back(run, 0)
            failure = Failure("RecordError", error.message)
            self.failed(run, Again(reason=BLOCKED, failure=failure, counted=False))
        return staying

    def forget(self, run: Run) -> None:
        if run.key is not None:
            self._cache.drop(run.key)

    def keep_attempts(self, run: Run) -> None:
        """An event that waits for its next attempt keeps count of those it had: the next worker reads the ledger.

        One that waits for its burial has another attempt there.
        """
        delivery = run.delivery
        attempts = delivery.attempts - (run.final is not None)
        if not run.waits and attempts > 0 and delivery.position is not None:
            self.notes.begin(delivery.trigger, delivery.position, attempts)

    def apart(self, run: Run) -> None:
        """It was in a batch that failed as a whole: it and what it took along run again at once, each alone."""
        for link in run.links():
            link.chains = False
        run.reset()
        self.put_back(run, 0)
        self.hold(run, 0.0)

    def note(self, run: Run, outcome: Again | Rejected) -> None:
        ending = "to be tried again" if isinstance(outcome, Again) else "rejected"
        self._note(run, outcome, f"{ending}, attempt {run.delivery.attempts + 1}", run.delivery.key)

    def note_batch(self, run: Run, outcome: Again, events: int) -> None:
        """`run`: the first one of a batch of so many events that failed as a whole."""
        self._note(run, outcome, f"a batch of {events} failed, each of its events runs again alone", None)

    def _note(self, run: Run, outcome: Again | Rejected, ending: str, key: str | None) -> None:
        failure, what = outcome.failure, _what(outcome)
        self.last_error = f"{what} ({failure.place})" if failure is not None and failure.place else what
        self.last_error_time = self._clock()
        log.warning(
            "%s: %s",
            ending,
            self.last_error,
            extra={
                "trigger": run.delivery.trigger,
                "key": key,
                "invocation": run.delivery.invocation,
                "traceback": failure.traceback if failure is not None else "",
            },
        )


def _what(outcome: Again | Rejected) -> str:
    """In one line for people: the exception, or the handler's words."""
    failure = outcome.failure
    return f"{failure.type}: {failure.message}" if failure is not None else outcome.reason
