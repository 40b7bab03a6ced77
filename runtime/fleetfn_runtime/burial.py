"""Dead letters: an event that will not be tried again is settled once its letter is safe in the inbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.invocation import Emit, Failure
from fleetfn.position import Position
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Inbox, Letter

from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import BACKOFF, Outages

log = logging.getLogger("fleetfn.road")


REFUSED_BY = ":output"
"""Header of an event that an output refused, so that a redrive does not hand it to a handler as its input. No event
comes with it: its name begins with a colon.
"""


class Burial:
    def __init__(
        self,
        function: str,
        revision: str,
        *,
        inbox: Inbox,
        outages: Outages,
        meter: Meter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._function = function
        self._revision = revision
        self._inbox = inbox
        self._outages = outages
        self._meter = meter
        self._clock = clock

    async def event(
        self, delivery: Delivery, reason: str, detail: str, failure: Failure | None, *, park: bool = False
    ) -> bool:
        """Keep the event; returns when it is safe, or False: the worker stops before that, and the next one will.

        `park`: its lane's later events are to be held.
        """
        d = delivery
        letter = self._letter(d.trigger, d.key, d.event, d.position, d.attempts, reason, detail, failure)
        return await self._bury(msgspec.structs.replace(letter, park=park, raw=d.raw))

    async def emit(self, trigger: str, emit: Emit, error: Exception) -> bool:
        """An output refused for good what it seemed to take when its record was saved: the emit is the dead letter."""
        detail = f"output {emit.output} refused it: {error}"
        headers = (*emit.event.headers, (REFUSED_BY, emit.output.encode()))
        event = msgspec.structs.replace(emit.event, headers=headers)
        letter = self._letter(trigger, emit.key, event, None, 1, "output refused", detail, None)
        return await self._bury(letter)

    async def _bury(self, letter: Letter) -> bool:
        delay, longest = BACKOFF
        while True:
            try:
                await self._inbox.bury([letter])
            except StoreError as down:
                self._outages.begin("inbox", down)
            else:
                break
            if self._outages.stopping.is_set():
                return False
            await self._outages.rest(delay)
            delay = min(delay * 2, longest)
        self._outages.end("inbox")
        self._meter.dead(letter.trigger)
        log.error(
            "dead letter of trigger %s (%s, attempt %d): %s",
            letter.trigger,
            letter.reason,
            letter.attempts,
            letter.detail,
            extra={"trigger": letter.trigger, "key": letter.key},
        )
        return True

    def _letter(
        self,
        trigger: str,
        key: str | None,
        event: Event[bytes | None],
        position: Position,
        attempts: int,
        reason: str,
        detail: str,
        failure: Failure | None,
    ) -> Letter:
        return Letter(
            function=self._function,
            trigger=trigger,
            key=key,
            event=event,
            position=position,
            attempts=attempts,
            revision=self._revision,
            reason=reason,
            detail=detail,
            failure=failure,
            created=self._clock(),
        )
