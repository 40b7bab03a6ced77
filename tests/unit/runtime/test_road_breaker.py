"""An outage that many keys meet: their trigger stands still, is probed, and no event loses an attempt by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import virtual_time
from fleetfn.invocation import Again, Call, Done, Failure, Rejected, Result
from fleetfn_runtime import breaker as breaker_module
from fleetfn_runtime.breaker import Limits
from fleetfn_triggers.delivery import Delivery
from road_doubles import AsyncHandler, Bench, PlainHandler, delivery, route, until

Make = Callable[..., Bench]

DOWN = Again(reason="down", failure=Failure("ConnectionError", "refused", "handler.py:31"))


class Downstream:
    """A handler that needs something which may be away."""

    def __init__(self) -> None:
        self.up = False
        self.runs: list[str | None] = []
        self.attempts: list[int] = []

    def __call__(self, call: Call) -> Any:
        self.runs.append(call.key)
        self.attempts.append(call.attempt)
        return None if self.up else DOWN

    async def later(self, call: Call) -> Any:
        return self(call)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(breaker_module, "FIRST", 0.05)
    monkeypatch.setattr(breaker_module, "LONGEST", 0.1)
    made: list[Bench] = []

    def make(body: Any, handler: Any = PlainHandler, **more: Any) -> Bench:
        limits = more.pop("breaker", Limits(3, 30.0))
        policy = {"attempts": 3, "initial": 0.01, **more.pop("policy", {})}
        made.append(Bench(route(handler(body), breaker=limits, **policy), **more))
        return made[-1]

    yield make
    for one in made:
        await one.road.close()


def test_an_outage_pauses_the_trigger_and_dead_letters_nothing() -> None:
    async def main(_: virtual_time.VirtualLoop) -> None:
        downstream = Downstream()
        one = Bench(route(AsyncHandler(downstream.later), breaker=Limits(3, 5.0), attempts=3, initial=0.5))
        one.road.take([delivery(one.source, f"car{n % 20}") for n in range(200)])
        await until(lambda: bool(one.source.paused))
        assert one.source.paused == {"breaker of telemetry"}
        [(trigger, problem)] = one.road.problems()
        assert trigger == "telemetry"
        assert "runs of 3 keys failed with ConnectionError at handler.py:31; next probe in" in problem
        await asyncio.sleep(20.0)  # longer than the window, and several probes
        begun = len(downstream.runs)
        assert begun < 60, "runs went on while it was open"
        assert not one.source.settled
        downstream.up = True
        await one.settled(200)
        assert not one.source.paused
        assert not one.inbox.letters
        assert not one.road.problems()
        assert max(downstream.attempts) == 1, "an attempt was not given back"
        await one.road.close()

    virtual_time.run(main)


async def test_an_outage_of_handlers_on_threads_is_one_too(bench: Make) -> None:
    downstream = Downstream()
    one = bench(downstream, breaker=Limits(3, 30.0))
    one.road.take([delivery(one.source, f"car{n % 20}") for n in range(200)])
    await until(lambda: bool(one.source.paused))
    downstream.up = True
    await one.settled(200)
    assert not one.inbox.letters
    assert max(downstream.attempts) == 1, "an attempt was not given back"


async def test_one_probe_runs_at_a_time(bench: Make) -> None:
    running = 0
    most: list[int] = []
    outage = True

    async def handle(_: Call) -> Any:
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0.005)
        running -= 1
        return DOWN if outage else None

    one = bench(handle, AsyncHandler)
    one.road.take([delivery(one.source, f"car{n}") for n in range(50)])
    await until(lambda: bool(one.source.paused))
    await until(lambda: running == 0)
    most.clear()
    await until(lambda: len(most) >= 3)
    assert set(most) == {1}
    outage = False
    await one.settled(50)


def test_failures_of_one_key_open_nothing_and_its_dead_letter_waits_out_the_window() -> None:
    async def handle(call: Call) -> Any:
        return DOWN if call.key == "poison" else None

    async def main(loop: virtual_time.VirtualLoop) -> None:
        one = Bench(route(AsyncHandler(handle), breaker=Limits(3, 5.0), attempts=3, initial=0.5))
        begun = loop.time()
        one.deliver("poison", b"poison")
        one.deliver("poison", b"behind")
        one.deliver("good")
        await one.settled(1)
        assert one.source.bodies() == [b"{}"]
        await until(lambda: bool(one.inbox.letters))
        assert loop.time() - begun >= 4.99
        assert (one.inbox.letters[0].reason, one.inbox.letters[0].attempts) == ("attempts", 3)
        assert not one.source.paused
        await one.road.close()

    virtual_time.run(main)


def test_a_last_failure_is_given_back_when_the_breaker_opens_meanwhile() -> None:
    async def main(_: virtual_time.VirtualLoop) -> None:
        downstream = Downstream()
        one = Bench(route(AsyncHandler(downstream.later), breaker=Limits(3, 5.0), attempts=1, initial=0.5))
        for key in "abc":
            one.deliver(key)
            await asyncio.sleep(0.2)
        await until(lambda: bool(one.source.paused))
        downstream.up = True
        await one.settled(3)
        assert not one.inbox.letters
        await one.road.close()

    virtual_time.run(main)


@pytest.mark.parametrize(
    "outcome",
    [Again(after=0.0), Rejected("no"), Again(reason="state", failure=Failure("StateError", "x"), counted=False)],
    ids=["retry", "reject", "state"],
)
async def test_what_is_no_failure_never_opens_it(bench: Make, outcome: Any) -> None:
    one = bench(lambda _: outcome)
    one.road.take([delivery(one.source, f"car{n}") for n in range(20)])
    await asyncio.sleep(0.1)
    assert not one.source.paused


async def test_without_a_breaker_nothing_waits(bench: Make) -> None:
    one = bench(Downstream(), breaker=None)
    one.road.take([delivery(one.source, f"car{n}") for n in range(20)])
    await one.settled(20)
    assert len(one.inbox.letters) == 20


async def test_events_without_a_key_count_as_a_key_each(bench: Make) -> None:
    downstream = Downstream()
    one = bench(downstream)
    one.road.take([delivery(one.source, None) for _ in range(5)])
    await until(lambda: bool(one.source.paused))
    downstream.up = True
    await one.settled(5)
    assert not one.inbox.letters


async def test_a_probe_that_fails_otherwise_closes_it(bench: Make) -> None:
    broken = False

    def handle(call: Call) -> Any:
        return Rejected("not mine") if broken and call.key == "car0" else None if broken else DOWN

    one = bench(handle)
    one.road.take([delivery(one.source, f"car{n}") for n in range(10)])
    await until(lambda: bool(one.source.paused))
    broken = True
    await one.settled(10)
    assert not one.source.paused


async def test_callers_run_on_and_are_probes(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "FIRST", 60.0)
    downstream = Downstream()
    one = bench(downstream)
    one.road.take([delivery(one.source, f"car{n}") for n in range(10)])
    await until(lambda: bool(one.source.paused))
    assert (await one.road.run_once(delivery(one.source, "car0", position=None))).outcome == DOWN
    downstream.up = True
    assert (await one.road.run_once(delivery(one.source, "car0", position=None))).outcome == Done()
    await one.settled(10)


async def test_where_nothing_waits_the_next_event_that_comes_is_the_probe(bench: Make) -> None:
    downstream = Downstream()
    one = bench(downstream)
    for key in "abc":
        await one.road.run_once(delivery(one.source, key, position=None))
    assert one.source.paused
    assert one.road.refuses("telemetry") is not None
    await until(lambda: not one.source.paused)
    assert one.road.refuses("telemetry") is None
    assert one.road.problems()[0][1].endswith("the next event is the probe")
    before = len(downstream.runs)
    one.road.take([delivery(one.source, f"car{n}") for n in range(10)])
    await until(lambda: bool(one.source.paused))
    await until(lambda: len(downstream.runs) > before)
    downstream.up = True
    await one.settled(10)


async def test_a_restart_begins_with_it_open_and_a_probe(bench: Make, tmp_path: Path) -> None:
    downstream = Downstream()
    file = tmp_path / "breaker.json"
    first = bench(downstream, breakers=file)
    first.road.take([delivery(first.source, f"car{n}") for n in range(10)])
    await until(file.exists)
    first.road.stop()
    await first.road.quiet()
    downstream.runs.clear()
    second = bench(downstream, breakers=file)
    assert "failed with ConnectionError" in second.road.problems()[0][1]
    second.road.take([delivery(second.source, f"car{n}") for n in range(10)])
    await until(lambda: bool(downstream.runs))
    assert len(downstream.runs) == 1
    downstream.up = True
    await second.settled(10)
    assert not file.exists()


async def test_a_broken_file_of_breakers_begins_closed(bench: Make, tmp_path: Path) -> None:
    file = tmp_path / "breaker.json"
    file.write_text("{")
    one = bench(lambda _: Result(Done()), breakers=file)
    one.deliver()
    await one.settled(1)
    assert not one.road.problems()


async def test_a_probe_whose_partition_goes_leaves_its_place_to_another(bench: Make) -> None:
    downstream = Downstream()
    one = bench(downstream)
    made = [delivery(one.source, f"car{n}") for n in range(6)]
    one.road.take(made)
    await until(lambda: bool(one.source.paused))
    one.source.lost.update(made[:5])
    downstream.up = True
    await one.settled(1)
    one.road.forget_lost()
    await one.road.quiet()


def test_a_probe_that_is_lost_before_it_began_leaves_its_place_to_another() -> None:
    """It was let go, and its partition went in the same turn of the loop."""

    async def main(loop: virtual_time.VirtualLoop) -> None:
        downstream = Downstream()
        telemetry = route(AsyncHandler(downstream.later), breaker=Limits(3, 5.0), attempts=3, initial=0.5)
        one = Bench(telemetry)
        made = [delivery(one.source, f"car{n}") for n in range(6)]
        one.road.take(made)
        await until(lambda: bool(one.source.paused))
        downstream.runs.clear()
        loop.call_at(one.road._gates._gates[telemetry].breaker.probe_at, _lose, one, made[:5])
        await asyncio.sleep(8.0)
        assert downstream.runs, "nothing is probed any more"
        downstream.up = True
        await asyncio.sleep(30.0)
        assert [each for each, _ in one.source.settled] == made[5:]
        await one.road.close()

    virtual_time.run(main)


def _lose(bench: Bench, made: list[Delivery]) -> None:
    bench.source.lost.update(made)
    bench.road.forget_lost()


def poison_or_not(call: Call) -> Any:
    return DOWN if (call.key or "").startswith("poison") else None


def test_events_that_fail_by_themselves_are_given_up_among_others_that_end_well() -> None:
    """However many they are: after a restart they may be the first of all to run, and look like an outage."""

    async def handle(call: Call) -> Any:
        return poison_or_not(call)

    async def main(_: virtual_time.VirtualLoop) -> None:
        one = Bench(route(AsyncHandler(handle), breaker=Limits(3, 5.0), attempts=3, initial=0.5))
        one.road.take([delivery(one.source, f"poison{n}") for n in range(10)])
        await until(lambda: bool(one.source.paused))
        for n in range(500):
            one.road.take([delivery(one.source, f"car{n}")])
            await asyncio.sleep(0.04)
        assert len(one.source.settled) == 510
        assert [(letter.reason, letter.attempts) for letter in one.inbox.letters] == [("attempts", 3)] * 10
        assert not one.road.problems()
        await one.road.close()

    virtual_time.run(main)


async def test_where_only_events_wait_that_failed_a_new_one_is_let_in_as_a_probe(bench: Make) -> None:
    one = bench(poison_or_not)
    one.road.take([delivery(one.source, f"poison{n}") for n in range(5)])
    await until(lambda: bool(one.source.paused))
    await until(lambda: not one.source.paused)
    one.deliver("car")
    await one.settled(1)


def test_what_ends_well_beside_an_outage_costs_it_no_attempts() -> None:
    """Events that need nothing of what is down close the breaker again and again."""
    up = {"parked"}
    cars = [f"car{n}" for n in range(5)]

    async def handle(call: Call) -> Any:
        return None if call.key in up else DOWN

    async def main(_: virtual_time.VirtualLoop) -> None:
        one = Bench(route(AsyncHandler(handle), breaker=Limits(3, 5.0), attempts=3, initial=0.5))
        one.road.take([delivery(one.source, key) for key in cars])
        for count in range(1, 5):
            await until(lambda: bool(one.source.paused))
            await until(lambda: not one.source.paused)
            one.deliver("parked")
            await one.settled(count)
        up.update(cars)
        await one.settled(9)
        assert not one.inbox.letters
        await one.road.close()

    virtual_time.run(main)
