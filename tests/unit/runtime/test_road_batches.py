"""Batches on the road: each event ends as if it had been alone, whatever happened to the batch it was in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from fleetfn import Batch, Context, Reject, Retry, State
from fleetfn.binder import BindInfo, bind
from fleetfn.errors import StoreError
from fleetfn.invocation import Again, Call, Done, Failure, Rejected, Result
from fleetfn.position import At
from fleetfn.store import Record
from fleetfn_runtime import publishing, stages
from fleetfn_runtime.breaker import Limits
from fleetfn_runtime.metrics import Metrics
from fleetfn_runtime.runs import Batching
from prometheus_client.parser import text_string_to_metric_families
from road_doubles import (
    STREAM,
    AsyncBatchHandler,
    BatchHandler,
    Bench,
    FlakyStore,
    ListSource,
    PlainHandler,
    delivery,
    emit,
    route,
    until,
)

Make = Callable[..., Bench]


class Clock:
    """Real time, which a test may move ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._time() + self._ahead

    def move(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    monkeypatch.setattr(loop, "time", clock)
    return clock


@pytest.fixture
async def bench() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(body: Any, handler: Any = BatchHandler, **more: Any) -> Bench:
        batch = {"size": 100, "wait": 0.0, "by_key": True, **more.pop("batch", {})}
        state = more.pop("state", batch["by_key"])
        policy = {name: more.pop(name) for name in ("attempts", "timeout", "breaker", "park") if name in more}
        named = {"attempts": 3, "initial": 0.0, **policy}
        made.append(Bench(route(handler(body, state=state), batch=Batching(**batch), **named), **more))
        return made[-1]

    yield make
    for one in made:
        await one.road.close()


def data(call: Call) -> bytes:
    return call.event.data or b""


def append(calls: Sequence[Call]) -> list[Any]:
    """All are done, and the state is all of them."""
    state = (calls[0].value or b"") + b"".join(map(data, calls))
    return [*[None] * (len(calls) - 1), state]


def ends(outcomes: dict[bytes, Any], seen: list[bytes] | None = None) -> Callable[[Sequence[Call]], list[Any]]:
    """Who is named ends so on its first attempt; the state holds whoever was in the batch."""

    def body(calls: Sequence[Call]) -> list[Any]:
        if seen is not None:
            seen.append(b"".join(map(data, calls)))
        results = [Result(outcomes.get(data(call), Done()) if call.attempt == 1 else Done()) for call in calls]
        results[-1].value = (calls[0].value or b"") + b"".join(map(data, calls))
        return results

    return body


def several(source: ListSource, letters: str, key: str | None = "car", **more: Any) -> list[Any]:
    return [
        delivery(source, key, letter.encode(), position=At(STREAM, 0, number), **more)
        for number, letter in enumerate(letters)
    ]


def boom(calls: Sequence[Call]) -> Result:
    """What becomes of what the handler raised."""
    failure = Failure("ValueError", "boom")
    return Result(Again(reason="failed", failure=failure, counted=len(calls) == 1, apart=len(calls) > 1))


@pytest.mark.parametrize("handler", [BatchHandler, AsyncBatchHandler], ids=["def", "async def"])
async def test_events_of_a_key_run_and_are_saved_together(bench: Make, handler: Any) -> None:
    sizes: list[int] = []

    def body(calls: Sequence[Call]) -> list[Any]:
        sizes.append(len(calls))
        assert len({call.invocation for call in calls}) == 1
        return append(calls)

    one = bench(body, handler)
    one.road.take(several(one.source, "abcdefgh"))
    await one.settled(8)
    assert sizes == [8]
    assert one.store.value("car") == b"abcdefgh"
    assert one.store.saves == 1
    assert one.source.bodies() == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]
    assert one.store.records["car"][0].marks.offsets == {f"telemetry|{STREAM}|0": 7}
    assert one.road.in_flight == 0


@pytest.mark.parametrize("handler", [BatchHandler, AsyncBatchHandler], ids=["def", "async def"])
async def test_events_of_any_keys_run_together_and_end_each_for_itself(bench: Make, handler: Any) -> None:
    sizes: list[int] = []

    def body(calls: Sequence[Call]) -> list[Any]:
        sizes.append(len(calls))
        outcomes = {b"b": Rejected("no"), b"c": Again(after=0.0) if calls[0].attempt == 1 else None}
        return [outcomes.get(data(call)) for call in calls]

    one = bench(body, handler, batch={"by_key": False})
    for number, letter in enumerate("abcd"):
        one.deliver(None if number % 2 else f"car {number}", letter.encode())
    await one.settled(4)
    assert sizes == [4, 1]
    assert [letter.event.data for letter in one.inbox.letters] == [b"b"]
    assert sorted(one.source.bodies()) == [b"a", b"b", b"c", b"d"]
    assert one.source.bodies()[-1] == b"c"
    assert one.road.in_flight == 0


async def test_emits_of_each_event_leave_after_the_save_in_order(bench: Make) -> None:
    one = bench(lambda calls: [Result(Done(), b"1", (emit(data=data(call)),)) for call in calls])
    one.road.take(several(one.source, "abc"))
    await one.settled(3)
    assert [sent.event.data for sent in one.publisher.published] == [b"a", b"b", b"c"]
    assert one.publisher.calls == 1


class TestOneIsNotDone:
    @pytest.mark.parametrize("ending", [Again(), Rejected("no")], ids=["again", "reject"])
    async def test_what_is_before_it_runs_anew_and_is_saved_without_it(self, bench: Make, ending: Any) -> None:
        seen: list[bytes] = []
        one = bench(ends({b"c": ending}, seen))
        saved: list[bytes | None] = []
        one.store.on_save = lambda writes: saved.extend(write.record.value for write in writes)
        one.road.take(several(one.source, "abcde"))
        await one.settled(5)
        again = isinstance(ending, Again)
        assert seen[:2] == [b"abcde", b"ab"], "nothing of c, d and e may be in what is saved for a and b"
        assert saved[0] == b"ab"
        assert one.store.value("car") == (b"abcde" if again else b"abde")
        assert one.source.bodies() == [b"a", b"b", b"c", b"d", b"e"]
        assert [letter.attempts for letter in one.inbox.letters] == ([] if again else [1])

    async def test_the_first_ends_by_itself_and_nothing_is_saved(self, bench: Make) -> None:
        seen: list[bytes] = []
        one = bench(ends({b"a": Again()}, seen))
        saved: list[bytes | None] = []
        one.store.on_save = lambda writes: saved.extend(write.record.value for write in writes)
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert seen == [b"abc", b"abc"]
        assert saved == [b"abc"]

    async def test_of_several_the_first_decides(self, bench: Make) -> None:
        seen: list[bytes] = []
        one = bench(ends({b"a": Rejected("a"), b"c": Rejected("c")}, seen))
        one.road.take(several(one.source, "abcd"))
        await one.settled(4)
        assert seen == [b"abcd", b"bcd", b"b", b"d"], "what was said of c with a was said of a state that is not"
        assert one.store.value("car") == b"bd"
        assert [letter.event.data for letter in one.inbox.letters] == [b"a", b"c"]

    async def test_what_is_before_it_may_shrink_again(self, bench: Make) -> None:
        """Alone, b is not done either: what c said counts for nothing, since it was said of a state that is not."""
        seen: list[bytes] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            letters = b"".join(map(data, calls))
            seen.append(letters)
            outcomes = {b"abc": {2: Rejected("c")}, b"ab": {1: Rejected("b")}}.get(letters, {})
            results = [Result(outcomes.get(place, Done())) for place in range(len(calls))]
            results[-1].value = (calls[0].value or b"") + letters
            return results

        one = bench(body)
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert seen == [b"abc", b"ab", b"a", b"c"]
        assert one.store.value("car") == b"ac"
        assert [letter.event.data for letter in one.inbox.letters] == [b"b"]

    async def test_it_uses_up_no_attempt_of_those_before_it(self, bench: Make) -> None:
        attempts: list[list[int]] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            attempts.append([call.attempt for call in calls])
            return [Again(after=0.0) if data(call) == b"c" and call.attempt < 3 else None for call in calls]

        one = bench(body)
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert attempts == [[1, 1, 1], [1, 1], [2], [3]]

    async def test_without_state_what_is_before_it_does_not_run_again(self, bench: Make) -> None:
        seen: list[bytes] = []
        one = bench(ends({b"c": Rejected("no")}, seen), state=False)
        one.road.take(several(one.source, "abcd"))
        await one.settled(4)
        assert seen == [b"abcd", b"d"]
        assert one.source.bodies() == [b"a", b"b", b"c", b"d"]

    async def test_an_emit_that_can_never_be_published_is_its_events_end(self, bench: Make) -> None:
        seen: list[bytes] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            seen.append(b"".join(map(data, calls)))
            return [Result(Done(), seen[-1], (emit("big"),) if data(call) == b"b" else ()) for call in calls]

        one = bench(body)
        one.publisher.large.add("big")
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert seen == [b"abc", b"a", b"c"]
        assert [letter.reason for letter in one.inbox.letters] == ["output refused"]

    async def test_a_partition_that_is_lost_before_it_runs_anew(self, bench: Make) -> None:
        made: list[Any] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            one.source.lost.update(made)
            return [None, Again(), b"x"]

        one = bench(body)
        made += several(one.source, "abc")
        one.road.take(made)
        one.road.forget_lost()
        await one.road.quiet()
        await until(lambda: one.road.in_flight == 0)
        assert one.store.value("car") is None
        assert not one.source.settled

    async def test_an_etag_that_is_lost_meanwhile(self, bench: Make) -> None:
        store = FlakyStore()
        seen: list[bytes] = []
        body = ends({b"c": Again()}, seen)

        def meet(calls: Sequence[Call]) -> list[Any]:
            if len(seen) == 1:
                store.records["car"] = (Record(b"-"), 4711)
            return body(calls)

        one = bench(meet, store=store)
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert seen == [b"abc", b"ab", b"ab", b"c", b"c"]
        assert store.value("car") == b"-abc"


class TestAllFail:
    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    @pytest.mark.parametrize("handler", [BatchHandler, AsyncBatchHandler], ids=["def", "async def"])
    async def test_a_poison_among_a_hundred_uses_up_its_own_attempts_only(
        self, bench: Make, handler: Any, *, by_key: bool
    ) -> None:
        runs: list[tuple[int, int]] = []

        def body(calls: Sequence[Call]) -> Any:
            runs.append((len(calls), max(call.attempt for call in calls)))
            return boom(calls) if any(data(call) == b"!" for call in calls) else [None] * len(calls)

        one = bench(body, handler, batch={"by_key": by_key})
        letters = "".join(chr(ord("A") + n) if n != 40 else "!" for n in range(100))
        made = [
            delivery(one.source, "car" if by_key else f"car {n}", letter.encode(), position=At(STREAM, 0, n))
            for n, letter in enumerate(letters)
        ]
        one.road.take(made)
        await one.settled(100)
        assert runs[0] == (100, 1)
        assert all(size == 1 for size, _ in runs[1:])
        assert len(runs) == 1 + 99 + 3
        assert [(letter.event.data, letter.attempts) for letter in one.inbox.letters] == [(b"!", 3)]
        if by_key:
            assert one.source.bodies() == [letter.encode() for letter in letters]

    async def test_the_breaker_sees_keys(self, bench: Make) -> None:
        one = bench(boom, batch={"by_key": False}, breaker=Limits(keys=3))
        for number in range(2):
            one.deliver(f"car {number}")
        await until(lambda: "boom" in one.road.last_error)
        for number in range(2, 4):
            one.deliver(f"car {number}")
        await until(lambda: any("breaker open" in why for _, why in one.road.problems()))
        assert all(one.attempts == 0 for one in (run.delivery for run in one.road._lanes.held()))
        assert not one.inbox.letters

    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    async def test_a_timeout_too(self, bench: Make, *, by_key: bool) -> None:
        sizes: list[int] = []

        async def slow(calls: Sequence[Call]) -> list[Result]:
            sizes.append(len(calls))
            if len(calls) > 1:
                await asyncio.sleep(60)
            return [Result(Done(), data(call)) for call in calls]

        class Slow(AsyncBatchHandler):
            async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
                return await slow(calls)

        one = bench(None, Slow, batch={"by_key": by_key}, timeout=0.3)
        keys = ["car"] * 3 if by_key else ["car", "van", None]
        one.road.take([delivery(one.source, key, position=At(STREAM, 0, n)) for n, key in enumerate(keys)])
        await one.settled(3)
        assert sizes == [3, 1, 1, 1]
        assert one.source.outcomes() == [Done()] * 3
        assert "a batch" not in one.road.last_error
        assert "timeout of 0.3 s" in one.road.last_error

    async def test_a_handler_that_never_ends_holds_all_its_lanes(self, bench: Make) -> None:
        free = threading.Event()

        def body(calls: Sequence[Call]) -> list[Any]:
            if len(calls) > 1:
                free.wait(60)
            return [None] * len(calls)

        one = bench(body, batch={"by_key": False}, timeout=0.02)
        for number in range(3):
            one.deliver(f"car {number}")
        await until(lambda: bool(one.replaced))
        one.road.stop()
        await one.road.quiet()
        assert not one.source.settled
        assert one.road.in_flight == 3
        free.set()


class TestWaiting:
    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    async def test_a_batch_begins_when_its_first_event_has_waited(
        self, bench: Make, clock: Clock, *, by_key: bool
    ) -> None:
        sizes: list[int] = []
        one = bench(lambda calls: sizes.append(len(calls)) or append(calls), batch={"wait": 60.0, "by_key": by_key})
        one.road.take(several(one.source, "ab"))
        clock.move(50)
        one.road.take([delivery(one.source, data=b"c", position=At(STREAM, 0, 9))])
        await rest()
        assert not sizes
        assert one.road.in_flight == one.road.gathering("telemetry") == 3
        clock.move(11)
        await one.settled(3)
        assert sizes == [3]
        assert one.road.gathering("telemetry") == 0

    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    async def test_or_when_it_is_full(self, bench: Make, *, by_key: bool) -> None:
        sizes: list[int] = []
        one = bench(
            lambda calls: sizes.append(len(calls)) or append(calls), batch={"wait": 60.0, "size": 3, "by_key": by_key}
        )
        made = several(one.source, "abcd")
        for each in made:
            one.road.take([each])
            await rest()
        await one.settled(3)
        assert sizes == [3]
        assert one.source.bodies() == [b"a", b"b", b"c"]

    async def test_a_drain_leaves_what_gathers(self, bench: Make, clock: Clock) -> None:
        one = bench(append, batch={"wait": 60.0})
        one.road.take(several(one.source, "ab"))
        await rest()
        one.road.stop()
        await one.road.quiet()
        assert one.road.in_flight == 0
        assert not one.source.settled
        clock.move(100)
        await rest()
        assert one.store.value("car") is None

    async def test_a_drain_leaves_batches_that_no_thread_has_begun(self, bench: Make) -> None:
        free, begun = threading.Event(), threading.Event()

        def body(calls: Sequence[Call]) -> list[Any]:
            begun.set()
            assert free.wait(30)
            return [None] * len(calls)

        one = bench(body, batch={"by_key": False, "size": 2}, concurrency=1)
        for number in range(6):
            one.deliver(None, b"%d" % number)
        await until(begun.is_set)
        one.road.stop()
        free.set()
        await one.road.quiet()
        assert len(one.source.settled) == 2
        assert one.road.in_flight == 0

    async def test_what_gathers_and_is_lost_is_gone(self, bench: Make, clock: Clock) -> None:
        one = bench(append, batch={"wait": 60.0})
        made = several(one.source, "abc")
        one.road.take(made)
        await rest()
        one.source.lost.update(made)
        one.road.forget_lost()
        assert one.road.in_flight == 0
        one.road.take(several(one.source, "d"))
        clock.move(61)
        await one.settled(1)
        assert one.store.value("car") == b"d"

    async def test_a_batch_larger_than_the_window_is_full_some_day(self, bench: Make) -> None:
        sizes: list[int] = []
        one = bench(
            lambda calls: sizes.append(len(calls)) or [None] * len(calls),
            batch={"by_key": False, "size": 3000, "wait": 60.0},
        )
        for start in range(0, 6000, 500):
            one.road.take([delivery(one.source, f"car {start + n}") for n in range(500)])
        await one.settled(6000)
        assert sizes == [3000, 3000]


class TestTrouble:
    async def test_a_store_that_is_down(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stages, "BACKOFF", (0.001, 0.001))
        seen: list[bytes] = []
        one = bench(ends({b"c": Rejected("no")}, seen))
        failures = iter([True] * 3)

        def fail(what: str) -> None:
            if what == "save" and next(failures, False):
                raise StoreError("disk full")

        one.store.fail = fail
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert seen == [b"abc", b"ab"]
        assert one.store.value("car") == b"ab"

    async def test_a_record_that_cannot_be_written_holds_its_key(self, bench: Make, clock: Clock) -> None:
        one = bench(append)
        one.store.damaged["car"] = iter([False, True, True])
        one.road.take(several(one.source, "abc"))
        await until(lambda: bool(one.road.problems()))
        assert not one.source.settled
        one.store.damaged.clear()
        clock.move(61)
        await one.settled(3)
        assert one.store.value("car") == b"abc"
        assert one.source.bodies() == [b"a", b"b", b"c"]

    async def test_an_output_that_is_down(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(publishing, "BACKOFF", (0.001, 0.001))
        runs: list[int] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            runs.append(len(calls))
            return [Result(Done(), b"1", (emit(data=data(call)),)) for call in calls]

        one = bench(body)
        one.publisher.down.add("alerts")
        one.road.take(several(one.source, "abc"))
        await until(lambda: bool(one.source.paused))
        assert not one.source.settled
        one.publisher.down.clear()
        await one.settled(3)
        assert runs == [3]
        assert [sent.event.data for sent in one.publisher.published] == [b"a", b"b", b"c"]

    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    async def test_who_was_there_when_a_worker_died_runs_alone(self, bench: Make, *, by_key: bool) -> None:
        runs: list[tuple[bytes, int]] = []

        def body(calls: Sequence[Call]) -> list[Any]:
            runs.append((b"".join(map(data, calls)), max(call.attempt for call in calls)))
            return append(calls)

        suspects = {("telemetry", At(STREAM, 0, 1)): 1, ("telemetry", At(STREAM, 0, 2)): 3}
        one = bench(body, batch={"by_key": by_key}, suspects=suspects)
        one.road.take(several(one.source, "abcde", None if not by_key else "car"))
        await one.settled(5)
        assert (b"b", 2) in runs
        assert [(letter.event.data, letter.reason) for letter in one.inbox.letters] == [(b"c", "crashed")]
        assert not any(b"c" in letters for letters, _ in runs)
        assert all(letters == b"b" for letters, _ in runs if b"b" in letters)

    async def test_the_ledger_notes_every_event(self, bench: Make) -> None:
        notes: dict[int, tuple[Any, int]] = {}
        under_way: list[dict[int, Any]] = []

        class Ledger:
            def begin(self, trigger: str, position: Any, attempts: int) -> int:  # noqa: ARG002 - the port's
                notes[len(notes)] = (position, attempts)
                return len(notes) - 1

            def end(self, slot: int) -> None:
                del notes[slot]

        def body(calls: Sequence[Call]) -> list[Any]:
            under_way.append(dict(notes))
            return append(calls)

        one = bench(body)
        one.road.own(Ledger(), {})
        one.road.take(several(one.source, "abc"))
        await one.settled(3)
        assert sorted(position.offset for position, _ in under_way[0].values()) == [0, 1, 2]
        assert not notes


class TestAround:
    async def test_by_hand_it_is_a_batch_of_one(self, bench: Make) -> None:
        sizes: list[int] = []
        one = bench(lambda calls: sizes.append(len(calls)) or append(calls), batch={"wait": 60.0})
        one.road.take(several(one.source, "ab"))
        await rest()
        result = await one.road.run_once(delivery(one.source, data=b"x", position=None))
        assert result.outcome == Done()
        assert sizes == [1]
        assert one.store.value("car") == b"x"

    async def test_runs_and_events_are_told_apart(self, bench: Make) -> None:
        metrics = Metrics("watch")
        one = bench(ends({b"c": Again()}), meter=metrics)
        one.road.take(several(one.source, "abcd"))
        await one.settled(4)
        found = {
            (sample.name, sample.labels.get("outcome")): sample.value
            for family in text_string_to_metric_families(metrics.text().decode())
            for sample in family.samples
        }
        assert found["fleetfn_events_total", "done"] == 4
        assert found["fleetfn_events_total", "retry"] == 1
        # abcd, ab, cd
        assert found["fleetfn_invocations_total", "done"] == 3
        assert ("fleetfn_invocations_total", "retry") not in found
        assert found["fleetfn_invocation_duration_seconds_count", None] == 2, "of runs whose first event was done"
        assert metrics.ended("telemetry") == 5

    @pytest.mark.parametrize("by_key", [True, False], ids=["by key", "any"])
    async def test_other_triggers_events_of_the_key_wait_for_no_batch(self, *, by_key: bool) -> None:
        batches: list[int] = []
        one = Bench(
            route(
                BatchHandler(lambda calls: batches.append(len(calls)) or [None] * len(calls)),
                batch=Batching(wait=60.0, by_key=by_key),
            ),
            route(PlainHandler(lambda call: (call.value or b"") + data(call), state=True), trigger="other", kind=1),
        )
        one.road.take([delivery(one.source, trigger="other", data=b"a"), delivery(one.source, data=b"b")])
        one.deliver("van")
        await until(lambda: len(one.source.settled) == 1)
        assert not batches
        one.road.take([delivery(one.source, trigger="other", data=b"c")])
        await one.settled(3)
        assert one.source.bodies() == [b"a", b"b", b"c"]
        assert batches == [1]
        assert one.road.in_flight == 1
        await one.road.close()


class Total(msgspec.Struct):
    seen: list[int] = []


class Reading(msgspec.Struct):
    n: int


async def test_a_handler_as_users_write_it(bench: Make) -> None:
    def watch(readings: Batch[Reading], total: State[Total], ctx: Context) -> list[Any]:
        found: list[Any] = []
        for index, reading in enumerate(readings):
            total.value.seen.append(reading.n)
            if reading.n == 3 and ctx.attempt == 1:
                found.append(Retry(after=0))
            elif reading.n == 5:
                found.append(Reject("five"))
            else:
                ctx.emit("audit", reading.n, item=index)
                found.append({"n": reading.n} if reading.n % 2 else None)
        return found

    info = BindInfo(
        name="telemetry",
        kind="kafka",
        has_key=True,
        function="watch",
        batch="key",
        returns="alerts",
        outputs=frozenset({"audit", "alerts"}),
    )
    one = Bench(route(bind(watch, trigger=info), batch=Batching(by_key=True, wait=0.0), initial=0.0))
    texts = [b'{"n":1}', b'{"n":2}', b'{"n":3}', b'{"n":', b'{"n":5}', b'{"n":6}']
    one.road.take(
        [delivery(one.source, data=text, position=At(STREAM, 0, number)) for number, text in enumerate(texts)]
    )
    await one.settled(6)
    assert one.source.bodies() == texts
    assert one.store.value("car") == b'{"seen":[1,2,3,6]}'
    assert [(letter.event.data, letter.reason) for letter in one.inbox.letters] == [
        (texts[3], "unreadable"),
        (texts[4], "rejected"),
    ]
    sent = [(each.output, each.event.data) for each in one.publisher.published]
    assert sent == [
        ("audit", b"1"),
        ("alerts", b'{"n":1}'),
        ("audit", b"2"),
        ("audit", b"3"),
        ("alerts", b'{"n":3}'),
        ("audit", b"6"),
    ]
    ids = [each.event.id for each in one.publisher.published]
    assert len(set(ids)) == len(ids)
    await one.road.close()


async def rest() -> None:
    """Let all that is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)
