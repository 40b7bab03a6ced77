"""The stages between a lane and the end of a run: load the record, invoke, save, publish."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fleetfn.errors import OutputRefused, RecordError, StoreError
from fleetfn.invocation import UNCHANGED, Call, Done, Outcome, Rejected
from fleetfn.position import At, Named
from fleetfn.store import Conflict, Loaded, Record, Store, Write

from fleetfn_runtime import duplicates
from fleetfn_runtime.batches import Batches
from fleetfn_runtime.ends import Ends
from fleetfn_runtime.gates import Gates
from fleetfn_runtime.invoker import Invoker
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import BACKOFF, Outages
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.publishing import Publishing
from fleetfn_runtime.records import RecordCache
from fleetfn_runtime.runs import CHAIN, Route, Run
from fleetfn_runtime.tasks import Tasks
from fleetfn_runtime.unsent import Unsent

log = logging.getLogger("fleetfn.road")

T = TypeVar("T")


class Stages:
    """`stuck` gets a run whose handler cannot be stopped. `batches`: some handler takes them."""

    def __init__(
        self,
        *,
        function: str,
        store: Store,
        publisher: Publisher,
        cache: RecordCache,
        ends: Ends,
        gates: Gates,
        unsent: Unsent,
        publishing: Publishing,
        outages: Outages,
        meter: Meter,
        tasks: Tasks,
        batches: bool,
        stuck: Callable[[Run], None],
        ttl: float | None = None,
        concurrency: int = 64,
        clock: Callable[[], float] = time.time,
    ) -> None:
        back = self._returned
        if batches:
            back = Batches(
                outcome=self._outcome, ends=ends, meter=meter, again=self._run_again, returned=self._returned
            ).returned
        self.invoker = Invoker(returned=back, stuck=stuck, concurrency=concurrency)
        self._function = function
        self._store = store
        self._publisher = publisher
        self._cache = cache
        self._ends = ends
        self._gates = gates
        self._unsent = unsent
        self._publishing = publishing
        self._outages = outages
        self._tasks = tasks
        self._ttl = ttl
        self._clock = clock
        self._count = itertools.count(1)
        self._prefix = secrets.token_hex(4) + "-"

    # From lane to handler

    def go(self, route: Route, runs: list[Run]) -> None:
        """From the head of its lane to the handler, where the record is at hand."""
        ready: list[Run] = []
        cold: list[Run] = []
        cached = self._cache.get
        for run in runs:
            delivery = run.delivery
            if not delivery.source.owns(delivery) or (run.more and not self._ends.all_ours(run)):
                self._ends.drop_lost(run)
            elif run.odd:
                self._go_odd(run)
            elif route.stateful:
                loaded = cached(delivery.key or "")
                if loaded is None or loaded.record.unsent:
                    cold.append(run)
                elif self._on(run, loaded):
                    ready.append(run)
            elif route.reads:
                cold.append(run)
            else:
                self._call(run, None)
                ready.append(run)
        if ready:
            self.invoker.submit(route, ready)
        if cold:
            self._tasks.spawn(self._load(route, cold))

    def _go_odd(self, run: Run) -> None:
        delivery, route = run.delivery, run.route
        if delivery.problem is not None:
            self._ends.give_up(run, Rejected(delivery.problem, status=400))
        elif run.result is not None:
            self._returned([run])  # it ended a chain: the links before it are settled by now
        elif run.final is not None:
            self._ends.put_back(run, 0)
            self._ends.bury(run, *run.final)
        elif run.killed_too_often:
            attempts = delivery.attempts
            detail = f"{attempts} attempts: in the last one the worker died, or was replaced since the run did not end"
            self._ends.bury(run, "crashed", detail, None)
        elif run.due is not None and (left := run.due - self._clock()) > 0:
            self._ends.put_back(run, 0)
            self._ends.wait(run, left)
        elif (route.stateful or route.reads) and delivery.key is not None:
            self._tasks.spawn(self._load(route, [run]))
        else:
            self._call(run, None)
            self.invoker.submit(route, [run])

    def _on(self, run: Run, loaded: Loaded) -> bool:
        """Prepare to run on this record; False: its marks have the event already, and it is settled."""
        run.loaded = loaded
        delivery = run.delivery
        record = loaded.record
        if run.route.stateful and record.marks.taken(delivery.trigger, delivery.position):
            self._ends.put_back(run, 0)
            self._ends.duplicate(run, record)
            return False
        if run.more:
            self._keep_ascending(run)
        expired = record.expires is not None and record.expires <= self._clock()
        self._call(run, None if expired else record.value)
        return True

    def _keep_ascending(self, run: Run) -> None:
        """A chain's marks are those of its last link, so each must stand behind the one before it in one partition."""
        last = run.delivery.position
        for place, link in enumerate(run.more):
            at = link.delivery.position
            if not (
                isinstance(last, At)
                and isinstance(at, At)
                and at.offset > last.offset
                and at.partition == last.partition
                and at.stream == last.stream
            ):
                self._ends.put_back(run, place)
                return
            last = at

    def _call(self, run: Run, value: bytes | None) -> None:
        run.at = run
        prefix, count = self._prefix, self._count
        seed = f"{self._function}/{run.delivery.trigger}/"
        for link in run.links():
            delivery = link.delivery
            delivery.invocation = invocation = f"{prefix}{next(count)}"
            # Positional, since keywords cost more and this runs for each event.
            link.call = Call(
                delivery.event,
                delivery.trigger,
                delivery.key,
                delivery.attempts + 1,
                value,
                delivery.request,
                seed,
                invocation,
            )

    async def _load(self, route: Route, runs: list[Run]) -> None:
        """Load records that are not at hand, and publish first what they hold unsent."""
        known = await self._stored(runs, self._records)
        if known is None:
            return
        ready: list[Run] = []
        owing: list[Run] = []
        for run in runs:
            key = run.delivery.key or ""
            run.loaded = loaded = self._unsent.known(key, known[key]) if route.stateful else known[key]
            if route.stateful and loaded.record.unsent:
                run.owed = loaded.record.unsent
                owing.append(run)
                continue
            if route.stateful:
                self._cache.put(key, loaded)
            ready.append(run)
        self._run_loaded(route, ready)
        if owing:
            await self._publishing.publish(owing, lambda through: self._paid(route, through))

    async def _records(self, runs: list[Run]) -> dict[str, Loaded]:
        keys = list(dict.fromkeys(run.delivery.key or "" for run in runs))
        return dict(zip(keys, await self._store.load(keys), strict=True))

    def _paid(self, route: Route, runs: list[Run]) -> None:
        for run in runs:
            run.owed = ()
            run.loaded = self._unsent.sent(run.delivery.key or "", run.loaded)
        self._run_loaded(route, runs)

    def _run_again(self, run: Run) -> None:
        """On the record that it has, which nothing of it has changed."""
        if self._ends.still_ours(run):
            self._run_loaded(run.route, [run])

    def _run_loaded(self, route: Route, runs: list[Run]) -> None:
        ready = [run for run in runs if self._on(run, run.loaded)]
        if ready:
            self.invoker.submit(route, ready)

    # From handler to end

    def _returned(self, runs: list[Run]) -> None:
        saving: list[Run] = []
        publishing: list[Run] = []
        if self._gates.open:
            self._gates.returned(runs)
        for run in runs:
            outcome = self._outcome(run)
            if type(outcome) is not Done:
                self._ends.put_back(run, 0)
                self._ends.failed(run, outcome)
                continue
            if run.more:
                self._cut(run)
            run.gather()
            if run.route.stateful and self._must_save(run):
                saving.append(run)
            elif run.emits:
                run.owed = run.emits
                publishing.append(run)
            else:
                self._ends.done(run)
        if saving:
            self._tasks.spawn(self._save(saving))
        if publishing:
            self._tasks.spawn(self._publishing.publish(publishing, self._published))

    def _outcome(self, run: Run) -> Outcome:
        """The run's own; Rejected where it is done and has emits that can never be published."""
        result = run.result
        if result is None:
            raise RuntimeError(f"a run of {run.delivery.trigger} came back without a result")
        if result.emits and type(result.outcome) is Done:
            for emit in result.emits:
                try:
                    self._publisher.check(emit)
                except OutputRefused as error:
                    return Rejected(f"output refused: {error}", status=500)
                except Exception as error:
                    log.exception("an emit to %s cannot be checked; this is a defect", emit.output)
                    return Rejected(f"output refused: {type(error).__name__}: {error}", status=500)
        return result.outcome

    def _cut(self, run: Run) -> None:
        """End a chain before the first link that has not run or is not done."""
        route = run.route
        for place, link in enumerate(run.more):
            if link.result is None:
                route.chain = max(2, place + 1)
                self._ends.put_back(run, place)
                return
            if type(self._outcome(link)) is not Done:
                run.broke = link
                self._ends.put_back(run, place, keep=link)
                return
        if len(run.more) + 1 >= route.chain:
            route.chain = min(CHAIN, 2 * route.chain)

    def _must_save(self, run: Run) -> bool:
        """A run that changed nothing, emitted nothing and has no reply to remember may as well run again."""
        if run.emits or run.value is not UNCHANGED or type(run.delivery.position) is Named:
            return True
        # Yet reading keeps a record alive: its time to live counts from the last half of it.
        expires = run.loaded.record.expires
        return self._ttl is not None and expires is not None and expires - self._clock() < self._ttl / 2

    async def _save(self, runs: list[Run]) -> None:
        now = self._clock()
        runs = [run for run in runs if self._ends.still_ours(run)]
        for run in runs:
            run.write = self._write(run, now)
        results = await self._stored(runs, lambda left: self._store.save([run.write for run in left]))
        if results is None:
            return
        publishing: list[Run] = []
        again: list[Run] = []
        for run, saved in zip(runs, results, strict=True):
            write = run.write
            if isinstance(saved, Conflict):
                self._lost_the_etag(run)
                again.append(run)
                continue
            run.loaded = loaded = Loaded(write.record, saved.etag)
            self._cache.put(write.key, loaded)
            self._unsent.written(write.key)
            if write.record.unsent:
                run.owed = write.record.unsent
                publishing.append(run)
            else:
                self._ends.done(run)
        for route in {run.route for run in again}:
            self._tasks.spawn(self._load(route, [run for run in again if run.route is route]))
        if publishing:
            await self._publishing.publish(publishing, self._published)

    def _lost_the_etag(self, run: Run) -> None:
        """Somebody else wrote: what ran on the old record counts for nothing, and nobody is to blame."""
        self._cache.drop(run.write.key)
        run.reset()

    def _write(self, run: Run, now: float) -> Write:
        record = run.loaded.record
        value = run.value
        if value is UNCHANGED:
            value = None if record.expires is not None and record.expires <= now else record.value
        last = run.more[-1].delivery if run.more else run.delivery
        reply = None
        if type(last.position) is Named and run.result is not None and isinstance(run.result.outcome, Done):
            reply = duplicates.remembered(run.result.outcome.reply)
        marks = record.marks.with_(last.trigger, last.position, reply)
        expires = None if self._ttl is None or value is None else now + self._ttl
        return Write(last.key or "", Record(value, marks, run.emits, expires), run.loaded.etag)

    def _published(self, runs: list[Run]) -> None:
        for run in runs:
            run.owed = ()
            if run.route.stateful:
                self._unsent.sent(run.delivery.key or "", run.loaded)
            self._ends.done(run)

    async def _stored(self, runs: list[Run], ask: Callable[[list[Run]], Awaitable[T]]) -> T | None:
        """Ask the store until it answers, for those of `runs` that stay. None: nobody is left."""
        delay, longest = BACKOFF
        while runs:
            try:
                answer = await ask(runs)
            except RecordError as error:
                runs[:] = self._ends.without_key(runs, error)
                continue
            except StoreError as error:
                self._outages.begin("store", error)
            else:
                self._outages.end("store")
                return answer
            for run in runs:
                self._ends.forget(run)
            runs[:] = self._ends.staying(runs, "the store is down")
            if runs:
                await self._outages.rest(delay)
                delay = min(delay * 2, longest)
        return None
