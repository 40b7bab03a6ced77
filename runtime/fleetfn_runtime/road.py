"""The road of a delivery: lane, load, invoke, save, publish, settle. For many keys at once, a stage at a time.

What is promised: at least once, always; state exactly as if once; order per source and key. So
- an event that a record's marks have is settled without running;
- state, marks and unsent emits are one conditional write; who loses it loads again and runs again;
- emits leave after the save and before settling; what was saved and not sent leaves before the key's next run;
- an event that will not be tried again is settled once its dead letter is safe.
What belongs to somebody else by now (`Source.owns`) is dropped at the next stage: the source delivers it again there.

An outage of the store or an output is no attempt: pull sources are paused, what runs is kept and tried again, callers
who wait get Again. An event that is to be tried again soon stays head of its lane: its key waits, others go on. One
that has to wait longer goes to the inbox, and later pulled events of its key with it: see holds.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleetfn.invocation import Again, Result
from fleetfn.position import Position
from fleetfn.store import Store
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Claimed, Inbox

from fleetfn_runtime.burial import Burial
from fleetfn_runtime.ends import Ends
from fleetfn_runtime.gates import Gates
from fleetfn_runtime.gathering import Gathering
from fleetfn_runtime.holds import Holds
from fleetfn_runtime.invoker import Notes
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import Outages, Pausable
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.publishing import Publishing
from fleetfn_runtime.records import NoRecords, RecordCache
from fleetfn_runtime.runs import Route, Run
from fleetfn_runtime.stages import Stages
from fleetfn_runtime.tasks import Tasks
from fleetfn_runtime.unsent import Unsent

WINDOW = 1024
"""Runs of one trigger between lane and settling: enough to fill a group commit while the next one runs."""


class Road:
    """Used on one loop. `replace(why)` is called when this process can no longer run all its keys."""

    def __init__(
        self,
        *,
        function: str,
        revision: str,
        routes: Sequence[Route],
        store: Store,
        inbox: Inbox,
        publisher: Publisher,
        meter: Meter,
        replace: Callable[[str], None],
        ttl: float | None = None,
        concurrency: int = 64,
        breakers: Path | None = None,
        alone: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`breakers`: the file that keeps which of them are open."""
        self.last_taken = time.monotonic()
        self._routes = {route.trigger: route for route in routes}
        self._turns = deque(routes)
        self._replace = replace
        self._loop = asyncio.get_running_loop()
        self._lanes: Lanes[Run] = Lanes(kinds=len(routes))
        self._gathering = Gathering(routes, self._lanes, self._loop.time)
        self._outages = outages = Outages()
        self._tasks = tasks = Tasks(lambda error: replace(f"a defect: {type(error).__name__}: {error}"))
        self._cache = cache = RecordCache() if alone else NoRecords()
        burial = Burial(function, revision, inbox=inbox, outages=outages, meter=meter, clock=clock)
        self._ends = ends = Ends(
            lanes=self._lanes, cache=cache, burial=burial, meter=meter, tasks=tasks, changed=self._soon, clock=clock
        )
        self._holds = Holds(
            function=function,
            inbox=inbox,
            lanes=self._lanes,
            ends=ends,
            outages=outages,
            tasks=tasks,
            changed=self._soon,
            clock=clock,
        )
        ends.later = self._holds.later
        ends.gates = self._gates = gates = Gates(
            routes=routes, lanes=self._lanes, ends=ends, meter=meter, changed=self._soon, file=breakers, clock=clock
        )
        self._unsent = unsent = Unsent(
            trigger=routes[0].trigger,
            store=store,
            publisher=publisher,
            lanes=self._lanes,
            cache=cache,
            outages=outages,
            burial=burial,
            meter=meter,
            tasks=tasks,
            released=self._soon,
        )
        self._stages = Stages(
            function=function,
            store=store,
            publisher=publisher,
            cache=cache,
            ends=ends,
            gates=gates,
            unsent=unsent,
            publishing=Publishing(publisher=publisher, ends=ends, unsent=unsent, burial=burial, outages=outages),
            outages=outages,
            meter=meter,
            tasks=tasks,
            batches=bool(self._gathering),
            stuck=self._stick,
            ttl=ttl,
            concurrency=concurrency,
            clock=clock,
        )
        self._suspects: dict[tuple[str, Position], int] = {}
        self._suspected = False
        self._alone: deque[Run] = deque()
        self._stuck: dict[Run, str | None] = {}
        self._pumping = False
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = 0.0
        """Kept here: for a time that is about now, uvloop gives a handle that does not know it."""
        self._quiet: list[asyncio.Future[None]] = []

    # In and out

    def own(self, notes: Notes, suspects: Mapping[tuple[str, Position], int], *, patience: float = 0.0) -> None:
        """From now on this worker owns the sources. `suspects`: what was under way when the one before it died, and
        how often it was begun; each runs alone first. `patience`: as in `sweep`.
        """
        self._ends.notes = self._stages.invoker.notes = notes
        self._cache.clear()  # it may have written while this one got ready
        self._suspects = dict(suspects)
        self.sweep(patience)

    def inherit(self, suspects: Mapping[tuple[str, Position], int]) -> None:
        """Another worker has died, which had these under way, and some of them may come to this one."""
        for what, begun in suspects.items():
            self._suspects[what] = max(begun, self._suspects.get(what, 0))

    def sweep(self, patience: float) -> None:
        """Publish, in the background, what a worker that is gone saved and did not send. Where others work beside this
        one, they may be about to send it themselves: only what stays as it is for `patience` seconds is nobody's.
        """
        self._unsent.sweep(patience)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Run them, each in the lane of its key. While stopping, what nobody waits for is left to the next worker."""
        self.last_taken = time.monotonic()
        routes = self._routes
        odd = self._ends.stopping or self._stuck or self._suspects or self._gathering
        put = self._put if odd else self._lanes.put
        for delivery in deliveries:
            put(Run(delivery, routes[delivery.trigger]))
        self._soon()

    async def run_once(self, delivery: Delivery) -> Result:
        """Run it in its lane, with state and emits, but for one attempt only; the source is not told."""
        run = Run(delivery, self._routes[delivery.trigger])
        run.waits = True
        run.chains = False
        run.asked = self._loop.create_future()
        self.last_taken = time.monotonic()
        self._put(run)
        self._soon()
        return await run.asked

    async def claim(self, trigger: str, stream: str, partitions: dict[int, int | None]) -> Claimed:
        """A source has gained partitions (by their committed offsets, where it knows them): what it hands over of them
        bears the epochs that this answers. Raises StoreError.
        """
        return await self._holds.claim(self._routes[trigger], stream, partitions)

    async def passed(self, trigger: str, stream: str, offsets: dict[int, int]) -> None:
        """A source has committed offsets of partitions from which something went to the inbox. Raises StoreError."""
        await self._holds.passed(self._routes[trigger], stream, offsets)

    def watch(self, source: Pausable) -> None:
        """Pause this pull source while the store or an output is down."""
        self._outages.watch(source)
        self._gates.watch(source)

    def refuses(self, trigger: str) -> float | None:
        """Seconds after which a pushed event of the trigger may be pushed again: its breaker is open. None: take it."""
        return self._gates.refuses(trigger)

    @property
    def last_error(self) -> str:
        return self._ends.last_error

    @property
    def last_error_time(self) -> float | None:
        return self._ends.last_error_time

    @property
    def in_flight(self) -> int:
        """Deliveries taken and not settled: waiting, running or held."""
        return len(self._lanes) + len(self._holds)

    def gathering(self, trigger: str) -> int:
        """Deliveries of a trigger that wait for others to make a batch with."""
        return self._gathering.waiting(trigger)

    def problems(self) -> tuple[tuple[str, str], ...]:
        problems = [*self._outages.problems(), *self._gates.problems()]
        if self._holds.problem:
            problems.append(("inbox", self._holds.problem))
        if self._ends.blocked:
            run, why = next(iter(self._ends.blocked.items()))
            problems.append((run.delivery.trigger, f"{len(self._ends.blocked)} keys wait: {why}"))
        return tuple(problems)

    def forget_lost(self) -> None:
        """Drop what waits here and belongs to somebody else by now. A source calls it when it lost partitions."""

        def lost(run: Run) -> bool:
            return not run.delivery.source.owns(run.delivery)

        for run in self._lanes.sweep(lost):
            self._ends.forget(run)
            self._gathering.forget(run)
        self._holds.sweep(lost)
        self._soon()

    # Stopping

    def stop(self) -> None:
        """Begin nothing more that nobody waits for. What was taken and not begun is left to the next worker."""
        if self._ends.stopping:
            return
        self._ends.stopping = True
        self._outages.stopping.set()
        for run in self._lanes.held():
            self._ends.keep_attempts(run)
        stuck = set(self._stuck.values()) - {None}
        for run in self._lanes.sweep(lambda run: not run.waits or run.key in stuck):
            self._ends.turn_away(run)
        for run in (*self._stages.invoker.take_back(), *self._alone):
            self._ends.leave(run)
        self._alone.clear()
        self._soon()

    async def quiet(self) -> None:
        """Until nothing runs and nobody waits."""
        if not self._is_quiet():
            done: asyncio.Future[None] = self._loop.create_future()
            self._quiet.append(done)
            self._soon()
            await done

    async def close(self) -> None:
        """Clear what was published and end. What still runs is abandoned."""
        self._outages.stopping.set()
        self._stages.invoker.close()
        self._gates.close()
        self._outages.close()
        if self._alarm is not None:
            self._alarm.cancel()
        await self._unsent.close()
        await self._tasks.close()

    def _is_quiet(self) -> bool:
        return not self._ends.out and len(self._lanes) <= sum(len(run.links()) for run in self._stuck)

    # Lanes -> runs

    def _put(self, run: Run) -> None:
        if self._ends.stopping and not run.waits:
            return
        if self._stuck and run.key is not None and run.key in self._stuck.values():
            self._ends.turn_away(run)
            return
        if self._suspects and not run.waits:
            self._suspect(run)
        self._lanes.put(run)
        self._gathering.came(run)

    def _suspect(self, run: Run) -> None:
        delivery = run.delivery
        begun = self._suspects.pop((delivery.trigger, delivery.position), None)
        if begun is not None:
            run.suspect = run.odd = self._suspected = True
            run.chains = False
            delivery.attempts = max(delivery.attempts, begun)

    def _soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if (now := self._loop.time()) >= self._gates.look_at:
            self._gates.look(now)
        if self._alone:
            if self._ends.out == len(self._alone):
                self._ends.solo = run = self._alone.popleft()
                self._stages.go(run.route, [run])
        elif self._ends.solo is None:
            for route in self._turns:
                room = WINDOW - route.out
                if route.batch is not None:
                    runs = self._gathering.take(route, room + route.batch.size)
                else:
                    runs = self._lanes.take(room, route.kind, route.chain)
                if runs:
                    self._begin(route, runs)
            self._turns.rotate()
        self._set_alarm()
        if self._quiet and self._is_quiet():
            for waiting in self._quiet:
                waiting.set_result(None)
            self._quiet.clear()

    def _begin(self, route: Route, runs: list[Run]) -> None:
        route.out += len(runs)
        self._ends.out += len(runs)
        if route.held:
            runs = self._holds.sift(route, runs)
        if route.gated and not self._ends.stopping:
            runs = self._gates.sift(route, runs)
        self._stages.go(route, self._sorted_out(runs))

    def _sorted_out(self, runs: list[Run]) -> list[Run]:
        """Without suspects, which run alone, and, while stopping, without what nobody waits for."""
        if self._ends.stopping:
            for run in runs:
                if not run.waits:
                    self._ends.leave(run)
            return [run for run in runs if run.waits]
        if not self._suspected:
            return runs
        self._alone.extend(run for run in runs if run.suspect)
        self._soon()
        return [run for run in runs if not run.suspect]

    def _set_alarm(self) -> None:
        due = self._lanes.next_due()
        if self._alarm is not None:
            if due is not None and self._alarm_at <= due:
                return
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._alarm_at = due
            self._alarm = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._lanes.wake(self._loop.time())
        self._pump()

    def _stick(self, run: Run) -> None:
        """Its handler cannot be stopped: the lane stays held until another process has it."""
        outcome = Again(reason=f"it ran longer than its timeout of {run.route.timeout:g} s", timed_out=True)
        for each in (run,) if run.route.batch is None else run.party:
            self._stuck[each] = each.key
            self._ends.stuck(each, outcome)
        self._replace(f"a run of trigger {run.delivery.trigger} does not end: {outcome.reason}")
