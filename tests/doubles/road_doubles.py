"""Small adapters for tests of the road: a source that remembers, a store that fails on demand, handlers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from fleetfn.errors import OutputDown, OutputError, OutputRefused, RecordError, StateError, StoreError
from fleetfn.event import Event
from fleetfn.invocation import UNCHANGED, Call, Done, Emit, Outcome, Result, Unchanged
from fleetfn.position import At, Position
from fleetfn.store import Conflict, Loaded, Page, Record, Saved, Write
from fleetfn_runtime.breaker import Limits
from fleetfn_runtime.invoker import NoNotes
from fleetfn_runtime.metrics import Metrics
from fleetfn_runtime.retrying import Policy
from fleetfn_runtime.road import Road
from fleetfn_runtime.runs import Batching, Route
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Letter

STREAM = "kafka:telemetry:1"


class ListSource:
    """Remembers what was settled, in order; owns all but what is put into `lost`."""

    trigger = "telemetry"

    def __init__(self) -> None:
        self.settled: list[tuple[Delivery, Outcome]] = []
        self.lost: set[Delivery] = set()
        self.paused: set[str] = set()

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        assert all(known is not delivery for known, _ in self.settled), "settled twice"
        self.settled.append((delivery, outcome))

    def owns(self, delivery: Delivery) -> bool:
        return delivery not in self.lost

    def pause(self, why: str) -> None:
        self.paused.add(why)

    def resume(self, why: str) -> None:
        self.paused.remove(why)

    def bodies(self, key: str | None = None) -> list[bytes]:
        return [d.event.data or b"" for d, _ in self.settled if key is None or d.key == key]

    def outcomes(self) -> list[Outcome]:
        return [outcome for _, outcome in self.settled]


class FlakyStore:
    """A store in memory. `fail` is called before each save and load and may raise; `on_save` sees what was saved."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[Record, int]] = {}
        self.fail: Callable[[str], None] = lambda _: None
        self.on_save: Callable[[Sequence[Write]], None] = lambda _: None
        self.damaged: dict[str, Iterator[bool]] = {}
        """Per key, whether the next calls with it fail."""
        self.loads = 0
        self.saves = 0
        self._etags = itertools.count(1)

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        await asyncio.sleep(0)
        self.fail("load")
        self._check_keys(keys)
        self.loads += len(keys)
        empty = Loaded(Record(), None)
        return [
            Loaded(self.records[key][0], str(self.records[key][1])) if key in self.records else empty for key in keys
        ]

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        await asyncio.sleep(0)
        self.fail("save")
        self._check_keys([write.key for write in writes])
        assert len({write.key for write in writes}) == len(writes)
        results: list[Saved | Conflict] = []
        for write in writes:
            known = self.records.get(write.key)
            if (str(known[1]) if known else None) != write.etag:
                results.append(Conflict())
                continue
            etag = next(self._etags)
            self.records[write.key] = (write.record, etag)
            self.saves += 1
            results.append(Saved(str(etag)))
        self.on_save(writes)
        return results

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return self._page(lambda record: record.value is not None, after, limit)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return self._page(lambda record: bool(record.unsent), after, limit)

    async def close(self) -> None: ...

    def _check_keys(self, keys: Sequence[str]) -> None:
        for key in keys:
            if next(self.damaged.get(key, iter(())), False):
                raise RecordError("damaged", key=key)

    def value(self, key: str) -> bytes | None:
        return self.records[key][0].value if key in self.records else None

    def _page(self, wanted: Callable[[Record], bool], after: str | None, limit: int) -> Page:
        keys = sorted(k for k, (record, _) in self.records.items() if wanted(record) and (after is None or k > after))
        return Page(tuple(keys[:limit]), keys[limit - 1] if len(keys) > limit else None)


class ListInbox:
    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.down = False

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        await asyncio.sleep(0)
        if self.down:
            raise StoreError("the inbox is down")
        self.letters.extend(letters)
        return list(range(len(letters)))


class ListPublisher:
    """Remembers what was published. Outputs in `down` are down, in `refusing` refuse, in `large` fail the check."""

    def __init__(self) -> None:
        self.published: list[Emit] = []
        self.down: set[str] = set()
        self.refusing: set[str] = set()
        self.large: set[str] = set()
        self.calls = 0

    def check(self, emit: Emit) -> None:
        if emit.output in self.large:
            raise OutputRefused("too large")

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        self.calls += 1
        await asyncio.sleep(0)
        return [self._one(emit) for emit in emits]

    def _one(self, emit: Emit) -> OutputError | None:
        if emit.output in self.down:
            return OutputDown("broker unreachable")
        if emit.output in self.refusing:
            return OutputRefused("no such topic")
        self.published.append(emit)
        return None

    async def close(self) -> None: ...


Body = Callable[[Any], Any]


class PlainHandler:
    """`body(call)` gives a Result, an Outcome, a new state value, or None: done, nothing changed."""

    is_async = False

    def __init__(self, body: Body, *, state: bool = False, snapshot: bool = False) -> None:
        self._body = body
        self.has_state = state
        self.has_snapshot = snapshot

    def invoke(self, calls: Sequence[Call]) -> list[Result]:
        return [as_result(self._body(call)) for call in calls]

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        raise NotImplementedError

    def check_value(self, value: bytes) -> None:
        if value == b"bad":
            raise StateError("bad")


class AsyncHandler(PlainHandler):
    is_async = True

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        results: list[Result] = []
        for call in calls:
            answer: Awaitable[Any] = self._body(call)
            results.append(as_result(await answer))
        return results


class BatchHandler(PlainHandler):
    """`body(calls)` gives an answer per call, or one Result for all of them. The state is that of the last answer."""

    takes_batch = True

    def invoke(self, calls: Sequence[Call]) -> list[Result]:
        answers = self._body(calls)
        return [answers] * len(calls) if isinstance(answers, Result) else [as_result(each) for each in answers]


class AsyncBatchHandler(BatchHandler):
    is_async = True

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        await asyncio.sleep(0)
        return self.invoke(calls)


def as_result(answer: Any) -> Result:
    if isinstance(answer, Result):
        return answer
    if isinstance(answer, bytes | Unchanged):
        return Result(Done(), answer)
    return Result(Done() if answer is None else answer, UNCHANGED)


def event(data: bytes | None = b"{}", *, name: str = "1") -> Event[bytes | None]:
    return Event(id=name, source="/test", type="test", data=data)


def emit(output: str = "alerts", data: bytes = b"alert", key: str | None = "car") -> Emit:
    return Emit(output, key, event(data))


_offsets = itertools.count()


def delivery(
    source: ListSource,
    key: str | None = "car",
    data: bytes = b"{}",
    *,
    trigger: str = "telemetry",
    position: Position | str = "",
    **more: Any,
) -> Delivery:
    offset = next(_offsets)
    at = At(STREAM, 0, offset) if isinstance(position, str) else position
    return Delivery(trigger, key, event(data, name=str(offset)), at, source, **more)


def route(
    handler: Any,
    *,
    trigger: str = "telemetry",
    kind: int = 0,
    timeout: float = 30.0,
    park: bool = False,
    breaker: Limits | None = None,
    batch: Batching | None = None,
    **policy: Any,
) -> Route:
    named: dict[str, Any] = {"initial": 0.01, **policy}
    return Route(trigger, handler, kind, timeout, Policy(**named), park=park, breaker=breaker, batch=batch)


class Bench:
    """A road with its surroundings."""

    def __init__(self, *routes: Route, **more: Any) -> None:
        self.source = ListSource()
        self.store = more.pop("store", None) or FlakyStore()
        self.inbox = more.pop("inbox", None) or ListInbox()
        self.publisher = more.pop("publisher", None) or ListPublisher()
        self.replaced: list[str] = []
        suspects = more.pop("suspects", {})
        settings: dict[str, Any] = {"meter": Metrics("watch"), **more}
        self.road = Road(
            function="watch",
            revision="abc",
            routes=routes,
            store=self.store,
            inbox=self.inbox,  # type: ignore[arg-type]  # only `bury` is asked of it
            publisher=self.publisher,
            replace=self.replaced.append,
            **settings,
        )
        self.road.own(NoNotes(), suspects)
        self.road.watch(self.source)

    def deliver(self, *args: Any, **more: Any) -> Delivery:
        made = delivery(self.source, *args, **more)
        self.road.take([made])
        return made

    async def settled(self, count: int) -> list[tuple[Delivery, Outcome]]:
        await until(lambda: len(self.source.settled) >= count)
        return self.source.settled


async def until(true: Callable[[], bool], limit: float = 30.0) -> None:
    deadline = asyncio.get_running_loop().time() + limit
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)
