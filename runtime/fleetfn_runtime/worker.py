"""The worker: a process that runs one revision of one function, from its start to its drain.

get ready (import, bind, decode state samples, connect, lifespan) -> Ready -> on Serve: own the function (owner.lock),
read the ledger, start the sources -> on Drain, SIGTERM, SIGINT or the channel's end: stop taking, finish what runs,
save, publish, commit, leave.

Nothing is started before `run_worker`: a warm parent forks with this module imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import TypeVar

import uvloop
from fleetfn.errors import FleetError, StateError
from fleetfn.lifespan import Startup
from fleetfn_spec.control import Counters
from fleetfn_spec.durations import seconds

from fleetfn_runtime import channel_io, imports, wiring
from fleetfn_runtime.channel import Failed, Idle, Leaving, Ready, Stats, Step
from fleetfn_runtime.imports import LoadError
from fleetfn_runtime.load import LoadedFunction, load
from fleetfn_runtime.owner import Ownership
from fleetfn_runtime.settings import Settings
from fleetfn_runtime.voices import NodeVoice, Voice

log = logging.getLogger("fleetfn.worker")

T = TypeVar("T")

DONE = 0
FAILED = 1
"""It could not become ready, or had to abandon what ran."""

REPLACE = 75
"""It drained because it can no longer run all its keys (a plain `def` does not end): start another one at once."""

MARGIN = 10.0
"""Seconds beyond the longest timeout that a drain may take."""

HURRY = 2.0
"""Seconds that a drain may take after the second signal."""

SAMPLES = 100
"""Stored values that must decode before a revision is ready."""

BEAT = 1.0
"""Seconds between Stats."""


def run_worker(settings: Settings, channel_fd: int) -> int:
    """Be the worker until it ends; its exit code: DONE, FAILED or REPLACE. `channel_fd`: its end of the channel."""
    return run_loop(be_worker(settings, channel_fd))


async def be_worker(settings: Settings, channel_fd: int) -> int:
    """Likewise, on a loop that runs."""
    return await Worker(settings, NodeVoice(channel_io.worker_end(socket.socket(fileno=channel_fd)))).run()


def run_loop(main: Coroutine[None, None, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class Worker:
    """One run of the process. Implements Ears."""

    def __init__(self, settings: Settings, voice: Voice) -> None:
        self._settings = settings
        self._function = settings.function
        self._voice = voice
        self._serve = asyncio.Event()
        self._drain = asyncio.Event()
        self._told = asyncio.Event()
        """The node has said Drain: it hands over nothing more."""
        self._hurry = asyncio.Event()
        self._asked = asyncio.Event()
        """Somebody waits for Stats."""
        self._why = ""
        self._began = time.monotonic()
        self._code = DONE
        self._idle = seconds(settings.function.spec.scale.idle)
        self._ownership = Ownership(settings.data / "owner.lock", settings.slot if settings.shares else None)
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: wiring.Parts | None = None
        self._early: list[Callable[[wiring.Parts], None]] = []
        """What it was told before it had parts."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._defect)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._start(self._voice.listen(self))
        try:
            parts = await self._unless_drained(self._get_ready())
            if parts is not None:
                self._start(self._own(parts))
                self._start(self._beat(parts))
                await self._drain.wait()
                await self._end(parts)
        except Exception as error:
            self._voice.say(failure(error, self._settings))
            log.debug("not ready", exc_info=error)
            self._code = FAILED
        finally:
            for task in self._tasks:
                task.cancel()
            await self._voice.close()
        return self._code

    async def check(self) -> int:
        """Get as ready as a worker that is to serve, reach the gateway, and end; FAILED where it would not serve."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            parts = await self._unless_drained(self._prepare())
            if parts is None:
                return FAILED
            if parts.pod is not None:
                self._say("reaching the gateway")
                await parts.pod.reach()
            await parts.loaded.lifespan.close()
            await parts.close()
        except Exception as error:
            self._voice.say(failure(error, self._settings))
            log.debug("not ready", exc_info=error)
            return FAILED
        return DONE

    # What it is told

    def serve(self) -> None:
        self._serve.set()

    def share(self, slots: tuple[int, ...]) -> None:
        def share(parts: wiring.Parts) -> None:
            parts.team.slots = slots

        self._tell(share)

    def inherit(self, slot: int) -> None:
        log.info("the worker of slot %d is gone", slot)
        self._tell(wiring.Parts.inherit)

    def adopt(self, fd: int, head: bytes) -> None:
        if self._parts is not None and self._parts.http is not None:
            self._parts.http.adopt(fd, head)
        elif self._voice.hand_back is not None:
            self._voice.hand_back(fd, head)

    def drain(self, reason: str) -> None:
        self._told.set()
        self._begin_drain(reason)

    def pause(self, triggers: tuple[str, ...]) -> None:
        self._tell(lambda parts: parts.pause(triggers))

    def resume(self, triggers: tuple[str, ...]) -> None:
        self._tell(lambda parts: parts.resume(triggers))

    def report(self) -> None:
        self._asked.set()

    def _tell(self, order: Callable[[wiring.Parts], None]) -> None:
        """Now, or once there are parts: a trigger may be paused while its worker starts."""
        if self._parts is None:
            self._early.append(order)
        else:
            order(self._parts)

    def _signalled(self, number: int) -> None:
        if self._drain.is_set():
            self._hurry.set()
        self._leave_by_itself(signal.Signals(number).name)

    def _replace(self, why: str) -> None:
        log.error("this worker is to be replaced: %s", why)
        self._code = REPLACE
        self._leave_by_itself(why)

    def _leave_by_itself(self, why: str) -> None:
        if not self._drain.is_set():
            self._voice.say(Leaving(why))
        self._begin_drain(why)

    def _begin_drain(self, why: str) -> None:
        if not self._drain.is_set():
            self._why = why
            self._drain.set()

    def _defect(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        log.error("%s", context["message"], exc_info=error if isinstance(error, BaseException) else None)
        self._replace(f"a defect: {error or context['message']}")

    # Getting ready

    async def _unless_drained(self, ready: Coroutine[None, None, T]) -> T | None:
        """None: it is to leave before it was ready."""
        getting, leaving = asyncio.create_task(ready), asyncio.create_task(self._drain.wait())
        await asyncio.wait((getting, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if getting.done():
            return getting.result()
        getting.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits for it any more
        getting.cancel()
        return None

    async def _get_ready(self) -> wiring.Parts:
        parts = await self._prepare()
        deliver = await parts.listen()
        settle_memory()
        parts.metrics.cold_start = time.monotonic() - self._began
        self._voice.say(Ready(os.getpid(), deliver))
        return parts

    async def _prepare(self) -> wiring.Parts:
        """All that can fail."""
        settings = self._settings
        os.chdir(settings.source)
        wiring.logs(settings)
        self._say("importing the handler")
        loaded = load(self._function, settings.source, revision=settings.revision)
        self._parts = parts = await wiring.open_parts(
            settings, loaded, replace=self._replace, hand_back=self._voice.hand_back
        )
        for order in self._early:
            order(parts)
        if not settings.proven:
            self._say("checking state samples")
            await check_samples(parts, loaded)
        if parts.connects:
            self._say("connecting")
            await parts.connect()
        if self._function.spec.lifespan is not None:
            self._say("opening the lifespan")
            await loaded.lifespan.open(Startup(self._function.name, settings.revision, loaded.config))
        return parts

    def _say(self, text: str) -> None:
        if not self._settings.proven:  # else nobody follows it: the node was not woken for that
            self._voice.say(Step(text))

    # Serving

    async def _own(self, parts: wiring.Parts) -> None:
        await self._serve.wait()
        await self._ownership.take()
        await parts.start(self._ownership.places)

    async def _beat(self, parts: wiring.Parts) -> None:
        """Stats while something changes or when asked; Idle once nothing has been taken for long."""
        told: Stats | None = None
        quiet_since = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), BEAT)
            asked = self._asked.is_set()
            self._asked.clear()
            road = parts.road
            counters = parts.counters()
            now = stats(parts, Counters())
            if asked or counters is not None or now != told:
                told = now
                self._voice.say(stats(parts, counters or Counters()))
            if road.in_flight or parts.deliver.pushes.decoding or any(pull.looking for pull in parts.pulls):
                quiet_since = time.monotonic()
            idle = time.monotonic() - max(quiet_since, road.last_taken)
            if idle >= self._idle and self._serve.is_set():
                self._voice.say(Idle(idle))

    # Ending

    async def _end(self, parts: wiring.Parts) -> None:
        limit = max(trigger.route.timeout for trigger in parts.loaded.triggers) + MARGIN
        log.info("draining: %s", self._why)
        leaving = asyncio.create_task(self._leave(parts))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((leaving, hurry), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            await asyncio.wait((leaving,), timeout=HURRY)
        hurry.cancel()
        if leaving.done():
            leaving.result()
        else:
            leaving.cancel()
            log.error("%d deliveries are abandoned: they did not end in time", parts.road.in_flight)
            self._code = self._code or FAILED
        self._voice.say(stats(parts, parts.counters() or Counters()))
        if self._voice.hand_back is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), HURRY)

    async def _leave(self, parts: wiring.Parts) -> None:
        await parts.drain()
        with contextlib.suppress(Exception):
            await parts.loaded.lifespan.close()
        await parts.close()
        self._ownership.release()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the worker broke", exc_info=error)
            self._replace(f"a defect: {type(error).__name__}: {error}")


def settle_memory() -> None:
    """What is loaded stays: the collector need not look at it again. Deliveries on their way are many and no garbage: a
    source's 20,000 are two objects each that it would look at, so it begins beyond them. Looking at them at every 700
    new objects costs more than a tenth of the throughput, at every 20,000 still a twelfth (measured).
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


async def check_samples(parts: wiring.Parts, loaded: LoadedFunction) -> None:
    """Raises LoadError if a stored value does not decode into the handler's state type."""
    handler = loaded.stateful
    if handler is None:
        return
    page = await parts.store.keys(limit=SAMPLES)
    for key, one in zip(page.keys, await parts.store.load(page.keys), strict=True):
        if one.record.value is None:
            continue
        try:
            handler.check_value(one.record.value)
        except StateError as error:
            raise LoadError(f'stored state of key "{key}": {error.message}', hint=error.hint) from error


def stats(parts: wiring.Parts, counters: Counters) -> Stats:
    road = parts.road
    pulled = [pull.held for pull in parts.pulls]
    # What gathers for a batch waits by intent: another worker would not help.
    gathering = {trigger.spec.name: road.gathering(trigger.spec.name) for trigger in parts.loaded.triggers}
    behind = sum(held if pull.lag is None else pull.lag for pull, held in zip(parts.pulls, pulled, strict=True))
    of_pulls = sum(gathering[pull.trigger] for pull in parts.pulls)
    of_pushes = sum(gathering.values()) - of_pulls
    return Stats(
        counters=counters,
        in_flight=road.in_flight,
        last_error=road.last_error,
        last_error_time=road.last_error_time,
        problems=parts.problems(),
        requests=max(0, road.in_flight - sum(pulled) - of_pushes),
        lag=max(0, behind - of_pulls),
        lagging=sum(pull.lagging for pull in parts.pulls),
    )


def failure(error: Exception, settings: Settings) -> Failed:
    """What keeps a worker from becoming ready, in the words of its node."""
    if isinstance(error, LoadError):
        return Failed(error.message, error.hint, error.place, error.traceback[-60_000:])
    text = "".join(traceback.format_exception(error))[-60_000:]
    if isinstance(error, FleetError):
        return Failed(error.message, error.hint, imports.user_place(error, settings.source), text)
    return Failed(f"{type(error).__name__}: {error}", "", imports.user_place(error, settings.source), text)
