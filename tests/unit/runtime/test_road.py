"""The road of a delivery, stage by stage."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fleetfn.errors import StoreError
from fleetfn.http import Response
from fleetfn.invocation import UNCHANGED, Again, Call, Done, Failure, Rejected, Result
from fleetfn.position import At, Marks, Named
from fleetfn.store import Record
from fleetfn_runtime import burial, ends, publishing, stages, unsent
from fleetfn_runtime.invoker import NoNotes
from road_doubles import (
    STREAM,
    AsyncHandler,
    Bench,
    FlakyStore,
    ListPublisher,
    PlainHandler,
    delivery,
    emit,
    route,
    until,
)

Make = Callable[..., Bench]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    for module in (stages, publishing, unsent, burial):
        monkeypatch.setattr(module, "BACKOFF", (0.01, 0.02))
    monkeypatch.setattr(unsent, "TIDY", 0.01)
    made: list[Bench] = []

    def make(*routes: Any, **more: Any) -> Bench:
        made.append(Bench(*routes, **more))
        return made[-1]

    yield make
    for one in made:
        await one.road.close()


def counting(call: Call) -> bytes:
    return b"%d" % (int(call.value or b"0") + 1)


async def test_runs_a_plain_handler_and_settles(bench: Make) -> None:
    seen: list[tuple[bytes | None, str]] = []
    one = bench(route(PlainHandler(lambda call: seen.append((call.event.data, threading.current_thread().name)))))
    one.deliver("car", b"1")
    [(_, outcome)] = await one.settled(1)
    assert outcome == Done()
    assert seen == [(b"1", "handler-1")]


async def test_runs_an_async_handler_on_the_loop(bench: Make) -> None:
    threads: list[str] = []

    async def handle(_: Call) -> None:
        await asyncio.sleep(0)
        threads.append(threading.current_thread().name)

    one = bench(route(AsyncHandler(handle)))
    one.deliver()
    await one.settled(1)
    assert threads == ["MainThread"]


@pytest.mark.parametrize("handler", [PlainHandler, AsyncHandler], ids=["def", "async def"])
async def test_keeps_order_per_key_and_one_run_at_a_time(bench: Make, handler: type[PlainHandler]) -> None:
    running: dict[str | None, int] = defaultdict(int)

    def handle(call: Call) -> bytes:
        assert running[call.key] == 0
        running[call.key] += 1
        try:
            return (call.value or b"") + (call.event.data or b"") + b" "
        finally:
            running[call.key] -= 1

    async def handle_async(call: Call) -> bytes:
        await asyncio.sleep(0)
        return handle(call)

    body = handle if handler is PlainHandler else handle_async
    one = bench(route(handler(body, state=True)))
    one.road.take([delivery(one.source, f"car{n % 7}", b"%d" % n) for n in range(700)])
    await one.settled(700)
    for car in range(7):
        expected = [b"%d" % n for n in range(700) if n % 7 == car]
        assert (one.store.value(f"car{car}") or b"").split() == expected
        assert one.source.bodies(f"car{car}") == expected


async def test_settles_what_the_marks_have_without_running(bench: Make) -> None:
    one = bench(route(PlainHandler(counting, state=True)))
    at = At(STREAM, 0, 10_000_000)
    one.deliver(position=at)
    one.deliver(position=at)
    one.deliver(position=At(STREAM, 0, 9_999_999))
    assert [outcome for _, outcome in await one.settled(3)] == [Done(), Done(), Done()]
    assert one.store.value("car") == b"1"


async def test_a_caller_who_comes_again_gets_the_reply_remembered(bench: Make) -> None:
    def reply(_: Call) -> Result:
        return Result(Done(Response(201, b"new", {"x-n": "1"})), b"1")

    one = bench(route(PlainHandler(reply, state=True)))
    for _ in range(2):
        one.deliver(position=Named("id"), waits=True)
    (_, first), (_, second) = await one.settled(2)
    assert first == Done(Response(201, b"new", {"x-n": "1"}))
    assert second == Done(Response(201, b"new", {"x-n": "1", "fn-duplicate": "true"}))


async def test_publishes_after_the_save_and_before_settling(bench: Make) -> None:
    happened: list[str] = []
    store, publisher = FlakyStore(), ListPublisher()
    store.on_save = lambda writes: happened.append(f"save {len(writes[0].record.unsent)}")
    one = bench(
        route(PlainHandler(lambda _: Result(Done(), b"1", (emit(), emit())), state=True)),
        store=store,
        publisher=publisher,
    )
    publish = publisher.publish

    async def publishing(emits: Any) -> Any:
        happened.append(f"publish {len(emits)}")
        assert not one.source.settled
        return await publish(emits)

    publisher.publish = publishing  # type: ignore[method-assign]  # to see the order
    one.deliver()
    await one.settled(1)
    assert happened == ["save 2", "publish 2"]
    await until(lambda: not store.records["car"][0].unsent)
    assert happened == ["save 2", "publish 2", "save 0"]


async def test_publishes_first_what_another_worker_saved_and_did_not_send(bench: Make) -> None:
    one = bench(route(PlainHandler(counting, state=True)))
    one.store.records["car"] = (Record(b"5", Marks(), (emit(data=b"old"),)), 0)
    one.deliver()
    await one.settled(1)
    assert [sent.event.data for sent in one.publisher.published] == [b"old"]
    assert one.store.records["car"][0].value == b"6"
    assert one.store.records["car"][0].unsent == ()


async def test_sweeps_unsent_emits_of_keys_that_nothing_arrives_for(bench: Make) -> None:
    one = bench(route(PlainHandler(counting, state=True)))
    for n in range(3):
        one.store.records[f"car{n}"] = (Record(b"5", Marks(), (emit(data=b"%d" % n),)), n)
    one.road.own(NoNotes(), {})
    await until(lambda: not any(record.unsent for record, _ in one.store.records.values()))
    assert [sent.event.data for sent in one.publisher.published] == [b"0", b"1", b"2"]


async def test_what_is_refused_when_it_is_swept_is_a_dead_letter_of_a_trigger_that_there_is(bench: Make) -> None:
    """Nobody could redrive or discard what waits for a trigger that there is not."""
    one = bench(route(PlainHandler(counting, state=True)))
    one.store.records["car"] = (Record(b"5", Marks(), (emit(data=b"0"),)), 0)
    one.publisher.refusing.add("alerts")
    one.road.own(NoNotes(), {})
    await until(lambda: bool(one.inbox.letters))
    assert [letter.trigger for letter in one.inbox.letters] == ["telemetry"]


async def test_a_damaged_record_does_not_keep_the_others_unsent(bench: Make) -> None:
    one = bench(route(PlainHandler(counting, state=True)))
    for n in range(3):
        one.store.records[f"car{n}"] = (Record(b"5", Marks(), (emit(data=b"%d" % n),)), n)
    one.store.damaged["car1"] = iter([True] * 1000)
    one.road.own(NoNotes(), {})
    await until(lambda: len(one.publisher.published) == 2)
    assert [sent.event.data for sent in one.publisher.published] == [b"0", b"2"]
    assert not one.source.paused


async def test_who_loses_the_etag_runs_again_without_counting_an_attempt(bench: Make) -> None:
    attempts: list[int] = []
    store = FlakyStore()

    def handle(call: Call) -> bytes:
        attempts.append(call.attempt)
        if len(attempts) == 1:
            store.records["car"] = (Record(b"41"), 4711)
        return counting(call)

    one = bench(route(PlainHandler(handle, state=True)), store=store)
    one.deliver()
    await one.settled(1)
    assert store.value("car") == b"42"
    assert attempts == [1, 1]


async def test_retries_with_backoff_until_the_attempts_are_used_up_and_buries(bench: Make) -> None:
    attempts: list[int] = []

    def fail(call: Call) -> Again:
        attempts.append(call.attempt)
        return Again(reason="boom", failure=Failure("ValueError", "boom", "handler.py:3", "Traceback"))

    one = bench(route(PlainHandler(fail), attempts=3))
    made = one.deliver("car", b"poison")
    [(settled, outcome)] = await one.settled(1)
    assert settled is made
    assert isinstance(outcome, Rejected)
    assert attempts == [1, 2, 3]
    [letter] = one.inbox.letters
    assert (letter.reason, letter.attempts, letter.key, letter.event.data) == ("attempts", 3, "car", b"poison")
    assert letter.failure is not None
    assert letter.failure.traceback == "Traceback"
    assert one.road.last_error == "ValueError: boom (handler.py:3)"


async def test_retries_after_the_delay_named_by_the_handler(bench: Make) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    def later(call: Call) -> Again | None:
        times.append(loop.time())
        return Again(after=0.1) if call.attempt == 1 else None

    one = bench(route(PlainHandler(later), initial=60.0))
    one.deliver()
    await one.settled(1)
    assert 0.1 <= times[1] - times[0] < 25  # its own policy would say more


async def test_a_key_that_waits_for_its_retry_holds_its_own_events_and_nobody_elses(bench: Make) -> None:
    def handle(call: Call) -> Again | None:
        return Again(after=0.1) if call.event.data == b"late" and call.attempt == 1 else None

    one = bench(route(PlainHandler(handle)))
    one.deliver("a", b"late")
    one.deliver("a", b"behind")
    one.deliver("b", b"other")
    await one.settled(3)
    assert one.source.bodies() == [b"other", b"late", b"behind"]


async def test_reject_is_buried_at_once(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Rejected("no such car"))))
    one.deliver()
    await one.settled(1)
    [letter] = one.inbox.letters
    assert (letter.reason, letter.detail, letter.attempts) == ("rejected", "no such car", 1)


async def test_an_event_that_cannot_be_read_is_buried_without_running(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: pytest.fail("it ran"))))
    one.deliver(None, b"\xff", problem="no key: data.vehicle is absent")
    await one.settled(1)
    [letter] = one.inbox.letters
    assert (letter.reason, letter.detail, letter.event.data) == (
        "unreadable",
        "no key: data.vehicle is absent",
        b"\xff",
    )


async def test_an_event_that_could_not_be_decoded_is_so_still_once_it_is_redriven(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: pytest.fail("it ran"))))
    one.deliver(None, b"\xff", problem="decode failed: ValueError: checksum", raw=True)
    await one.settled(1)
    assert one.inbox.letters[0].raw


async def test_settles_a_dead_letter_only_once_it_is_safe(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Rejected("no"))))
    one.inbox.down = True
    one.deliver()
    await until(lambda: bool(one.source.paused))
    assert not one.source.settled
    one.inbox.down = False
    await one.settled(1)
    assert not one.source.paused
    assert len(one.inbox.letters) == 1


@pytest.mark.parametrize(
    "outcome",
    [Again(after=3.0), Again(reason="crash", failure=Failure("KeyError", "x")), Rejected("no"), Done()],
    ids=["retry", "crash", "reject", "done"],
)
async def test_who_waits_gets_the_outcome_as_it_is(bench: Make, outcome: Any) -> None:
    one = bench(route(PlainHandler(lambda _: outcome)))
    one.deliver(waits=True)
    [(_, got)] = await one.settled(1)
    assert got == outcome
    assert not one.inbox.letters


async def test_bad_data_of_a_caller_is_a_400(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: None)))
    one.deliver(None, problem="no key", waits=True)
    [(_, got)] = await one.settled(1)
    assert got == Rejected("no key", status=400)


async def test_a_query_does_not_wait_behind_its_keys_events(bench: Make) -> None:
    release = threading.Event()

    def slow(_: Call) -> bytes:
        assert release.wait(30)
        return b"after"

    one = bench(
        route(PlainHandler(slow, state=True)),
        route(
            PlainHandler(lambda call: Done(Response(body=call.value)), snapshot=True),
            trigger="show",
            kind=1,
        ),
    )
    one.store.records["car"] = (Record(b"before"), 1)
    one.deliver("car")
    one.deliver("car", trigger="show", position=None, waits=True)
    [(_, got)] = await one.settled(1)
    release.set()
    assert got == Done(Response(body=b"before"))
    release.set()
    await one.settled(2)


async def test_output_down_is_no_attempt_and_pauses_the_source_until_it_is_back(bench: Make) -> None:
    runs: list[int] = []

    def handle(call: Call) -> Result:
        runs.append(call.attempt)
        return Result(Done(), b"1", (emit(),))

    one = bench(route(PlainHandler(handle, state=True)))
    one.publisher.down.add("alerts")
    one.deliver()
    await until(lambda: one.publisher.calls >= 3)
    assert [why.split(" is down")[0] for why in one.source.paused] == ["output alerts"]
    assert one.road.problems()
    assert one.store.records["car"][0].unsent
    assert not one.source.settled
    one.publisher.down.clear()
    await one.settled(1)
    assert runs == [1]
    assert not one.source.paused
    assert not one.road.problems()


async def test_output_down_tells_who_waits_and_sends_later(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Result(Done(), b"1", (emit(),)), state=True)))
    one.publisher.down.add("alerts")
    one.deliver(position=Named("x"), waits=True)
    [(_, got)] = await one.settled(1)
    assert isinstance(got, Again)
    assert not got.counted
    one.publisher.down.clear()
    await until(lambda: len(one.publisher.published) == 1)
    await until(lambda: not one.store.records["car"][0].unsent)


async def test_an_emit_that_is_too_large_fails_its_event_before_the_save(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Result(Done(), b"1", (emit(),)), state=True)))
    one.publisher.large.add("alerts")
    one.deliver()
    await one.settled(1)
    assert one.store.value("car") is None
    assert [letter.reason for letter in one.inbox.letters] == ["output refused"]


async def test_an_emit_refused_after_the_save_becomes_a_dead_letter_itself(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Result(Done(), b"1", (emit(data=b"a"),)), state=True)))
    one.publisher.refusing.add("alerts")
    one.deliver()
    await one.settled(1)
    [letter] = one.inbox.letters
    assert (letter.reason, letter.event.data) == ("output refused", b"a")
    assert letter.event.headers == ((burial.REFUSED_BY, b"alerts"),)
    assert one.store.value("car") == b"1"


@pytest.mark.parametrize("operation", ["load", "save"])
async def test_a_store_that_is_down_is_no_attempt(bench: Make, operation: str) -> None:
    one = bench(route(PlainHandler(counting, state=True)))
    failures = iter([True] * 3)

    def fail(what: str) -> None:
        if what == operation and next(failures, False):
            raise StoreError("disk full")

    one.store.fail = fail
    made = one.deliver()
    await until(lambda: bool(one.source.paused))
    await one.settled(1)
    assert one.store.value("car") == b"1"
    assert made.attempts == 0
    assert not one.source.paused


async def test_a_store_that_is_down_tells_who_waits(bench: Make) -> None:
    one = bench(route(PlainHandler(counting, state=True)))

    def fail(_: str) -> None:
        raise StoreError("disk full")

    one.store.fail = fail
    one.deliver(waits=True)
    [(_, got)] = await one.settled(1)
    assert isinstance(got, Again)
    assert not got.counted


async def test_state_that_does_not_decode_holds_its_lane_and_is_never_buried(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "BLOCKED_FOR", 0.01)
    bad = Again(reason="state", failure=Failure("StateError", "missing field"), counted=False)
    runs: list[str | None] = []

    def handle(call: Call) -> Any:
        runs.append(call.key)
        return bad if call.key == "bad" and runs.count("bad") < 9 else UNCHANGED

    one = bench(route(PlainHandler(handle, state=True), attempts=2))
    one.deliver("bad")
    one.deliver("good")
    await until(lambda: bool(one.road.problems()))
    assert one.road.problems() == (("telemetry", "1 keys wait: StateError: missing field"),)
    await one.settled(2)
    assert one.source.bodies("good")
    assert not one.inbox.letters
    assert not one.road.problems()


@pytest.mark.parametrize("stage", ["before", "in handler", "after save"])
async def test_what_belongs_to_somebody_else_is_dropped(bench: Make, stage: str) -> None:
    def lose() -> None:
        one.source.lost.add(made)

    def handle(_: Call) -> Result:
        if stage == "in handler":
            lose()
        return Result(Done(), b"1", (emit(),))

    one = bench(route(PlainHandler(handle, state=True)))
    if stage == "after save":
        one.store.on_save = lambda _: lose()
    made = delivery(one.source)
    if stage == "before":
        lose()
    one.road.take([made])
    await one.road.quiet()
    assert not one.source.settled
    assert (one.store.value("car") is not None) == (stage == "after save")
    assert not one.publisher.published


async def test_a_timed_out_async_handler_is_cancelled_and_counts(bench: Make) -> None:
    attempts: list[int] = []

    async def slow(call: Call) -> bytes:
        attempts.append(call.attempt)
        if call.attempt < 3:
            await asyncio.sleep(10)
        return counting(call)

    one = bench(route(AsyncHandler(slow, state=True), timeout=0.3))
    one.deliver()
    await one.settled(1)
    assert attempts == [1, 2, 3]
    assert one.store.value("car") == b"1"


async def test_a_plain_handler_that_does_not_end_is_sealed_and_the_worker_replaced(bench: Make) -> None:
    release = threading.Event()
    calls: list[Call] = []

    def handle(call: Call) -> bytes:
        calls.append(call)
        if call.event.data == b"stuck":
            ident.append(threading.get_ident())
            release.wait(60)
        return b"1"

    ident: list[int] = []
    one = bench(route(PlainHandler(handle, state=True), timeout=0.5), concurrency=1)
    one.road.take([delivery(one.source, "a", b"stuck"), delivery(one.source, "a"), delivery(one.source, "b")])
    await until(lambda: bool(one.replaced))
    await one.settled(1)
    assert one.source.settled[0][0].key == "b"
    assert calls[0].sealed
    one.road.stop()
    await one.road.quiet()
    [stuck] = [thread for thread in threading.enumerate() if thread.ident == ident[0]]
    release.set()
    await until(lambda: not stuck.is_alive())
    assert one.store.value("a") is None
    assert len(one.source.settled) == 1


async def test_a_handler_that_blocks_does_not_stall_other_keys(bench: Make) -> None:
    release = threading.Event()

    def handle(call: Call) -> None:
        if call.key == "slow":
            assert release.wait(60)

    one = bench(route(PlainHandler(handle)))
    one.road.take([delivery(one.source, "slow"), *(delivery(one.source, f"car{n}") for n in range(300))])
    await one.settled(300)
    release.set()
    await one.settled(301)


async def test_suspects_run_alone(bench: Make) -> None:
    running: list[str | None] = []
    together: list[set[str | None]] = []

    async def handle(call: Call) -> None:
        running.append(call.key)
        together.append(set(running))
        await asyncio.sleep(0.005)
        running.remove(call.key)

    at = At(STREAM, 0, 77)
    one = bench(route(AsyncHandler(handle)), suspects={("telemetry", at): 2})
    made = delivery(one.source, "suspect", position=at)
    one.road.take([delivery(one.source, "a"), made, delivery(one.source, "b")])
    await one.settled(3)
    assert {"suspect"} in together
    assert all("suspect" not in group or group == {"suspect"} for group in together)
    assert made.attempts == 2


async def test_an_event_that_killed_its_worker_too_often_is_buried(bench: Make) -> None:
    at = At(STREAM, 0, 78)
    one = bench(route(PlainHandler(lambda _: pytest.fail("it ran")), attempts=3), suspects={("telemetry", at): 3})
    one.deliver(position=at)
    await one.settled(1)
    assert [(letter.reason, letter.attempts) for letter in one.inbox.letters] == [("crashed", 3)]


async def test_stopping_finishes_what_runs_and_leaves_the_rest(bench: Make) -> None:
    release = asyncio.Event()
    begun: list[str | None] = []

    async def handle(call: Call) -> bytes:
        begun.append(call.key)
        await release.wait()
        return b"1"

    one = bench(route(AsyncHandler(handle, state=True)), concurrency=2)
    one.road.take([delivery(one.source, f"car{n}") for n in range(5)])
    await until(lambda: one.store.loads == 5 and len(begun) == 2)
    one.road.stop()
    one.deliver("late")
    release.set()
    await one.road.quiet()
    assert sorted(one.store.records) == ["car0", "car1"]
    assert len(one.source.settled) == 2
    assert one.road.in_flight == 0


async def test_run_once_tells_the_result_and_leaves_the_source_alone(bench: Make) -> None:
    one = bench(route(PlainHandler(lambda _: Result(Done(Response(body="hi")), b"1", (emit(),)), state=True)))
    result = await one.road.run_once(delivery(one.source, position=None))
    assert result.outcome == Done(Response(body="hi"))
    assert [out.output for out in result.emits] == ["alerts"]
    assert one.store.value("car") == b"1"
    assert len(one.publisher.published) == 1
    assert not one.source.settled


@pytest.mark.parametrize("failures", [[True] * 5, [False, True, False, True]], ids=["load", "save"])
async def test_a_record_that_cannot_be_read_or_written_holds_its_key_and_nobody_else(
    bench: Make, monkeypatch: pytest.MonkeyPatch, failures: list[bool]
) -> None:
    monkeypatch.setattr(ends, "BLOCKED_FOR", 0.01)
    one = bench(route(PlainHandler(counting, state=True), attempts=2))
    one.store.damaged["bad"] = iter(failures)
    one.road.take([delivery(one.source, key) for key in ("a", "bad", "bad", "b")])
    await until(lambda: bool(one.road.problems()))
    assert not one.source.paused
    await one.settled(4)
    assert sorted(one.source.bodies("bad")) == [b"{}", b"{}"]
    assert [one.store.value(key) for key in ("a", "b", "bad")] == [b"1", b"1", b"2"]
    assert not one.inbox.letters
    assert not one.road.problems()


async def test_an_emit_that_breaks_its_output_fails_its_event_and_not_the_worker(bench: Make) -> None:
    def broken(_: Any) -> None:
        raise UnicodeError("a defect")

    one = bench(route(PlainHandler(lambda _: Result(Done(), b"1", (emit(),)), state=True)))
    one.publisher.check = broken  # type: ignore[method-assign]  # as a defect of an output would
    one.deliver()
    await one.settled(1)
    assert [letter.reason for letter in one.inbox.letters] == ["output refused"]
    assert not one.replaced


async def test_a_caller_does_not_wait_for_the_retry_of_his_keys_event(bench: Make) -> None:
    retry = PlainHandler(lambda call: Again(after=1.0) if call.attempt == 1 else b"late", state=True)
    one = bench(route(retry), route(PlainHandler(lambda _: b"now", state=True), trigger="show", kind=1))
    one.deliver("car", b"retried")
    await until(lambda: one.road.last_error_time is not None)
    one.deliver("car", b"asked", trigger="show", position=None, waits=True)
    await one.settled(2)
    assert one.source.bodies() == [b"asked", b"retried"]
    assert one.store.value("car") == b"late"
