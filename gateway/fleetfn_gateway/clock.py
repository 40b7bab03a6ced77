"""The clock of one cron trigger: puts a row into the inbox for each instant of its schedule.

A fire's row and the note that it was made are one commit, so no restart makes it twice or forgets it. What passed
while nothing could fire is found by the note, too. `fires.py` decides what is due, `sane_clock.py` whether the time
can be believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
from fleetfn.errors import StoreError, UsageError
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import Fired, GatewayFunction
from fleetfn_triggers import cron, cron_times
from fleetfn_triggers.cron import Cron, Fire
from fleetfn_triggers.inbox import Arrival

from fleetfn_gateway import fires
from fleetfn_gateway.feed import FeedInbox
from fleetfn_gateway.fires import Memory
from fleetfn_gateway.notes import Notes
from fleetfn_gateway.pulse import Pulse
from fleetfn_gateway.sane_clock import SaneClock, shown

log = logging.getLogger("fleetfn.clock")

SETTLING = 2.0
"""Seconds between looks while the machine's clock is not believed."""

LONG = 3600.0
"""Seconds of sleep where the schedule has no instant any more."""

REST = (1.0, 10.0)
"""First and longest seconds between tries while the inbox takes nothing."""


class Clock:
    """A Feed. Used on one loop. Raises ScheduleError for a schedule that cannot be read."""

    def __init__(
        self,
        function: GatewayFunction,
        trigger: Trigger,
        inbox: FeedInbox,
        notes: Notes,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        early: float,
    ) -> None:
        """`sleep`: may return sooner, and does soon after the time was moved (Pulse.sleep). `early`: seconds before
        an instant at which a worker is woken for it.
        """
        spec: Cron = trigger.block
        self._function = function.name
        self._trigger = trigger.name
        self._spec = spec
        self._schedule = cron_times.parse(spec.schedule, spec.timezone)
        self._inbox = inbox
        self._notes = notes
        self._text = f"{spec.schedule} {spec.timezone}"
        self._name = f"{function.name}/{trigger.name}"
        self._note = f"cron/{self._name}/"
        self._now = now
        self._sane = SaneClock(now, monotonic)
        self._early = early
        self._sleep = sleep or Pulse(now, monotonic).sleep
        self._changing = asyncio.Lock()
        self._memory: Memory | None = None
        self._next: int | None = None
        self._announced: float | None = None
        """The instant for which its worker was woken."""
        self._doubt = ""
        self._refused = ""
        self._task: asyncio.Task[None] | None = None
        self._left_out = 0

    @property
    def problem(self) -> str:
        return self._doubt or self._refused

    @property
    def next_fire(self) -> float | None:
        """Unix seconds; None: the clock is not believed yet, or the schedule has no instant any more."""
        return None if self._doubt else self._next

    @property
    def last_fire(self) -> float | None:
        """The instant of the last one that the schedule made; Unix seconds."""
        return None if self._memory is None else self._memory.last

    @property
    def left_out(self) -> int:
        """`overlap: skip`."""
        return self._left_out

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"clock {self._name}")

    async def close(self, *, forget: bool = False) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if forget:
            await self._notes.forget(self._note)

    async def fire(self, at: float | None = None) -> Fired:
        """Fire by hand, whatever else waits, for the instant `at` (Unix seconds; None: now). Raises StoreError,
        UsageError for a number that is no time.
        """
        instant = float(int(self._now())) if at is None else at
        previous = self.last_fire
        try:
            arrival = self._arrival(Fire(at=instant, previous=previous, by_hand=secrets.token_hex(4)))
        except (ValueError, OverflowError, OSError) as error:
            raise UsageError(f"{instant:g} is no time: {error}", hint="give Unix seconds") from error
        async with self._changing:
            (sequence,) = await self._inbox.put([arrival])
            await self._remember_row(sequence)
        return Fired(sequence=sequence, id=arrival.event.id, at=instant)

    # The clock's own life

    async def _run(self) -> None:
        delay, longest = REST
        while True:
            try:
                pause = await self._step()
            except StoreError as error:
                self._refuse(error)
                pause, delay = delay, min(delay * 2, longest)
            except Exception as error:
                log.exception("%s: the clock failed; it tries again", self._name)
                self._refused, pause = f"the clock failed: {type(error).__name__}: {error}", longest
            else:
                self._refused, delay = "", REST[0]
            await self._sleep(pause)

    async def _step(self) -> float:
        """Make the fires that are due; how long to sleep. Raises StoreError; nothing is forgotten then."""
        async with self._changing:
            memory = self._memory or self._remembered()
            anew = memory is None or memory.schedule != self._text
            seen = self._sane.look(0.0 if anew or memory is None else memory.through)
            self._believe(seen.doubt)
            if seen.doubt:
                return SETTLING
            if anew or memory is None:
                memory = self._begin(memory, seen.now)
                await self._notes.put([], notes=self._noted(memory))
            if self._memory is None:
                self._remember(memory)
            if self._next is not None and seen.now >= self._next:
                await self._make(memory, seen.now)
        return LONG if self._next is None else self._until(self._next)

    def _until(self, instant: float) -> float:
        """Seconds to sleep. A little before the instant its worker is woken, which so is ready in time."""
        left = instant - self._now()
        if left > self._early:
            return left - self._early
        if self._announced != instant:
            self._announced = instant
            self._inbox.announce(self._function, self._trigger)
        return max(left, 0.001)

    def _begin(self, before: Memory | None, now: float) -> Memory:
        """From now on: there is nothing to catch up with."""
        last = None if before is None or before.last is None or before.last > now else before.last
        return Memory(schedule=self._text, through=now, last=last, row=None if before is None else before.row)

    async def _make(self, memory: Memory, now: float) -> None:
        due = fires.due(self._schedule, self._spec.missed, memory, now)
        left_out = self._spec.overlap == "skip" and not due.caught_up and await self._waits(memory.row)
        made = () if left_out else due.fires
        last = int(made[-1].at) if made else memory.last
        memory = msgspec.structs.replace(memory, through=now, last=last)
        sequences = await self._notes.put([self._arrival(fire) for fire in made], notes=self._noted(memory))
        self._remember(memory)
        self._tell(due, left_out=left_out)
        if sequences:
            await self._remember_row(sequences[-1])

    def _tell(self, due: fires.Due, *, left_out: bool) -> None:
        count = len(due.fires)
        if due.passed > max(1, count):
            passed = f"{due.passed} or more" if due.passed == fires.COUNTED else str(due.passed)
            how = f"missed: {self._spec.missed}"
            log.warning("%s: %s instants have passed; %s makes %d of them fires", self._name, passed, how, count)
        if left_out and count:
            self._left_out += count
            log.info("%s: the fire of %s is left out: one before waits or runs", self._name, shown(due.fires[-1].at))

    async def _waits(self, sequence: int | None) -> bool:
        row = None if sequence is None else await self._inbox.get(sequence)
        return row is not None and row.status == "waiting"

    def _believe(self, doubt: str) -> None:
        if bool(doubt) != bool(self._doubt):
            log.warning("%s: %s", self._name, doubt or "the clock is believed again")
        self._doubt = doubt

    def _refuse(self, error: StoreError) -> None:
        if not self._refused:
            self._refused = f"the inbox takes no fire since {shown(self._now())}: {error.message}"
            log.warning("%s: %s", self._name, self._refused)

    # What it remembers

    def _remembered(self) -> Memory | None:
        """As it was noted. Raises StoreError."""
        noted = self._notes.note(self._note)
        try:
            return None if noted is None else msgspec.json.decode(noted, type=Memory)
        except msgspec.MsgspecError as error:
            log.warning("%s: what the clock noted cannot be read, it begins anew: %s", self._name, error)
            return None

    def _remember(self, memory: Memory) -> None:
        self._memory = memory
        self._next = next(self._schedule.after(memory.through), None)

    async def _remember_row(self, sequence: int) -> None:
        """Noted only where somebody asks for it. Without the note, at worst a fire waits instead of being left out."""
        if self._memory is None:
            return
        self._memory = msgspec.structs.replace(self._memory, row=sequence)
        if self._spec.overlap == "skip":
            with contextlib.suppress(StoreError):
                await self._notes.put([], notes=self._noted(self._memory))

    def _noted(self, memory: Memory) -> dict[str, bytes]:
        return {self._note: msgspec.json.encode(memory)}

    def _arrival(self, fire: Fire) -> Arrival:
        event = cron.event(self._function, self._trigger, fire, self._spec.timezone)
        return Arrival(function=self._function, trigger=self._trigger, key=event.source, event=event, source=event.id)
