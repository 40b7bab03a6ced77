"""A bound handler at work: outcomes, state, emits, replies, and what is refused once it is over."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pydantic
import pytest
from fleetfn import Config, Context, Event, Reject, Response, Retry, Snapshot, State
from fleetfn.binder import BindInfo, bind
from fleetfn.context import current
from fleetfn.errors import EventError, FleetError, SealedError, StateError
from fleetfn.invocation import UNCHANGED, Again, Call, Done, Rejected
from fleetfn.state import Cell
from fleetfn.states import Walks

NOW = 1_772_366_400.25


class Pack(msgspec.Struct):
    hottest: float = 0.0
    alarmed: bool = False


class Alert(msgspec.Struct):
    vehicle: str
    level: int


class Model(pydantic.BaseModel):
    level: int = pydantic.Field(default=0, alias="lvl")


def info(**changes):
    given = {"name": "t", "kind": "kafka", "has_key": True, "function": "fn", "revision": "abc", "outputs": None}
    return BindInfo(**{**given, **changes})


def call(data=b"{}", **changes):
    event = Event(id="1", source="/s", type="t", data=data)
    return Call(**{"event": event, "trigger": "t", "key": "V1", "seed": "seed", "now": NOW, **changes})


def ran(target, data=b"{}", *, trigger=None, **changes):
    return bind(target, trigger=trigger or info()).invoke([call(data, **changes)])[0]


class TestOutcomes:
    def test_returning_is_done(self):
        def handler(data: dict) -> None: ...

        result = ran(handler)
        assert (result.outcome, result.value, result.emits) == (Done(), UNCHANGED, ())

    def test_retry_and_reject(self):
        def retry() -> None:
            raise Retry(after=2.5)

        def reject() -> None:
            raise Reject("not ours")

        assert ran(retry).outcome == Again(after=2.5)
        assert ran(reject).outcome == Rejected("not ours", status=422)

    @pytest.mark.parametrize("after", [-1, float("nan"), float("inf")])
    def test_retry_after_is_checked(self, after):
        with pytest.raises(ValueError, match="say seconds, 0 or more"):
            Retry(after=after)

    def test_any_other_exception_is_a_failure_with_the_users_line(self):
        def inner() -> None:
            msgspec.json.decode(b"{")

        def handler() -> None:
            inner()

        failure = ran(handler).outcome.failure
        assert failure.type == "msgspec.DecodeError"
        assert failure.place == f"{Path(__file__).name}:{inner.__code__.co_firstlineno + 1}"
        assert "bound.py" not in failure.traceback
        assert failure.traceback.count("File ") == 2

    def test_lines_of_libraries_are_not_the_users(self):
        def handler() -> None:
            Model.model_validate({"lvl": []})

        assert ran(handler).outcome.failure.place.startswith(Path(__file__).name)

    def test_causes_are_part_of_the_traceback_and_long_ones_are_cut(self):
        def deep(n: int) -> None:
            if n:
                deep(n - 1)
            raise ValueError("x" * 20_000)

        def handler() -> None:
            try:
                deep(3)
            except ValueError as error:
                raise KeyError("outer") from error

        text = ran(handler).outcome.failure.traceback
        assert len(text) < 17_000
        assert text.endswith("KeyError: 'outer'\n")

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()], ids=repr)
    def test_no_exception_of_the_users_gets_out(self, error):
        def handler() -> None:
            raise error

        assert ran(handler).outcome.failure.type == type(error).__name__

    def test_sys_exit_in_an_async_handler(self):
        async def handler() -> None:
            sys.exit(3)

        result = asyncio.run(bind(handler, trigger=info()).invoke_async([call()]))[0]
        assert result.outcome.failure.type == "SystemExit"

    def test_an_exception_whose_str_raises(self):
        class BrokenError(Exception):
            def __str__(self) -> str:
                raise ValueError("no")

        def handler() -> None:
            raise BrokenError

        assert ran(handler).outcome.failure.message == "(its __str__ raised ValueError)"

    def test_a_decoding_error_of_the_users_own_is_a_failure_not_bad_data(self):
        def handler() -> None:
            msgspec.json.decode(b'"x"', type=int)

        assert isinstance(ran(handler).outcome, Again)

    def test_an_error_in_a_types_own_validation_is_bad_data(self):
        result = ran(positive_handler, b'{"x":-1}')
        assert result.outcome == Rejected("$: negative", status=400)

    def test_a_plain_def_that_returns_a_coroutine(self):
        async def work() -> None: ...

        def handler():
            return work()

        assert "make it `async def`" in ran(handler).outcome.failure.message

    def test_a_failure_after_the_handler_names_its_line(self):
        def handler() -> object:
            return object()

        failure = ran(handler, trigger=info(returns="out")).outcome.failure
        assert failure.place.endswith(f":{handler.__code__.co_firstlineno}")
        assert "a value of type object cannot be encoded as JSON" in failure.message

    def test_results_come_in_the_order_of_the_calls(self):
        def handler(data: int) -> int:
            if data == 2:
                raise Reject("two")
            return data

        results = bind(handler, trigger=info(kind="http")).invoke([call(b"1"), call(b"2"), call(b"3")])
        assert [type(result.outcome) for result in results] == [Done, Rejected, Done]
        assert results[2].outcome.reply.body == b"3"


class Positive(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("negative")


def positive_handler(data: Positive) -> None: ...


class TestAsync:
    async def test_calls_run_side_by_side(self):
        started = []
        all_there = asyncio.Event()

        async def handler(data: int) -> int:
            started.append(data)
            if len(started) == 3:
                all_there.set()
            await all_there.wait()
            return data

        bound = bind(handler, trigger=info(kind="http"))
        results = await asyncio.wait_for(bound.invoke_async([call(b"1"), call(b"2"), call(b"3")]), 30)
        assert [result.outcome.reply.body for result in results] == [b"1", b"2", b"3"]

    async def test_async_handlers_below_a_plain_decorator(self):
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)

            return wrapper

        @logged
        async def handler(data: int) -> int:
            return data

        bound = bind(handler, trigger=info(kind="http"))
        assert bound.is_async
        assert (await bound.invoke_async([call(b"7")]))[0].outcome.reply.body == b"7"

    async def test_the_workers_cancellation_gets_out(self):
        async def handler() -> None:
            await asyncio.Event().wait()

        bound = bind(handler, trigger=info())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bound.invoke_async([call()])
        task = asyncio.create_task(bound.invoke_async([call()]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_cancelled_task_of_the_users_own_is_a_failure(self):
        async def handler() -> None:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task

        result = (await bind(handler, trigger=info()).invoke_async([call()]))[0]
        assert result.outcome.failure.type.endswith("CancelledError")

    async def test_retry_out_of_a_task_group(self):
        async def busy() -> None:
            raise Retry(after=1)

        async def handler() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(busy())

        assert (await bind(handler, trigger=info()).invoke_async([call()]))[0].outcome == Again(after=1)


class TestState:
    def test_a_new_key_starts_with_the_default(self):
        def handler(state: State[Pack]) -> None:
            assert not state.exists
            state.value.hottest = 7
            assert not state.exists

        assert ran(handler).value == b'{"hottest":7,"alarmed":false}'

    def test_reading_the_default_keeps_it(self):
        def handler(state: State[Pack]) -> None:
            assert state.value.hottest == 0

        assert ran(handler).value == b'{"hottest":0.0,"alarmed":false}'

    def test_what_is_equal_is_not_saved_again(self):
        def handler(state: State[Pack]) -> None:
            state.value = Pack(state.value.hottest, alarmed=False)

        assert ran(handler, value=b'{"hottest":7.5,"alarmed":false}').value is UNCHANGED

    def test_what_a_run_held_is_free_at_once(self):
        def handler(state: State[Pack]) -> None:
            state.value.hottest = 1.0

        def held():
            return [each for each in gc.get_objects() if type(each) in (Cell, Context)]

        gc.collect()
        gc.disable()
        try:
            before = len(held())
            ran(handler)
            assert len(held()) == before
        finally:
            gc.enable()

    def test_untouched_state_is_unchanged(self):
        def handler(state: State[Pack]) -> None:
            assert state.exists

        assert ran(handler, value=b"{}").value is UNCHANGED

    def test_delete(self):
        def handler(state: State[Pack]) -> None:
            state.value.hottest = 9
            state.delete()
            assert not state.exists

        assert ran(handler, value=b"{}").value is None
        assert ran(handler).value is UNCHANGED

    def test_a_value_after_delete_is_new(self):
        def handler(state: State[Pack]) -> None:
            state.delete()
            state.value = Pack(1.5)
            assert state.exists

        assert ran(handler, value=b'{"hottest":7.5}').value == b'{"hottest":1.5,"alarmed":false}'

    def test_a_forgotten_value_is_told(self):
        def write(state: State[Pack]) -> None:
            state.alarmed = True

        def read(state: State[Pack]) -> None:
            _ = state.alarmed

        assert "forgot .value? (state.value.alarmed = ...)" in ran(write).outcome.failure.message
        assert "forgot .value? (state.value.alarmed)" in ran(read).outcome.failure.message

    def test_builtin_values(self):
        def count(state: State[int]) -> None:
            state.value += 1

        assert ran(count).value == b"1"
        assert ran(count, value=b"41").value == b"42"

    def test_pydantic_values_go_by_their_aliases(self):
        def handler(state: State[Model]) -> None:
            state.value.level += 1

        assert ran(handler, value=b'{"lvl":3}').value == b'{"lvl":4}'

    @pytest.mark.parametrize("value", ["hot", float("nan")])
    def test_a_value_that_could_not_be_read_back_fails_the_run(self, value):
        def handler(state: State[Pack]) -> None:
            state.value.hottest = value

        failure = ran(handler, value=b"{}").outcome.failure
        assert failure.type == "TypeError"
        assert "the state's value does not fit Pack: $.hottest: Expected float" in failure.message

    def test_state_that_does_not_decode_is_not_the_events_fault(self):
        ran_it = []

        def handler(state: State[Pack]) -> None:
            ran_it.append(1)

        outcome = ran(handler, value=b'{"hottest":"x"}').outcome
        assert (outcome.reason, outcome.counted, outcome.failure.type) == ("state", False, "fleetfn.errors.StateError")
        assert "does not decode as Pack: $.hottest: Expected float, got str 'x'" in outcome.failure.message
        assert ran_it == []

    def test_check_value_decodes_as_a_run_would(self):
        def handler(state: State[Pack]) -> None: ...

        bound = bind(handler, trigger=info())
        bound.check_value(b'{"hottest":1}')
        with pytest.raises(StateError, match="does not decode as Pack"):
            bound.check_value(b"[]")
        bind(lambda: None, trigger=info()).check_value(b"[]")

    def test_upgrade_converts_what_does_not_decode(self):
        def handler(state: State[Grown]) -> None:
            state.value.celsius += 1

        assert ran(handler, value=b'{"fahrenheit":212}').value == b'{"celsius":101.0}'
        outcome = ran(handler, value=b'{"kelvin":3}').outcome
        assert "Grown.__upgrade__ failed on the stored state: KeyError: 'fahrenheit'" in outcome.failure.message

    def test_a_snapshot_reads_and_never_saves(self):
        def show(pack: Snapshot[Pack]) -> Pack | Response:
            pack_value = pack.value
            pack_value.hottest += 1
            return pack_value if pack.exists else Response(404)

        trigger = info(kind="http")
        found = ran(show, value=b'{"hottest":1}', trigger=trigger)
        assert (found.outcome.reply.body, found.value) == (b'{"hottest":2.0,"alarmed":false}', UNCHANGED)
        assert ran(show, trigger=trigger).outcome.reply.status == 404

    def test_a_snapshot_cannot_be_set(self):
        def handler(pack: Snapshot[Pack]) -> None:
            pack.value = Pack()

        assert "read only" in ran(handler).outcome.failure.message

    def test_a_failed_run_saves_and_sends_nothing(self):
        def handler(state: State[Pack], ctx: Context) -> None:
            state.value.hottest = 9
            ctx.emit("out", "x")
            raise Retry

        result = ran(handler)
        assert (result.value, result.emits) == (UNCHANGED, ())


class Grown(msgspec.Struct, forbid_unknown_fields=True):
    celsius: float = 0.0

    @classmethod
    def __upgrade__(cls, old):
        return cls((old["fahrenheit"] - 32) / 1.8)


class TestEmits:
    def test_a_complete_event_with_defaults(self):
        def handler(data: dict) -> Alert:
            return Alert("V1", 3)

        emit = ran(handler, trigger=info(returns="alerts")).emits[0]
        assert (emit.output, emit.key) == ("alerts", "V1")
        assert emit.event == Event(
            id="seed/s/1-0",
            source="/functions/fn",
            type="fn.alerts",
            subject="V1",
            time=datetime.fromtimestamp(NOW, UTC),
            datacontenttype="application/json",
            extensions={"partitionkey": "V1"},
            data=b'{"vehicle":"V1","level":3}',
        )

    def test_explicit_attributes(self):
        def handler(ctx: Context) -> None:
            ctx.emit("out", "x", key="V2", type="a.b", subject="s", id="own")

        event = ran(handler).emits[0].event
        assert (event.id, event.type, event.subject, event.extensions) == ("own", "a.b", "s", {"partitionkey": "V2"})

    def test_repeats_carry_equal_ids_and_the_return_value_comes_last(self):
        def handler(ctx: Context) -> str:
            ctx.emit("a", 1)
            ctx.emit("b", 2)
            return "c"

        emits = ran(handler, trigger=info(returns="c")).emits
        assert [(emit.output, emit.event.id) for emit in emits] == [
            ("a", "seed/s/1-0"),
            ("b", "seed/s/1-1"),
            ("c", "seed/s/1-2"),
        ]
        assert ran(handler, trigger=info(returns="c"), attempt=2).emits == emits

    def test_without_seed_and_key(self):
        def handler(ctx: Context) -> None:
            ctx.emit("out", "x")

        emit = ran(handler, key=None, seed="").emits[0]
        assert (emit.key, emit.event.id, emit.event.subject, emit.event.extensions) == (None, "1-0", None, {})

    @pytest.mark.parametrize(
        ("data", "encoded", "media"),
        [
            (Alert("V1", 3), b'{"vehicle":"V1","level":3}', "application/json"),
            (Model(lvl=2), b'{"lvl":2}', "application/json"),
            ([Model(lvl=2), {"m": Model(lvl=3)}], b'[{"lvl":2},{"m":{"lvl":3}}]', "application/json"),
            ({"a": datetime(2026, 3, 1, tzinfo=UTC)}, b'{"a":"2026-03-01T00:00:00Z"}', "application/json"),
            (7, b"7", "application/json"),
            ("电池", "电池".encode(), "text/plain; charset=utf-8"),
            (b"\x00", b"\x00", "application/octet-stream"),
            (bytearray(b"\x00"), b"\x00", "application/octet-stream"),
            (None, None, None),
        ],
        ids=repr,
    )
    def test_data(self, data, encoded, media):
        def handler(ctx: Context) -> None:
            ctx.emit("out", data)

        event = ran(handler).emits[0].event
        assert (event.data, event.datacontenttype) == (encoded, media)

    def test_an_event_keeps_its_attributes(self):
        given = Event(id="e", source="/own", type="own", dataschema="s", extensions={"late": True}, data={"a": 1})

        def handler(ctx: Context) -> None:
            ctx.emit("out", given)
            ctx.emit("out", given, key="V2", type="said", id="said")

        first, second = (emit.event for emit in ran(handler).emits)
        assert (first.id, first.source, first.type, first.dataschema) == ("e", "/own", "own", "s")
        assert (first.subject, first.data) == ("V1", b'{"a":1}')
        assert first.extensions == {"late": True, "partitionkey": "V1"}
        assert (second.id, second.type, second.source) == ("said", "said", "/own")
        assert second.extensions["partitionkey"] == "V2"

    def test_an_events_own_partitionkey_is_its_key(self):
        def handler(ctx: Context) -> None:
            ctx.emit("out", Event(id="e", source="s", type="t", extensions={"partitionkey": "P"}, data=None))

        assert ran(handler).emits[0].key == "P"

    @pytest.mark.parametrize("key", ["\ud800", "V\udcff1", 5], ids=ascii)
    @pytest.mark.parametrize("data", [1, Event(id="e", source="s", type="t", subject="x", data=None)], ids=type)
    def test_a_key_that_no_store_could_keep_is_refused_where_it_is_given(self, key, data):
        def handler(ctx: Context) -> None:
            ctx.emit("out", data, key=key)

        assert ran(handler).outcome.failure.type.endswith("EventError")

    @pytest.mark.parametrize("header", [("\ud800", b"1"), ("trace", "text"), (b"trace", b"1")], ids=ascii)
    def test_so_are_such_headers_of_an_event(self, header):
        def handler(ctx: Context) -> None:
            ctx.emit("out", Event(id="e", source="s", type="t", headers=(header,), data=None))

        failure = ran(handler).outcome.failure
        assert "is no pair of text and bytes" in failure.message
        assert failure.place.endswith(f".py:{handler.__code__.co_firstlineno + 1}")

    def test_data_is_as_it_was_when_it_was_sent(self):
        def handler(ctx: Context) -> None:
            data = {"n": 1}
            ctx.emit("out", data)
            data["n"] = 2

        assert ran(handler).emits[0].event.data == b'{"n":1}'

    def test_unknown_outputs_fail_at_the_users_line(self):
        def handler(ctx: Context) -> None:
            ctx.emit("alrt", "x")

        failure = ran(handler, trigger=info(outputs=frozenset({"alerts", "audit"}))).outcome.failure
        assert failure.message == "there is no output 'alrt' (did you mean 'alerts'?)"
        assert failure.place.endswith(f":{handler.__code__.co_firstlineno + 1}")

    @pytest.mark.parametrize("given", [{"type": "a\nb"}, {"id": "a\x00"}, {"key": "\x7f"}, {"subject": "\n"}], ids=repr)
    def test_attributes_that_no_receiver_reads_fail_the_handler(self, given):
        def handler(ctx: Context) -> None:
            try:
                ctx.emit("out", "x", **given)
            except EventError as error:
                raise Reject(error.message) from error

        assert "control character" in ran(handler).outcome.reason


class TestReplies:
    @pytest.mark.parametrize(
        ("value", "status", "body", "media"),
        [
            (None, 204, b"", None),
            ({"a": 1}, 200, b'{"a":1}', "application/json"),
            (Alert("V1", 1), 200, b'{"vehicle":"V1","level":1}', "application/json"),
            (Model(lvl=1), 200, b'{"lvl":1}', "application/json"),
            ("hi", 200, b"hi", "text/plain; charset=utf-8"),
            (b"\x00", 200, b"\x00", "application/octet-stream"),
            (Response(404), 404, b"", None),
            (Response(400, {"error": "x"}), 400, b'{"error":"x"}', "application/json"),
            (Response(200, "<a/>", {"Content-Type": "text/html"}), 200, b"<a/>", "text/html"),
            (Event(id="1", source="s", type="t", data={"a": 1}), 200, b'{"a":1}', "application/json"),
        ],
        ids=repr,
    )
    def test_the_return_value_is_the_reply(self, value, status, body, media):
        def handler() -> object:
            return value

        reply = ran(handler, trigger=info(kind="http")).outcome.reply
        assert (reply.status, reply.body, reply.headers.get("content-type")) == (status, body, media)

    def test_the_value_goes_to_the_output_as_well(self):
        def handler() -> dict:
            return {"a": 1}

        result = ran(handler, trigger=info(kind="http", returns="out"))
        assert result.outcome.reply.body == result.emits[0].event.data == b'{"a":1}'

    def test_nobody_waits_on_kafka(self):
        def handler() -> object:
            return object()  # need not be JSON: it goes nowhere

        assert ran(handler).outcome == Done()


class TestContext:
    def test_tells_of_itself(self):
        seen = {}

        def handler(ctx: Context) -> None:
            seen.update(
                name=ctx.name,
                revision=ctx.revision,
                trigger=ctx.trigger,
                key=ctx.key,
                attempt=ctx.attempt,
                invocation=ctx.invocation,
                now=ctx.now,
                remaining=ctx.remaining(),
            )
            assert current.get() is ctx

        result = ran(handler, attempt=3, invocation="i-1", deadline=time.monotonic() + 60)
        assert result.outcome == Done()
        assert 59 < seen.pop("remaining") <= 60
        assert seen == {
            "name": "fn",
            "revision": "abc",
            "trigger": "t",
            "key": "V1",
            "attempt": 3,
            "invocation": "i-1",
            "now": datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC),
        }
        assert current.get() is None

    def test_remaining_without_and_after_the_deadline(self):
        left = []

        def handler(ctx: Context) -> None:
            left.append(ctx.remaining())

        ran(handler)
        ran(handler, deadline=time.monotonic() - 5)
        assert left == [float("inf"), 0.0]

    async def test_each_of_many_async_runs_sees_its_own(self):
        async def handler(ctx: Context) -> None:
            await asyncio.sleep(0)
            assert current.get() is ctx

        results = await bind(handler, trigger=info()).invoke_async([call(), call()])
        assert [result.outcome for result in results] == [Done(), Done()]

    def test_the_log_is_the_functions_logger(self, caplog):
        def handler(ctx: Context) -> None:
            ctx.log.info("hot %s", 71)

        with caplog.at_level(logging.INFO):
            ran(handler)
        assert [(record.name, record.getMessage()) for record in caplog.records] == [("fleetfn.function.fn", "hot 71")]

    def test_states_of_a_function_that_keeps_none_say_so(self):
        def handler(ctx: Context) -> None:
            ctx.states(Pack)

        message = ran(handler, trigger=info(walks=Walks(None))).outcome.failure.message
        assert message == ("ctx.states: this function keeps no state (a handler of the function must take State[T])")


class TestOver:
    def test_a_timed_out_invocation_can_do_nothing_more(self):
        errors = []
        begun, go_on = threading.Event(), threading.Event()

        def handler(state: State[Pack], ctx: Context) -> None:
            begun.set()
            assert go_on.wait(60)
            for attempt in (
                lambda: state.value,
                lambda: setattr(state, "value", Pack()),
                lambda: state.exists,
                state.delete,
                lambda: ctx.emit("out", "x"),
                lambda: ctx.log.warning("late"),
            ):
                with pytest.raises(SealedError, match="timed out") as caught:
                    attempt()
                errors.append(caught.value.message)

        late = call()
        thread = threading.Thread(target=bind(handler, trigger=info()).invoke, args=([late],))
        thread.start()
        assert begun.wait(60)
        late.sealed = True
        go_on.set()
        thread.join(60)
        assert len(errors) == 6

    def test_what_a_handler_left_running_can_do_nothing_once_it_returned(self):
        kept = []

        def handler(state: State[Pack], ctx: Context) -> None:
            kept.extend([state, ctx])

        ran(handler)
        state, ctx = kept
        with pytest.raises(SealedError, match="has returned"):
            _ = state.value
        with pytest.raises(SealedError, match="has returned"):
            ctx.emit("out", "x")
        assert ctx.key == "V1"


def test_config_is_shared_by_all_runs():
    got = []

    def handler(limits: Config[Pack]) -> None:
        got.append(limits)

    bound = bind(handler, trigger=info(config={"hottest": 60}))
    bound.invoke([call(), call()])
    assert got[0] is got[1]
    assert got[0] == Pack(60.0)


def test_errors_carry_their_hint():
    error = FleetError("what", hint="next")
    assert (str(error), error.hint) == ("what", "next")
