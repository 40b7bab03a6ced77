"""What users build their own tests with."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pydantic
import pytest
from fleetfn import Batch, Config, Context, Event, Reject, Request, Response, Retry, Snapshot, State, Tick, testing
from fleetfn.errors import BindingError, FleetError, UsageError
from fleetfn.invocation import Again, Done, Rejected


class Reading(msgspec.Struct):
    vehicle: str
    temperature: float


class Pack(msgspec.Struct):
    hottest: float = 0.0
    seen: int = 0


class Limits(msgspec.Struct):
    hot: float


class Alert(msgspec.Struct):
    vehicle: str
    level: int


def watch(reading: Reading, state: State[Pack], limits: Config[Limits]) -> Alert | None:
    state.value.seen += 1
    state.value.hottest = max(state.value.hottest, reading.temperature)
    return Alert(reading.vehicle, 3) if reading.temperature > limits.hot else None


@pytest.fixture
def run():
    return testing.Function(watch, config={"hot": 60}, returns="alerts", key=lambda reading: reading.vehicle)


def test_a_run_shows_what_was_returned_sent_and_kept(run):
    result = run(Reading("V1", 71.5))
    assert result.done
    assert result.returned == Alert("V1", 3)
    assert [(sent.output, sent.key, sent.data) for sent in result.emits] == [
        ("alerts", "V1", {"vehicle": "V1", "level": 3})
    ]
    assert result.emits[0].read(Alert) == Alert("V1", 3)
    assert result.state == Pack(71.5, 1)
    assert result.error == ""


def test_state_stays_from_run_to_run_and_apart_from_key_to_key(run):
    run(Reading("V1", 20))
    run(Reading("V1", 30))
    run(Reading("V2", 10))
    assert run.state("V1") == Pack(30, 2)
    assert run.state("V2") == Pack(10, 1)
    assert run.state("V3") is None


def test_state_can_be_put_before_a_run(run):
    run.put(Pack(99, 7), key="V1")
    assert run(Reading("V1", 20)).state == Pack(99, 8)
    run.put(None, key="V1")
    assert run.state("V1") is None


def test_an_event_taken_before_is_a_duplicate(run):
    first = run(Reading("V1", 71), position=5)
    again = run(Reading("V1", 71), position=5)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.emits == []
    assert run.state("V1").seen == 1
    assert not run(Reading("V1", 71), position=6).duplicate


def test_a_duplicate_of_a_named_request_gets_the_reply_kept(run):
    run(Reading("V1", 71), position="a-1")
    again = run(Reading("V1", 20), position="a-1")
    assert again.duplicate
    assert again.reply.body == b'{"vehicle":"V1","level":3}'


def test_time_stands_still_until_it_is_moved():
    def now(ctx: Context) -> str:
        return ctx.now.isoformat()

    run = testing.Function(now)
    assert run().returned == run().returned == "2026-01-01T00:00:00+00:00"
    run.advance(90)
    run.advance(timedelta(minutes=1))
    assert run().returned == "2026-01-01T00:02:30+00:00"
    run.clock = datetime(2030, 1, 1, tzinfo=UTC)
    assert run().returned.startswith("2030")
    run.clock = 0
    assert run().returned.startswith("1970")
    with pytest.raises(UsageError, match="no time zone"):
        run.clock = datetime(2030, 1, 1)  # noqa: DTZ001 - the point


@dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize(
    "data",
    [Point(1), Model(x=1), {"x": 1}, b'{"x":1}', '{"x":1}', Event(id="e", source="s", type="t", data={"x": 1})],
    ids=lambda data: type(data).__name__,
)
def test_data_of_any_kind(data):
    def handler(point: Point) -> int:
        return point.x

    assert testing.Function(handler)(data).returned == 1


def test_no_data_is_a_tombstone():
    def handler(data: dict | None) -> str:
        return "gone" if data is None else "there"

    assert testing.Function(handler)().returned == "gone"


def test_retry_and_reject_are_outcomes():
    def handler(word: str) -> None:
        if word == "retry":
            raise Retry("busy", after=timedelta(seconds=5))
        raise Reject(word)

    run = testing.Function(handler)
    assert run("retry").outcome == Again(after=5.0, reason="busy")
    assert run("too old").outcome == Rejected("too old")
    assert run("too old").error == "too old"
    assert (run("retry").reply.status, run("x").reply.status) == (503, 422)


def test_an_exception_is_an_outcome_with_the_users_line():
    def handler(data: int) -> float:
        return 1 / data

    result = testing.Function(handler)(0)
    assert result.failure.type == "ZeroDivisionError"
    assert result.error.startswith("ZeroDivisionError: division by zero (test_sdk_testing.py:")
    assert result.reply.status == 500
    with pytest.raises(AssertionError, match=r"did not return: ZeroDivisionError(?s:.*)return 1 / data"):
        _ = result.returned


def test_ctrl_c_gets_out():
    def handler() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        testing.Function(handler)()


def test_a_failed_run_changes_nothing():
    def handler(state: State[Pack], ctx: Context) -> None:
        state.value.seen += 1
        ctx.emit("alerts", {"a": 1})
        raise ValueError("late")

    run = testing.Function(handler, key="V1")
    result = run()
    assert (result.emits, result.state, run.state()) == ([], None, None)


def test_outputs_are_checked_where_they_are_named():
    def handler(ctx: Context) -> None:
        ctx.emit("alrts", "x")

    assert testing.Function(handler)().done
    result = testing.Function(handler, outputs={"alerts"})()
    assert "there is no output 'alrts' (did you mean 'alerts'?)" in result.error


def test_emits_are_shown_as_their_content_type_says():
    def handler(ctx: Context) -> None:
        ctx.emit("a", {"x": 1})
        ctx.emit("b", "text", key="V9")
        ctx.emit("c", b"\x00")
        ctx.emit("d")

    emits = testing.Function(handler, key="V1")().emits
    assert [(sent.key, sent.data) for sent in emits] == [
        ("V1", {"x": 1}),
        ("V9", "text"),
        ("V1", b"\x00"),
        ("V1", None),
    ]
    assert [sent.id for sent in emits] == ["test-1-0", "test-1-1", "test-1-2", "test-1-3"]


def test_async_handlers():
    async def handler(data: int, ctx: Context) -> int:
        await asyncio.sleep(0)
        return data + ctx.resources

    run = testing.Function(handler, resources=40)
    assert run(2).returned == 42


async def test_async_handlers_within_a_loop():
    async def handler(data: int) -> int:
        return data + 1

    run = testing.Function(handler)
    assert (await run.aio(1)).returned == 2
    with pytest.raises(UsageError, match="handler\\(\\) is async") as caught:
        run(1)
    assert "run.aio" in caught.value.hint


async def test_plain_handlers_within_a_loop(run):
    assert run(Reading("V1", 71)).done
    assert (await run.aio(Reading("V1", 71))).done


def test_http_requests():
    def show(request: Request, pack: Snapshot[Pack]) -> Pack | Response:
        assert request.path_params == {"vehicle": "V1"}
        return pack.value if pack.exists else Response(404, {"error": request.path})

    run = testing.Function(show, key="V1")
    reply = run.http("GET", "/battery/V1", path_params={"vehicle": "V1"}).reply
    assert (reply.status, reply.body, reply.headers["content-type"]) == (
        404,
        b'{"error":"/battery/V1"}',
        "application/json",
    )
    run.put(Pack(5, 1))
    assert run.http(path_params={"vehicle": "V1"}).reply.body == b'{"hottest":5.0,"seen":1}'


def test_http_bodies():
    def handler(request: Request) -> str:
        return f"{request.method} {request.headers['content-type']} {request.headers['x-a']} {request.body.decode()}"

    result = testing.Function(handler).http("POST", body={"a": 1}, headers={"X-A": "b"})
    assert result.returned == 'POST application/json b {"a":1}'
    assert result.reply.headers["content-type"].startswith("text/plain")


def test_state_needs_a_key():
    run = testing.Function(watch, config={"hot": 60})
    with pytest.raises(UsageError, match="has state, and the event no key"):
        run(Reading("V1", 1))
    assert run(Reading("V1", 1), key="V1").done
    with pytest.raises(UsageError, match="whose state"):
        run.state()


def test_what_cannot_be_deployed_cannot_be_tested():
    def handler(first: int, second: str) -> None: ...

    with pytest.raises(BindingError, match="second payload"):
        testing.Function(handler)


def test_state_that_does_not_decode():
    def handler(state: State[Pack]) -> None: ...

    run = testing.Function(handler, key="V1")
    with pytest.raises(FleetError, match="does not decode as Pack"):
        run.put({"hottest": "hot"})


FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hot}
spec:
  handler: sdk_folder_handler:watch
  config: {hot: 60}
  triggers:
  - {name: telemetry, kafka: {topic: t}}
  - {name: show, handler: "sdk_folder_handler:show", returns: null, http: {path: /}}
  outputs:
  - {name: alerts, kafka: {topic: alerts}}
  returns: alerts
"""

HANDLER = """
def watch(data: dict) -> dict:
    return data

def show(data: dict) -> str:
    return "shown"
"""


def test_a_folder_is_read_as_deployed(tmp_path, monkeypatch):
    (tmp_path / "function.yaml").write_text(FUNCTION)
    (tmp_path / "sdk_folder_handler.py").write_text(HANDLER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "sdk_folder_handler", raising=False)
    sent = testing.Function(tmp_path)({"a": 1}).emits[0]
    assert (sent.output, sent.event.source, sent.event.type) == ("alerts", "/functions/hot", "hot.alerts")
    shown = testing.Function(str(tmp_path), trigger="show")({})
    assert (shown.returned, shown.emits) == ("shown", [])
    with pytest.raises(UsageError, match="no trigger 'x'"):
        testing.Function(tmp_path, trigger="x")


def test_a_module_and_callable():
    assert testing.Function(f"{__name__}:by_name")(2).returned == 4
    with pytest.raises(UsageError, match="'handler' is no handler"):
        testing.Function("handler")


def by_name(data: int) -> int:
    return data * 2


def test_outcomes_have_a_reply_even_where_nobody_waits():
    def handler() -> None: ...

    result = testing.Function(handler)()
    assert isinstance(result.outcome, Done)
    assert result.reply.status == 204


class Trips(msgspec.Struct):
    count: int = 0


def drive(data: dict, state: State[Trips]) -> None:
    state.value.count += data["trips"]


def total(tick: Tick, ctx: Context) -> dict[str, int]:
    return {key: trips.count for key, trips in ctx.states(Trips)}


async def total_async(ctx: Context) -> dict[str, int]:
    return {key: trips.count async for key, trips in ctx.states(Trips)}


def test_a_handler_walks_the_states_that_a_test_put():
    run = testing.Function(total)
    run.put(Trips(3), key="V2")
    run.put(Trips(1), key="V1")
    assert run(Tick(at=datetime(2026, 1, 2, tzinfo=UTC))).returned == {"V1": 1, "V2": 3}


def test_one_handler_walks_what_another_kept():
    driving = testing.Function(drive, key="V1")
    driving({"trips": 2})
    driving({"trips": 5}, key="V2")
    for handler in (total, total_async):
        run = testing.Function(handler)
        run.store = driving.store
        assert run(Tick(at=datetime(2026, 1, 2, tzinfo=UTC)) if handler is total else None).returned == {
            "V1": 2,
            "V2": 5,
        }


def test_a_walk_is_of_the_handlers_own_state_type():
    def wrong(state: State[Trips], ctx: Context) -> None:
        ctx.states(Pack)

    assert testing.Function(wrong, key="V1")().failure.message == (
        "ctx.states(Pack): this function keeps Trips (ask for ctx.states(Trips))"
    )


class TestBatches:
    def test_a_result_per_event(self):
        def store(readings: Batch[dict], ctx: Context) -> list:
            ctx.emit("audit", len(readings), item=0)
            return [reading["n"] or Reject("zero") for reading in readings]

        run = testing.Function(store, returns="alerts", key=lambda data: f"V{data['n']}")
        one, two, three = run.batch([{"n": 1}, {"n": 0}, {"n": 3}])
        assert [(sent.output, sent.data, sent.key) for sent in one.emits] == [("audit", 3, "V1"), ("alerts", 1, "V1")]
        assert (two.done, two.error) == (False, "zero")
        assert (three.done, three.returned, [sent.data for sent in three.emits]) == (True, 3, [3])
        assert run({"n": 7}).emits[0].data == 1

    def test_state_is_of_what_is_before_the_first_that_is_not_done(self):
        runs = []

        def watch(readings: Batch[int], pack: State[Pack]) -> list:
            runs.append(list(readings))
            pack.value.seen += len(readings)
            return [Retry("later") if reading < 0 else None for reading in readings]

        run = testing.Function(watch, key="V1")
        results = run.batch([1, 2, -1, 4])
        assert runs == [[1, 2, -1, 4], [1, 2]]
        assert [result.done for result in results] == [True, True, False, False]
        assert results[2].error == "later"
        assert "waits" in results[3].error
        assert run.state().seen == results[0].state.seen == 2

    def test_a_handler_that_fails_fails_for_all(self):
        def watch(readings: Batch[int], pack: State[Pack]) -> None:
            pack.value.seen += 1
            if len(readings) > 1:
                raise ValueError("boom")

        run = testing.Function(watch, key="V1")
        assert [result.failure.message for result in run.batch([1, 2])[:1]] == ["boom"]
        assert run.state() is None
        assert run(1).done
        assert run.state().seen == 1

    def test_what_was_taken_is_not_run_again(self):
        def watch(readings: Batch[int], pack: State[Pack]) -> None:
            pack.value.seen += len(readings)

        run = testing.Function(watch, key="V1")
        run.batch([1, 2], position=5)
        assert [result.duplicate for result in run.batch([1, 2, 3], position=5)] == [True, True, False]
        assert run.state().seen == 3
        assert all(result.duplicate for result in run.batch([1, 2], position=5))

    def test_bad_data_ends_a_keys_batch(self):
        def watch(readings: Batch[int], pack: State[Pack]) -> None:
            pack.value.seen += len(readings)

        run = testing.Function(watch, key="V1")
        results = run.batch([1, "two", 3])
        assert [result.done for result in results] == [True, False, False]
        assert run.state().seen == 1
        assert "body is not JSON" in run.batch(["two", 3])[0].error

    async def test_async_handlers(self):
        async def watch(readings: Batch[int]) -> None: ...

        run = testing.Function(watch)
        assert all(result.done for result in await run.aio_batch([1, 2]))
        with pytest.raises(UsageError, match="a loop runs here already"):
            run.batch([1])

    def test_what_cannot_be_asked(self):
        def plain(reading: int) -> None: ...

        def watch(readings: Batch[int], pack: State[Pack]) -> None: ...

        with pytest.raises(UsageError, match=r"plain\(\) takes no Batch"):
            testing.Function(plain).batch([1])
        with pytest.raises(UsageError, match="a batch of the keys 1, 2"):
            testing.Function(watch, key=str).batch([1, 2])
        assert testing.Function(watch, key="V1").batch([]) == []
