"""Activation of one function: from zero to as many workers as it needs and back, restarts, the switch of revisions.

sleeping -> waking -> running -> draining -> sleeping; a death leads to a restart, or to backing off. At most `most`
workers take work, each in a slot of its own (0, 1 ...); those that drain beside them take none. How many there should
be says `scaling.py`, once a second while there are some and more than one are allowed. Nothing here knows processes:
workers come from `spawn`, time from `clock`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fleetfn.errors import FleetError
from fleetfn_spec.control import Phase

from fleetfn_node.backoff import Backoff
from fleetfn_node.clock import Clock, LoopClock, Timer
from fleetfn_node.links import WorkerFailedError, WorkerLink, how_it_ended
from fleetfn_node.scaling import LOOK, Demand, Scaling

log = logging.getLogger("fleetfn.node")

READY_LIMIT = 120.0
"""Seconds for a worker to become ready: models are loaded, many state samples decoded, brokers waited for."""

DRAIN_MARGIN = 15.0
"""Seconds beyond the function's timeout after which a draining worker is killed."""

_START_LIMIT = 5.0
"""Seconds for a worker on its way to be ready when its function is stopped; it has taken nothing yet."""

REPLACE = 75
"""Exit code of a worker that drained because it can no longer run all its keys."""

ROWS_FOR = 3.0
"""Seconds that a number of waiting rows counts: whoever has them tells it about once a second while they wait."""


class Unavailable(FleetError):  # noqa: N818 - a state of affairs, said as one
    """No worker now. `retry_after`: seconds after which asking again makes sense."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Policy:
    """What the serving revision asks for."""

    idle: float
    """Seconds without work after which a worker goes."""
    least: int = 0
    """`scale.min`: workers that are always there."""
    most: int = 1
    """`scale.max`."""
    pulls: bool = False
    """It has sources whose backlog does not knock again (Kafka): after a death it is started again by itself."""
    timeout: float = 30.0
    concurrency: int = 64


@dataclass(eq=False, slots=True)
class _Birth:
    """A worker on its way to be ready. `era`: how many switches there were before it."""

    slot: int
    era: int
    link: WorkerLink | None = None
    task: asyncio.Task[WorkerLink] = field(init=False)


class Activation:
    """One function's state machine. Use on one loop."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        spawn: Callable[[int], Awaitable[WorkerLink]],
        *,
        asleep: Callable[[], None] = lambda: None,
        awake: Callable[[], None] = lambda: None,
        woke: Callable[[float], None] = lambda _: None,
        failed: Callable[[str], None] = lambda _: None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`spawn`: a worker of the serving revision for a slot, not ready yet. `asleep`, `awake`: somebody else has to
        look out for events from now on, or no longer has to.
        """
        self._name = name
        self._policy = policy
        self._spawn = spawn
        self._asleep = asleep
        self._awake = awake
        self._woke = woke
        self._failed = failed
        self._clock = clock or LoopClock()
        self._backoff = backoff or Backoff()
        self.working: list[WorkerLink] = []
        """The workers that take work, by slot."""
        self.draining: set[WorkerLink] = set()
        self._wanted = 0
        """Workers that there should be."""
        self._births: list[_Birth] = []
        self._era = 0
        self._ready_at: dict[WorkerLink, float] = {}
        self._not_before = 0.0
        self._restart: Timer | None = None
        self._limits: dict[WorkerLink, Timer] = {}
        self._scaling = _scaling(policy)
        self._looking: Timer | None = None
        self._rows = (0, -ROWS_FOR)
        """Rows that wait in the inbox, and when that was told."""
        self._callers = 0
        self._counted = 0
        """Runs that ended, as far as the look before knew."""
        self._used = 0.0
        """Processor seconds, likewise."""
        self._trouble = ""
        self._closed = ""
        self.cold_start: float | None = None
        """Seconds from activation to ready, the last time."""

    @property
    def current(self) -> WorkerLink | None:
        """The least busy worker that takes work; of equals the one in the lowest slot, so that others can go."""
        working = self.working
        if len(working) < 2:  # noqa: PLR2004 - nothing to choose from
            return working[0] if working else None
        return min(working, key=_busy)

    async def activate(self) -> WorkerLink:
        """The least busy worker that takes work, woken if there is none; callers at the same time wait for the same.

        Raises Unavailable when it backs off, could not start, or the node stops.
        """
        while (current := self.current) is None:
            if self._closed:
                raise Unavailable(f"{self._name} takes nothing more: {self._closed}", retry_after=5)
            birth = next((each for each in self._births if each.era == self._era), None)
            wait = self._not_before - self._clock.now()
            if wait > 0 and birth is None:
                raise Unavailable(f"{self._name} backs off: {self._trouble}", retry_after=wait)
            self._wanted = max(1, self._wanted)
            born = await self._wait_for(birth or self._start())
            if born is not None:
                return self.current or born
        return current

    def wake(self) -> None:
        """There is work, and nobody waits for an answer: start now, or when the backoff is over."""
        if not self.working and not self._closed:
            self._wanted = max(1, self._wanted)
            self._fill()

    def rows_wait(self, count: int) -> None:
        """So many rows of the inbox could run now, were there a worker for them."""
        self._rows = (count, self._clock.now())

    def begin(self) -> None:
        """After the node started, or the function was resumed: stay, or sleep with somebody looking out."""
        self._wanted = max(self._policy.least, len(self.working))
        if self._policy.least:
            self._fill()
        elif not self.working and not self._births:
            self._asleep()

    def switch(self, link: WorkerLink, policy: Policy) -> None:
        """`link`, ready, takes over; those before it drain. As many as there were are started of the new revision.

        Whatever trouble the old revision had is forgotten.
        """
        self._forgive()
        self._awake()
        self._era += 1
        old, self.working = self.working, []
        for each in old:
            self._drain(each, "a new revision serves")
        self._policy = policy
        self._scaling = _scaling(policy)
        self._wanted = min(policy.most, max(1, len(old), policy.least))
        self._joined(link)
        self._fill()

    def renew(self, reason: str) -> None:
        """As many workers as there are, started anew; those there are drain."""
        self._era += 1
        old, self.working = self.working, []
        for each in old:
            self._drain(each, reason)
        if old or self._births:
            self._wanted = max(1, self._wanted)
            self._fill()
        elif not self._closed and self._restart is None:
            self.begin()

    def idle(self, link: WorkerLink, seconds: float) -> None:
        """The last worker goes once it has been idle for long enough; that of several, once the others suffice."""
        last = self.working == [link] and not self._births
        if last and not self._policy.least and seconds >= self._policy.idle:
            self._wanted = 0
            self._cancel_restart()
            self._drain(link, f"idle for {seconds:.0f} s")

    def leaving(self, link: WorkerLink, reason: str) -> None:
        """A worker drains, and nobody here told it to: the next one starts beside it."""
        if link in self.working:
            ready_at = self._ready_at[link]
            self._drain(link, reason)
            self._died(link, f"left: {reason}", ready_at)

    def gone(self, link: WorkerLink, status: int | None) -> None:
        """A worker's process ended: drained, or died. What it leaves behind is for those that work beside it."""
        limit = self._limits.pop(link, None)
        if limit is not None:
            limit.cancel()
        self.draining.discard(link)
        died = link in self.working
        ready_at = self._ready_at.get(link, 0.0)
        self._parted(link)
        for each in self.working if self._policy.most > 1 else ():
            each.inherit(link.slot)
        if died:
            self._died(link, how_it_ended(status), ready_at)
            return
        if link.draining and status not in (0, REPLACE, None):
            log.error("%s: worker %d %s while it drained", self._name, link.pid, how_it_ended(status))
        if not self.working and not self._births and self._restart is None and not self._closed:
            self.begin()

    async def stop(self, reason: str) -> None:
        """Take nothing more; returns when every worker is gone (killed after the function's timeout and a margin)."""
        self._closed = reason
        self._wanted = 0
        self._cancel_restart()
        self._awake()
        births = {each.task for each in self._births}
        if births and (late := (await asyncio.wait(births, timeout=_START_LIMIT))[1]):
            for each in self._births:
                if each.link is not None:
                    each.link.kill()
            await asyncio.wait(late)
        for link in list(self.working):
            self._drain(link, reason)
        await asyncio.gather(*(link.gone() for link in list(self.draining)))

    def next_slot(self, most: int) -> int:
        """For a worker to be started: the lowest that nobody has; where all are had, one whose worker leaves, or will:
        the new one waits for it.
        """
        staying = {each.slot for each in self.working}
        staying |= {each.slot for each in self._births if each.era == self._era}
        leaving = {each.slot for each in self.draining} | {each.slot for each in self._births}
        free = [slot for slot in range(most) if slot not in staying]
        return next((slot for slot in free if slot not in leaving), free[0] if free else 0)

    def links(self) -> list[WorkerLink]:
        """Those that take work, those on their way, those that drain."""
        return [*self.working, *(each.link for each in self._births if each.link is not None), *self.draining]

    def phase(self) -> tuple[Phase, str]:
        """The phase, and one sentence: why, and what would change it."""
        wait = self._not_before - self._clock.now()
        if self.working:
            return "running", f"{self._who_works()}; {self._what_comes(wait)}{self._when_they_go()}"
        if self._births:
            return "waking", "its worker starts"
        if wait > 0:
            return "backing-off", f"{self._trouble}; next try in {wait:.0f} s, or deploy a revision that works"
        if self.draining:
            return "draining", "its worker finishes what it has; the next event wakes a new one"
        return "sleeping", "nothing to do: no process; the next event wakes it"

    def _who_works(self) -> str:
        more = f", of at most {self._policy.most}" if self._policy.most > 1 else ""
        if len(self.working) == 1:
            return f"worker {self.working[0].pid} takes work{more}"
        return f"{len(self.working)} workers take work{more}"

    def _what_comes(self, wait: float) -> str:
        if self._births:
            return f"{len(self._births)} more on the way; "
        if wait > 0 and self._wanted > len(self.working):
            return f"another one starts in {wait:.0f} s, since {self._trouble}; "
        return ""

    def _when_they_go(self) -> str:
        least, idle = self._policy.least, f"{self._policy.idle:g} s"
        if least >= len(self.working):
            return f"scale.min is {least}, so {'it stays' if least == 1 else 'they stay'}"
        if len(self.working) == 1:
            return f"after {idle} without work it goes"
        return f"those that were not needed for {idle} go"

    # How many

    def _look(self) -> None:
        """Once a second while several workers may be there: start more, or let those go that are too many."""
        self._looking = None
        if not self.working:
            return
        self._look_later()
        there = len(self.working) + len(self._births)
        self._wanted = self._scaling.look(self._clock.now(), there, self._demand())
        self._fill()
        spare = min(there - self._wanted, len(self.working) - 1)
        for link in sorted(self.working, key=lambda each: (_busy(each)[0], -each.slot))[: max(0, spare)]:
            self._drain(link, f"not needed for {self._policy.idle:g} s: {self._wanted} of {there} workers suffice")

    def _look_later(self) -> None:
        if self._looking is None and self._policy.most > 1:
            self._looking = self._clock.after(LOOK, self._look)

    def _demand(self) -> Demand:
        working = self.working
        rows, told = self._rows
        counted = sum(each.done for each in working)
        used = sum(each.process.cpu() for each in working)
        demand = Demand(
            lag=sum(each.lag for each in working),
            lagging=sum(each.lagging for each in working),
            held=sum(each.requests for each in working),
            waiting=self._callers + (rows if self._clock.now() - told < ROWS_FOR else 0),
            done=max(0, counted - self._counted),
            cores=max(0.0, used - self._used) / LOOK,
        )
        self._counted, self._used = counted, used
        return demand

    def _fill(self) -> None:
        """Start what is wanted and not there, now or when the backoff is over."""
        births = sum(each.era == self._era for each in self._births)
        missing = self._wanted - len(self.working) - births
        if missing <= 0 or self._closed or self._restart is not None:
            return
        wait = self._not_before - self._clock.now()
        if wait > 0:
            self._restart = self._clock.after(wait, self._again)
            return
        for _ in range(missing):
            self._start()

    def _again(self) -> None:
        self._restart = None
        self._fill()

    # One worker

    async def _wait_for(self, birth: _Birth) -> WorkerLink | None:
        """None: it failed, and there is another one by now."""
        self._callers += 1
        try:
            return await asyncio.shield(birth.task)
        except Unavailable:
            if self.working:
                return None
            raise
        finally:
            self._callers -= 1

    def _start(self) -> _Birth:
        self._cancel_restart()
        self._awake()
        birth = _Birth(self.next_slot(self._policy.most), self._era)
        self._births.append(birth)
        birth.task = asyncio.create_task(self._until_ready(birth), name=f"activation of {self._name}")
        birth.task.add_done_callback(lambda _: self._started(birth))
        return birth

    async def _until_ready(self, birth: _Birth) -> WorkerLink:
        began, cold = self._clock.now(), not self.working
        spawn = self._spawn
        try:
            birth.link = link = await spawn(birth.slot)
            await asyncio.wait_for(asyncio.shield(link.ready), READY_LIMIT)
        except TimeoutError:
            raise self._not_ready(birth, f"its worker was not ready within {READY_LIMIT:.0f} s") from None
        except WorkerFailedError as failed:
            raise self._not_ready(birth, _sentence(failed), failed.hint) from failed
        except FleetError as failed:
            raise self._not_ready(birth, failed.message, failed.hint) from failed
        except OSError as failed:
            raise self._not_ready(birth, f"its worker could not be started: {failed}") from failed
        except Exception as failed:
            log.exception("%s: a defect of the node", self._name)
            raise self._not_ready(birth, f"the node failed: {type(failed).__name__}: {failed}") from failed
        if birth.era != self._era:  # a deploy switched meanwhile, or a broker is elsewhere
            self._drain(link, "it was started for what serves no more")
            return self.current or link
        self._joined(link)
        if cold:
            self.cold_start = self._clock.now() - began
            self._woke(self.cold_start)
        return link

    def _started(self, birth: _Birth) -> None:
        self._births.remove(birth)
        if birth.task.cancelled():
            return
        if birth.task.exception() is not None:
            if not self._closed and birth.era == self._era:
                self._wait_or_sleep()
        elif birth.link in self.working and birth.link.process.exited.done():
            self.gone(birth.link, birth.link.process.exited.result())

    def _not_ready(self, birth: _Birth, why: str, hint: str = "") -> Unavailable:
        if birth.link is not None:
            birth.link.kill()
        wait = self._backoff.failed()
        self._trouble = f"{why} ({self._backoff.failures} in a row)"
        self._not_before = self._clock.now() + wait
        log.error("%s: %s; next try in %.1f s", self._name, why, wait)
        self._failed(f"its worker did not start: {why}")
        return Unavailable(f"{self._name} did not start: {why}", hint=hint, retry_after=wait)

    def _joined(self, link: WorkerLink) -> None:
        """It takes work from now on."""
        self._ready_at[link] = self._clock.now()
        self.working = sorted([*self.working, link], key=lambda each: each.slot)
        link.serve()
        self._share()
        self._look_later()

    def _parted(self, link: WorkerLink) -> None:
        """It takes no more work."""
        self._ready_at.pop(link, None)
        if link in self.working:
            self.working = [each for each in self.working if each is not link]
            self._share()

    def _share(self) -> None:
        """Tell those that work who they are, so that they share what one of them must have for itself."""
        if self._policy.most > 1:
            slots = tuple(each.slot for each in self.working)
            for each in self.working:
                each.share(slots)

    def _died(self, link: WorkerLink, how: str, ready_at: float) -> None:
        wait = self._backoff.died(lived=self._clock.now() - ready_at, worked=link.worked)
        self._trouble = f"worker {link.pid} {how} ({max(1, self._backoff.failures)} in a row)"
        self._not_before = self._clock.now() + wait
        log.error("%s: worker %d %s; next start in %.1f s", self._name, link.pid, how, wait)
        self._failed(f"worker {link.pid} {how}")
        if not self._closed:
            self._wait_or_sleep()

    def _wait_or_sleep(self) -> None:
        """After a failure: who pulls is started again by itself; others when the next request comes."""
        if self._policy.pulls or self._policy.least or self.working or self._births:
            self._wanted = max(1, self._wanted)
            if self._restart is None:
                self._restart = self._clock.after(max(0.0, self._not_before - self._clock.now()), self._again)
        else:
            self._wanted = 0
            self._asleep()

    def _drain(self, link: WorkerLink, reason: str) -> None:
        self._parted(link)
        self.draining.add(link)
        self._limits[link] = self._clock.after(self._policy.timeout + DRAIN_MARGIN, link.kill)
        link.drain(reason)

    def _forgive(self) -> None:
        self._backoff.reset()
        self._not_before = 0.0
        self._trouble = ""
        self._cancel_restart()

    def _cancel_restart(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None


def _scaling(policy: Policy) -> Scaling:
    return Scaling(least=policy.least, most=policy.most, idle=policy.idle, concurrency=policy.concurrency)


def _busy(link: WorkerLink) -> tuple[int, int]:
    return link.busy, link.slot


def _sentence(failed: WorkerFailedError) -> str:
    return f"{failed.message} ({failed.place})" if failed.place else failed.message
