"""What a trigger's breaker does on the road: while it is open, no run of the trigger begins but probes.

Its pull source is paused, and what was taken waits as head of its lane, so that callers pass it. The runs that failed
alike have the attempts of that back. What waits longest is the probe, of what has not failed; where nothing such waits,
the next event that comes, too. Callers' runs go on: they are probes as good as any.

Many events that can never succeed look like an outage as well, while nothing else runs. So probes are what has not
failed, if there is such, and a breaker that has closed looks at what else ends before it opens again (breaker.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from fleetfn.invocation import Again

from fleetfn_runtime.breaker import SAMPLES, Breaker, Opened, alike_of
from fleetfn_runtime.ends import Ends
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import Pausable
from fleetfn_runtime.runs import Route, Run

log = logging.getLogger("fleetfn.road")

HELD_FOR = 60.0
"""Seconds after which a lane that waits for a breaker is looked at, whatever happened."""

SOON = 1.0
"""Seconds after which rows may be pushed again while a probe runs, and between looks whether it is still ours: what is
swept from its lane ends nowhere.
"""


class Gates:
    """Used on one loop. `file` keeps what is open over restarts; `changed` is called when a lane may be ready."""

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        lanes: Lanes[Run],
        ends: Ends,
        meter: Meter,
        changed: Callable[[], None],
        file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lanes = lanes
        self._ends = ends
        self._meter = meter
        self._changed = changed
        self._file = file
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._gates = {route: _Gate(route) for route in routes if route.breaker is not None}
        self._sources: list[Pausable] = []
        windows = [gate.breaker.limits.window for gate in self._gates.values()]
        self._step = min(windows, default=float("inf")) / SAMPLES
        self.look_at = 0.0 if windows else float("inf")
        """When `look` is to be called next, by the loop's clock."""
        self.open = 0
        """Breakers that are open."""
        self._restore()

    def watch(self, source: Pausable) -> None:
        self._sources.append(source)
        for gate in self._gates.values():
            if gate.paused and gate.route.trigger == source.trigger:
                source.pause(gate.why)

    def look(self, now: float) -> None:
        """Note how many runs have ended by now."""
        self.look_at = now + self._step
        for gate in self._gates.values():
            failures = gate.breaker.look(now, self._meter.ended(gate.route.trigger), self._clock())
            if failures is not None:
                _give_back(failures)
                self._opened(gate, failures)

    def refuses(self, trigger: str) -> float | None:
        """Seconds after which an event of a trigger that is pushed may be pushed again; None: take it."""
        gate = next((gate for gate in self._gates.values() if gate.route.trigger == trigger), None)
        if gate is None or gate.breaker.opened is None or gate.wanting:
            return None
        if gate.probe is not None:
            return SOON
        return max(0.1, gate.breaker.probe_at - self._loop.time())

    def problems(self) -> list[tuple[str, str]]:
        return [(gate.route.trigger, self._problem(gate)) for gate in self._gates.values() if gate.breaker.opened]

    def close(self) -> None:
        for gate in self._gates.values():
            if gate.timer is not None:
                gate.timer.cancel()

    # Runs come and go

    def sift(self, route: Route, runs: list[Run]) -> list[Run]:
        """Those of `runs`, just taken from their lanes, that may go on while the breaker is open."""
        gate = self._gates[route]
        staying: list[Run] = []
        for run in runs:
            if _passes(run) or run is gate.probe:
                staying.append(run)
                continue
            self._ends.put_back(run, 0)
            if gate.wanting:
                gate.wanting = False
                self._begin_probe(gate, run)
                self._pause(gate)
                staying.append(run)
            else:
                self.hold(run)
        return staying

    def hold(self, run: Run) -> None:
        """Let a run, which is out, wait for the breaker to close."""
        run.result = None
        self._gates[run.route].waiting[run] = None
        self._ends.hold(run, HELD_FOR)

    def failed(self, run: Run, outcome: Again) -> bool:
        """Count a failure; True: it is the outage's, and costs no attempt."""
        gate = self._gates.get(run.route)
        alike = alike_of(outcome)
        if gate is None or alike is None:
            return False
        now = self._loop.time()
        breaker = gate.breaker
        if breaker.opened is not None:
            if alike != breaker.opened.alike:
                return False
            gate.failed[run] = None
            if gate.probe is run:
                gate.probe = None
                breaker.probe_failed(now)
                self._set_timer(gate)
            return True
        key = run.delivery.key
        ended = self._meter.ended(run.route.trigger)
        failures = breaker.failed(now, ended, alike, run if key is None else key, run, self._clock())
        if failures is None:
            return False
        _give_back(failures[:-1])  # the last one is this one, not counted yet
        self._opened(gate, failures)
        return True

    def returned(self, runs: Sequence[Run]) -> None:
        """Handlers have returned: one that began while the breaker was open, and did not fail alike, closes it."""
        for run in runs:
            gate = self._gates.get(run.route)
            if gate is None or run.result is None:
                continue
            breaker = gate.breaker
            if breaker.opened is None or run.started < gate.since:
                continue
            outcome = run.result.outcome
            if isinstance(outcome, Again) and (not outcome.counted or alike_of(outcome) == breaker.opened.alike):
                continue
            self._close(gate)

    def ended(self, run: Run) -> None:
        """It is out no more: if it was the probe and has told nothing, another one is."""
        gate = self._gates.get(run.route)
        if gate is not None and gate.probe is run:
            gate.probe = None
            gate.breaker.probe_at = self._loop.time()
            self._set_timer(gate)

    # Open and closed

    def _opened(self, gate: _Gate, failures: Sequence[Run]) -> None:
        self.open += 1
        gate.failed = dict.fromkeys(failures)
        gate.since = time.monotonic()
        gate.route.gated = True
        self._pause(gate)
        self._save(gate)
        self._set_timer(gate)
        log.error("%s; the trigger is paused, and goes on once a probe succeeds", self._problem(gate))

    def _close(self, gate: _Gate) -> None:
        log.info("the breaker of trigger %s is closed: a run has told another end", gate.route.trigger)
        gate.breaker.close(self._loop.time(), self._meter.ended(gate.route.trigger))
        self.open -= 1
        gate.route.gated = gate.wanting = False
        gate.probe = None
        if gate.timer is not None:
            gate.timer.cancel()
        gate.timer = self._loop.call_at(gate.breaker.settled, self._settle, gate)
        self._save(gate)
        gate.failed = {}
        waiting, gate.waiting = gate.waiting, {}
        for run in waiting:
            self._lanes.let_go(run)
        self._resume(gate)
        self._changed()

    def _settle(self, gate: _Gate) -> None:
        """All that failed since it closed may wait by now, so that nothing else would ask."""
        gate.timer = None
        self.look(max(self._loop.time(), gate.breaker.settled))

    def _set_timer(self, gate: _Gate) -> None:
        if gate.timer is not None:
            gate.timer.cancel()
        gate.timer = self._loop.call_at(gate.breaker.probe_at, self._probe, gate)

    def _probe(self, gate: _Gate) -> None:
        gate.timer = None
        probe = self._waits_longest(gate)
        if probe is None or probe in gate.failed:
            gate.wanting = True
            self._resume(gate)
        if probe is not None:
            self._begin_probe(gate, probe)
            self._changed()

    def _waits_longest(self, gate: _Gate) -> Run | None:
        """Let go of its lane; of those that have failed alike only where there is no other."""
        for run in sorted(gate.waiting, key=gate.failed.__contains__):
            del gate.waiting[run]
            if self._lanes.let_go(run):
                return run
        return None

    def _begin_probe(self, gate: _Gate, run: Run) -> None:
        gate.probe = run
        run.odd = True
        if gate.timer is not None:
            gate.timer.cancel()
        gate.timer = self._loop.call_later(SOON, self._look_after, gate)

    def _look_after(self, gate: _Gate) -> None:
        gate.timer = None
        probe = gate.probe
        if probe is None:
            return
        if probe.delivery.source.owns(probe.delivery):
            gate.timer = self._loop.call_later(SOON, self._look_after, gate)
            return
        gate.probe = None
        self._probe(gate)

    def _pause(self, gate: _Gate) -> None:
        if not gate.paused:
            gate.paused = True
            for source in self._sources:
                if source.trigger == gate.route.trigger:
                    source.pause(gate.why)

    def _resume(self, gate: _Gate) -> None:
        if gate.paused:
            gate.paused = False
            for source in self._sources:
                if source.trigger == gate.route.trigger:
                    source.resume(gate.why)

    def _problem(self, gate: _Gate) -> str:
        if gate.probe is not None:
            then = "a probe runs"
        elif gate.wanting:
            then = "the next event is the probe"
        else:
            then = f"next probe in {max(0.0, gate.breaker.probe_at - self._loop.time()):.0f} s"
        return f"{gate.breaker.opened}; {then}"

    # Over restarts

    def _restore(self) -> None:
        kept = self._kept()
        for gate in self._gates.values():
            opened = kept.get(gate.route.trigger)
            if opened is not None:
                gate.breaker.open(opened, self._loop.time(), probe=True)
                gate.route.gated = gate.wanting = True
                self.open += 1

    def _kept(self) -> dict[str, Opened]:
        if self._file is None:
            return {}
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Opened])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read: %s; breakers begin closed", self._file, error)
            return {}

    def _save(self, gate: _Gate) -> None:
        """Other workers of the function may have opened theirs: their entries stay."""
        if self._file is None:
            return
        kept = self._kept()
        if gate.breaker.opened is not None:
            kept[gate.route.trigger] = gate.breaker.opened
        else:
            kept.pop(gate.route.trigger, None)
        new = self._file.with_suffix(f".{os.getpid()}")
        try:
            if kept:
                new.write_bytes(msgspec.json.encode(kept))
                new.replace(self._file)
            else:
                self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be written: %s; a restart will not know of the outage", self._file, error)


class _Gate:
    """One trigger's."""

    __slots__ = ("breaker", "failed", "paused", "probe", "route", "since", "timer", "waiting", "wanting", "why")

    def __init__(self, route: Route) -> None:
        if route.breaker is None:
            raise ValueError(f"trigger {route.trigger} has no breaker")
        self.route = route
        self.breaker: Breaker[Run] = Breaker(route.breaker)
        self.waiting: dict[Run, None] = {}
        """Heads of lanes that wait for the breaker to close, in the order in which they came to."""
        self.failed: dict[Run, None] = {}
        """What failed alike since, or in opening it."""
        self.probe: Run | None = None
        self.wanting = False
        """It is time for a probe, and nothing waits that has not failed."""
        self.paused = False
        self.since = 0.0
        """When it opened, by the clock of `Run.started`: the loop's own stands still during one turn of it."""
        self.why = f"breaker of {route.trigger}"
        self.timer: asyncio.TimerHandle | None = None


def _give_back(failures: Sequence[Run]) -> None:
    """An attempt for each failure, and the last word on those that had no more."""
    for run in failures:
        run.delivery.attempts = max(0, run.delivery.attempts - 1)
        run.final = None


def _passes(run: Run) -> bool:
    """It has a caller, or is not to be run now."""
    return (
        run.waits
        or run.result is not None
        or run.delivery.problem is not None
        or run.final is not None
        or run.killed_too_often
    )
