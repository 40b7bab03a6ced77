"""Order among events that leave one by one: those of one output and key go one after the other, others beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fleetfn.errors import OutputDown, OutputError
from fleetfn.invocation import Emit

Send = Callable[[Emit], Awaitable[OutputError | None]]


class EmitLanes:
    """Used on one loop."""

    def __init__(self) -> None:
        self._tails: dict[tuple[str, str], asyncio.Future[None]] = {}
        """Of each output and key the last that was handed over: whoever comes next waits for it."""

    async def publish(self, emits: Sequence[Emit], send: Send) -> list[OutputError | None]:
        """A result per item. Once an output is down for a key, what follows of it is not tried."""
        results: list[OutputError | None] = [None] * len(emits)
        await asyncio.gather(
            *[self._send_lane(emits, lane, results, send, *self._queue(lane, emits)) for lane in _lanes(emits)]
        )
        return results

    def _queue(
        self, places: Sequence[int], emits: Sequence[Emit]
    ) -> tuple[asyncio.Future[None] | None, asyncio.Future[None]]:
        """Whom to wait for, and what to end. Taken before anything is awaited: first come, first sent."""
        emit = emits[places[0]]
        own = asyncio.get_running_loop().create_future()
        if emit.key is None:
            return None, own
        lane = emit.output, emit.key
        before = self._tails.get(lane)
        self._tails[lane] = own
        own.add_done_callback(lambda _: self._tails.pop(lane, None) if self._tails.get(lane) is own else None)
        return before, own

    async def _send_lane(
        self,
        emits: Sequence[Emit],
        places: Sequence[int],
        results: list[OutputError | None],
        send: Send,
        before: asyncio.Future[None] | None,
        own: asyncio.Future[None],
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            for place in places:
                results[place] = error = await send(emits[place])
                if isinstance(error, OutputDown):
                    for later in places[places.index(place) :]:
                        results[later] = error
                    return
        finally:
            own.set_result(None)


def _lanes(emits: Sequence[Emit]) -> list[list[int]]:
    """Places of what has to be sent one after the other; what has no key goes by itself."""
    lanes: dict[tuple[str, str | int], list[int]] = {}
    for place, emit in enumerate(emits):
        lanes.setdefault((emit.output, place if emit.key is None else emit.key), []).append(place)
    return list(lanes.values())
