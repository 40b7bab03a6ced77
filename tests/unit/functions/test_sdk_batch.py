"""Batches: one run for several events, an outcome for each."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest
from fleetfn import Batch, Context, Event, Reject, Retry, Snapshot, State
from fleetfn.binder import BindInfo, bind
from fleetfn.context import current
from fleetfn.errors import SealedError
from fleetfn.invocation import NOT_RUN, UNCHANGED, Again, Call, Done, Rejected


class Reading(msgspec.Struct):
    n: int


class Seen(msgspec.Struct):
    numbers: list[int] = []


def call(n, key="V1", **changes):
    data = changes.pop("data", b'{"n":%d}' % n if isinstance(n, int) else n)
    event = Event(id=str(n), source="/s", type="t", datacontenttype="application/json", data=data)
    return Call(**{"event": event, "trigger": "telemetry", "key": key, "seed": f"seed/{n}", **changes})


def run(handler, *calls, by="any", returns=None, outputs=frozenset({"alerts", "audit"})):
    info = BindInfo(
        name="telemetry", kind="kafka", has_key=True, function="fn", batch=by, returns=returns, outputs=outputs
    )
    bound = bind(handler, trigger=info)
    return asyncio.run(bound.invoke_async(calls)) if bound.is_async else bound.invoke(calls)


def outcomes(results):
    return [type(result.outcome).__name__ for result in results]


class TestBatch:
    def test_it_is_a_sequence(self):
        batch = Batch([1, 2, 3])
        assert len(batch) == 3
        assert list(batch) == [1, 2, 3]
        assert (batch[0], batch[-1], batch[1:]) == (1, 3, (2, 3))
        assert 2 in batch
        assert repr(batch) == "Batch([1, 2, 3])"
        assert not Batch([])

    def test_it_cannot_be_changed(self):
        batch = Batch([1])
        with pytest.raises(TypeError):
            batch[0] = 2
        with pytest.raises(AttributeError):
            batch.items = []


class TestPayloads:
    @pytest.mark.parametrize(
        ("annotation", "expected"),
        [
            (Batch[Reading], [Reading(1), Reading(2)]),
            (Batch[dict], [{"n": 1}, {"n": 2}]),
            (Batch[bytes], [b'{"n":1}', b'{"n":2}']),
            (Batch[Reading | None], [Reading(1), Reading(2)]),
        ],
    )
    def test_each_event_gives_one(self, annotation, expected):
        got = []

        def handler(readings):
            got.extend(readings)

        handler.__annotations__ = {"readings": annotation}
        assert outcomes(run(handler, call(1), call(2, "V2"))) == ["Done", "Done"]
        assert got == expected

    def test_events_with_attributes(self):
        def handler(events: Batch[Event[Reading]]) -> list:
            return [f"{event.id} {event.data.n}" for event in events]

        results = run(handler, call(1), call(2), returns="alerts")
        assert [result.emits[0].event.data for result in results] == [b"1 1", b"2 2"]

    def test_what_cannot_be_read_is_rejected_and_the_others_run(self):
        def handler(readings: Batch[Reading]) -> list:
            assert list(readings) == [Reading(1), Reading(3)]
            return [None, Retry()]

        results = run(handler, call(1, "V1"), call(b"{", "V2"), call(3, "V3"))
        assert outcomes(results) == ["Done", "Rejected", "Again"]
        assert results[1].outcome.status == 400

    def test_nothing_of_a_key_overtakes_what_cannot_be_read(self):
        def handler(readings: Batch[Reading]) -> None:
            assert list(readings) == [Reading(1), Reading(9)]

        results = run(handler, call(1), call(b"{"), call(3), call(9, "V2"))
        assert results[1] is NOT_RUN  # its turn comes once what is before it is settled
        assert results[2] is NOT_RUN
        assert outcomes([results[0], results[3]]) == ["Done", "Done"]

    def test_where_none_can_be_read_the_handler_does_not_run(self):
        def handler(readings: Batch[Reading]) -> None:
            raise AssertionError

        results = run(handler, call(b"{"), call(2), by="key")
        assert outcomes(results[:1]) == ["Rejected"]
        assert results[1] is NOT_RUN

    def test_without_a_key_each_is_for_itself(self):
        def handler(readings: Batch[Reading]) -> None: ...

        assert outcomes(run(handler, call(b"{", None), call(2, None))) == ["Rejected", "Done"]


class TestReturns:
    def test_an_entry_per_event(self):
        def handler(readings: Batch[Reading]) -> list:
            return [{"level": 3}, None, Retry("later", after=7), Reject("never")]

        results = run(handler, *map(call, range(4)), returns="alerts")
        assert [result.outcome for result in results] == [
            Done(),
            Done(),
            Again(after=7.0, reason="later"),
            Rejected("never"),
        ]
        assert [len(result.emits) for result in results] == [1, 0, 0, 0]

    def test_nothing_means_all_are_done(self):
        def handler(readings: Batch[Reading]) -> None: ...

        assert outcomes(run(handler, call(1), call(2), returns="alerts")) == ["Done", "Done"]

    def test_ids_derive_from_the_event_whatever_batch_it_is_in(self):
        def handler(readings: Batch[Reading], ctx: Context) -> list:
            for index, reading in enumerate(readings):
                if reading.n == 2:
                    ctx.emit("audit", reading, item=index)
            return [f"alert {reading.n}" for reading in readings]

        together = run(handler, call(1), call(2), call(3), returns="alerts")
        alone = [run(handler, call(n), returns="alerts")[0] for n in (1, 2, 3)]
        ids = [[(emit.output, emit.event.id) for emit in result.emits] for result in together]
        assert ids == [[(emit.output, emit.event.id) for emit in result.emits] for result in alone]
        assert [(output, id_.rsplit("-")[-1]) for output, id_ in ids[1]] == [("audit", "0"), ("alerts", "1")]
        assert len({id_ for each in ids for _, id_ in each}) == 4
        assert all(emit.key == "V1" for result in together for emit in result.emits)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ([None], "the handler returned a list of 1 for a batch of 2"),
            ([None] * 3, "the handler returned a list of 3 for a batch of 2"),
            ({"a": 1}, "the handler of a batch returned dict"),
            ((None, None), "the handler of a batch returned tuple"),
            (Retry(), "the handler of a batch returned Retry"),
        ],
    )
    def test_anything_else_fails_the_batch(self, value, said):
        def handler(readings: Batch[Reading]) -> list:
            return value

        results = run(handler, call(1), call(2))
        assert all(result.outcome.apart and not result.outcome.counted for result in results)
        assert said in results[0].outcome.failure.message
        assert results[0].outcome.failure.place.startswith("test_sdk_batch.py:")

    def test_of_a_single_event_it_is_its_failure(self):
        def handler(readings: Batch[Reading]) -> list:
            return []

        outcome = run(handler, call(1))[0].outcome
        assert outcome.counted
        assert not outcome.apart
        assert "a list of 0 for a batch of 1" in outcome.failure.message

    def test_a_value_that_cannot_be_encoded_fails_its_event(self):
        def handler(readings: Batch[Reading]) -> list:
            return [1, object(), 3]

        results = run(handler, *map(call, range(3)), returns="alerts")
        assert outcomes(results) == ["Done", "Again", "Done"]
        assert results[1].outcome.counted
        assert results[1].outcome.failure is not None

    @pytest.mark.parametrize("error", [ValueError("boom"), Retry(after=1), Reject("no"), SystemExit(1)])
    def test_what_is_raised_is_everybodys(self, error):
        def handler(readings: Batch[Reading]) -> list:
            raise error

        results = run(handler, call(1), call(2))
        assert all(result.outcome.apart and not result.outcome.counted for result in results)
        alone = run(handler, call(1))[0].outcome
        assert isinstance(alone, Rejected) is isinstance(error, Reject)
        assert alone.failure is None or alone.counted

    def test_async_handlers_alike(self):
        async def handler(readings: Batch[Reading], state: State[Seen]) -> list:
            await asyncio.sleep(0)
            if len(readings) > 2:
                raise ValueError
            state.value.numbers = [reading.n for reading in readings]
            return [None, None]

        assert run(handler, call(1), call(2), by="key")[1].value == b'{"numbers":[1,2]}'
        assert all(result.outcome.apart for result in run(handler, call(1), call(2), call(3), by="key"))

    def test_a_coroutine_of_a_plain_def(self):
        async def inner() -> None: ...

        def handler(readings: Batch[Reading]):
            return inner()

        assert "make it `async def`" in run(handler, call(1))[0].outcome.failure.message


class TestState:
    def test_the_last_result_has_it(self):
        def handler(readings: Batch[Reading], state: State[Seen]) -> None:
            state.value.numbers += [reading.n for reading in readings]

        results = run(handler, *(call(n, value=b'{"numbers":[0]}') for n in (1, 2)), by="key")
        assert [result.value for result in results] == [UNCHANGED, b'{"numbers":[0,1,2]}']

    def test_there_is_none_where_one_is_not_done(self):
        def handler(readings: Batch[Reading], state: State[Seen]) -> list:
            state.value.numbers = [1]
            return [None, Retry(), None]

        assert all(result.value is UNCHANGED for result in run(handler, *map(call, range(3)), by="key"))

    def test_it_ends_before_what_cannot_be_read(self):
        def handler(readings: Batch[Reading], state: State[Seen]) -> None:
            state.value.numbers = [reading.n for reading in readings]

        results = run(handler, call(1), call(2), call(b"{"), call(4), by="key")
        assert results[1].value == b'{"numbers":[1,2]}'
        assert results[2:] == [NOT_RUN, NOT_RUN]

    def test_what_cannot_be_decoded_is_nobodys_fault(self):
        def handler(readings: Batch[Reading], state: State[Seen]) -> None: ...

        results = run(handler, *(call(n, value=b"[]") for n in (1, 2)), by="key")
        assert results[0].outcome.reason == "state"
        assert not results[0].outcome.apart
        assert results[1] is NOT_RUN

    def test_a_snapshot_is_read(self):
        def handler(readings: Batch[Reading], seen: Snapshot[Seen]) -> list:
            return [str(seen.value.numbers)] * len(readings)

        results = run(handler, call(1, value=b'{"numbers":[7]}'), call(2), by="key", returns="alerts")
        assert results[1].emits[0].event.data == b"[7]"


class TestContext:
    @pytest.mark.parametrize(("by", "key"), [("key", "V1"), ("any", None)])
    def test_the_key_is_known_where_there_is_one(self, by, key):
        def handler(readings: Batch[Reading], ctx: Context) -> None:
            assert ctx.key == key
            assert ctx.attempt == 4
            assert (ctx.trigger, ctx.invocation) == ("telemetry", "run-1")

        results = run(handler, call(1, invocation="run-1"), call(2, attempt=4, invocation="run-1"), by=by)
        assert outcomes(results) == ["Done", "Done"]

    @pytest.mark.parametrize("item", [None, -1, 2])
    def test_an_emit_says_which_event_it_is_of(self, item):
        def handler(readings: Batch[Reading], ctx: Context) -> None:
            ctx.emit("alerts", 1, item=item)

        failure = run(handler, call(1), call(2))[0].outcome.failure
        assert f"item={item}): which event of the batch is it of?" in failure.message
        assert "pass item=0 to item=1" in failure.message

    def test_an_emit_of_one_event_names_none(self):
        def handler(reading: Reading, ctx: Context) -> None:
            ctx.emit("alerts", 1, item=0)

        failure = run(handler, call(1), by=None)[0].outcome.failure
        assert "item=0): this handler takes no Batch" in failure.message

    def test_emits_of_an_event_that_is_not_done_do_not_leave(self):
        def handler(readings: Batch[Reading], ctx: Context) -> list:
            for index in range(2):
                ctx.emit("alerts", index, item=index)
            return [Retry(), None]

        results = run(handler, call(1), call(2))
        assert [len(result.emits) for result in results] == [0, 1]
        assert results[1].emits[0].event.data == b"1"
        assert results[1].emits[0].event.id.endswith("-0")

    def test_it_ends_with_the_run_and_with_its_timeout(self):
        kept = []

        def handler(readings: Batch[Reading], ctx: Context) -> None:
            kept.append(ctx)
            assert current.get() is ctx

        first = call(b"{", None)
        run(handler, first, call(2, None))
        assert current.get() is None
        with pytest.raises(SealedError, match="has returned"):
            kept[0].emit("alerts", 1, item=0)
        first.sealed = True
        with pytest.raises(SealedError, match="timed out"):
            kept[0].emit("alerts", 1, item=0)

    def test_its_log_is_the_functions(self, caplog):
        def handler(readings: Batch[Reading], ctx: Context) -> None:
            ctx.log.info("%d together", len(readings))

        with caplog.at_level(logging.INFO):
            run(handler, call(1), call(2))
        assert caplog.records[0].name == "fleetfn.function.fn"
        assert caplog.records[0].getMessage() == "2 together"
