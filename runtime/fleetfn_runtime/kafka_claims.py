"""Partitions on their way to us: ours in Kafka, and not yet claimed at the inbox, which knows which keys it holds.

No record of a partition is handed over before: it might overtake one of its key that waits in the inbox.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from fleetfn.errors import StoreError
from fleetfn_triggers.inbox import Claimed

log = logging.getLogger("fleetfn.kafka")

Starts = dict[int, int | None]
"""Partitions, and the offset that each begins at; None: not known."""

Ask = Callable[[str, Starts], "Future[Claimed]"]
"""Claim partitions of a stream; on any thread."""

AGAIN = 1.0
"""Seconds until the inbox is asked again."""


class Claims:
    """Used on the consuming thread; `problem` may be read on any."""

    def __init__(self, ask: Ask, who: str) -> None:
        """`who`: begins the lines of the log, e.g. `topic alerts`."""
        self.problem = ""
        self._ask = ask
        self._who = who
        self._waiting: Starts = {}
        self._asked: tuple[Starts, Future[Claimed]] | None = None
        self._again = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def add(self, starts: Starts) -> None:
        self._waiting.update(starts)

    def drop(self, numbers: list[int]) -> None:
        for number in numbers:
            self._waiting.pop(number, None)
            if self._asked is not None:
                self._asked[0].pop(number, None)  # should it come back, its epoch is another one by then
        self._say_if_over()

    def clear(self) -> None:
        self._waiting.clear()
        self._asked = None
        self._again = 0.0
        self.problem = ""

    def granted(self, stream: str, wait: float = 0.0) -> tuple[Starts, Claimed] | None:
        """What was claimed by now, or is within so many seconds. Asks first, where that is due."""
        if self._asked is None:
            if not self._waiting or time.monotonic() < self._again:
                return None
            starts = dict(self._waiting)
            self._asked = starts, self._ask(stream, starts)
        starts, future = self._asked
        try:
            claimed = future.result(wait)
        except concurrent.futures.TimeoutError:
            self._failed("it does not answer")
            return None
        except StoreError as error:
            self._asked = None
            self._again = time.monotonic() + AGAIN
            self._failed(str(error))
            return None
        except concurrent.futures.CancelledError:  # the worker ends
            self._asked = None
            self._again = time.monotonic() + AGAIN
            return None
        self._asked = None
        mine = {number: self._waiting.pop(number) for number in starts if number in self._waiting}
        self._say_if_over()
        return mine, claimed

    def _say_if_over(self) -> None:
        if not self._waiting and self.problem:
            self.problem = ""
            log.info("%s: no partition waits for the inbox any more", self._who)

    def _failed(self, why: str) -> None:
        if not self.problem:
            since = time.strftime("%H:%M:%S", time.gmtime())
            numbers = ", ".join(map(str, sorted(self._waiting)))
            self.problem = f"partitions {numbers} wait for the inbox since {since} UTC: {why}"
            log.warning("%s: %s; trying on", self._who, self.problem)
