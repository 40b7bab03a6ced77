"""A user's `decode` for pushed rows, on a thread of its own, as Kafka's records are decoded on their consumer's: one
that is slow, or never ends, holds up its own trigger and not the worker's loop.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from fleetfn.event import Event
from fleetfn_triggers.reading import Unreadable, with_data

R = TypeVar("R")


class Decoded(NamedTuple):
    """`problem`: why it could not be decoded; then the event is as it came."""

    event: Event[bytes | None]
    problem: str | None = None


class Decoding(Generic[R]):
    """Of one trigger. Use on one loop. `came` gets what was given, in order, and what became of each event."""

    def __init__(
        self, name: str, decode: Callable[[bytes], object], came: Callable[[Sequence[tuple[R, Decoded]]], None]
    ) -> None:
        self._decode = decode
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._given: queue.SimpleQueue[Sequence[tuple[R, Event[bytes | None], bool]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"decode-{name}", daemon=True).start()

    def give(self, rows: Sequence[tuple[R, Event[bytes | None], bool]]) -> None:
        """A row, its event, and whether that is to be decoded: one that is not keeps its place all the same."""
        self._given.put(rows)

    def close(self) -> None:
        """What was given is decoded still, unless the process ends."""
        self._given.put(None)

    def _run(self) -> None:
        while (rows := self._given.get()) is not None:
            decoded = [(row, self._one(event) if raw else Decoded(event)) for row, event, raw in rows]
            try:
                self._loop.call_soon_threadsafe(self._came, decoded)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _one(self, event: Event[bytes | None]) -> Decoded:
        try:
            return Decoded(with_data(event, self._decode))
        except Unreadable as unreadable:
            return Decoded(event, str(unreadable))
        except BaseException as error:  # noqa: BLE001 - SystemExit, say, must not end the thread
            return Decoded(event, f"decode failed: {type(error).__name__}: {error}")
