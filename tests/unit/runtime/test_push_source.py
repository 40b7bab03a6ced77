"""Rows that a gateway pushes: what is run of them, and what the gateway is told."""

import asyncio
import sys
import threading

import pytest
from fleetfn.event import Event
from fleetfn.invocation import Again, Done, Rejected
from fleetfn.position import At
from fleetfn_runtime import burial, push_source
from fleetfn_runtime.load import LoadedTrigger
from fleetfn_runtime.push_source import PushSource
from fleetfn_runtime.runs import Route
from fleetfn_spec.function import Trigger
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.push import Pushed, Told
from fleetfn_triggers.trigger import Reading
from road_doubles import PlainHandler, until

EVENT = Event(id="1", source="inbox", type="t", data=b"\x01\x02")


def upper(data):
    return {"first": data[0]}


def loaded(name, decode=None, key=None):
    spec = Trigger(name=name, key=key, kafka=Kafka(topic="t"))
    reading = Reading(trigger=name, function="f", key=None)
    route = Route(name, PlainHandler(lambda _: None), 0, timeout=1)
    return LoadedTrigger(spec, route, spec.kind.reader(spec.block, reading), decode)


class Gateway:
    def __init__(self):
        self.told = []
        self.ended = False

    def tell(self, told, *, last):
        assert not self.ended
        self.told.append(told)
        self.ended = last


class Bench:
    def __init__(self):
        self.taken = []
        self.refused = {}
        self.began, self.go_on = threading.Event(), threading.Event()
        self.triggers = [
            loaded("live"),
            loaded("frames", upper),
            loaded("keyed", key="kafka.key"),
            loaded("hanging", self.hang),
            loaded("leaving", lambda _: sys.exit(3)),
        ]
        self.source = PushSource(self.triggers, self.taken.extend, self.refused.get)

    def hang(self, data):
        self.began.set()
        assert self.go_on.wait(60)
        return upper(data)

    def push(self, *sequences, trigger="live", **fields):
        gateway = Gateway()
        rows = [row(n, trigger, **fields) for n in sequences]
        self.source.push(rows, gateway)
        return gateway

    def settle(self, outcome, *places):
        for place in places:
            delivery = self.taken[place]
            delivery.source.settle(delivery, outcome)


def row(sequence, trigger="live", *, position="", key="car", **fields):
    at = At("inbox:1", 0, sequence) if position == "" else position
    return Pushed(sequence, trigger, key and f"{key}{sequence}", EVENT, at, **fields)


@pytest.fixture
async def bench():
    bench = Bench()
    bench.source.start()
    return bench


async def turn():
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("outcome", "word"), [(Done(), "done"), (Rejected("no"), "dead"), (Again(after=60), "later")], ids=str
)
async def test_what_became_of_a_row_is_told(bench, outcome, word):
    gateway = bench.push(7)
    bench.settle(outcome, 0)
    await turn()
    assert gateway.told == [[Told(7, word)]]
    assert gateway.ended


async def test_what_is_settled_within_a_turn_is_told_together(bench):
    gateway = bench.push(1, 2, 3)
    bench.settle(Done(), 1, 0)
    await turn()
    assert gateway.told == [[Told(2, "done"), Told(1, "done")]]
    assert not gateway.ended
    bench.settle(Done(), 2)
    await turn()
    assert gateway.ended


async def test_a_row_that_is_under_way_is_not_run_again_and_both_are_told(bench):
    before, after = bench.push(7), bench.push(7, 8)
    assert [delivery.position.offset for delivery in bench.taken] == [7, 8]
    bench.settle(Done(), 0, 1)
    await turn()
    assert before.told == [[Told(7, "done")]]
    assert after.told == [[Told(7, "done"), Told(8, "done")]]


async def test_a_row_that_was_told_of_is_run_when_it_is_pushed_again(bench):
    bench.push(7)
    bench.settle(Again(after=60), 0)
    bench.push(7, attempts=1)
    assert [delivery.attempts for delivery in bench.taken] == [0, 1]


async def test_a_row_that_is_done_is_not_run_again(bench, monkeypatch):
    monkeypatch.setattr(push_source, "REMEMBER", 2)
    bench.push(1, 2, 3)
    bench.settle(Done(), 0, 1, 2)
    again = bench.push(1, 2, 3)
    await turn()
    assert again.told == [[Told(2, "done"), Told(3, "done")]]
    assert [delivery.position.offset for delivery in bench.taken] == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("outcome", "position"),
    [(Rejected("no"), At("inbox:1", 0, 7)), (Done(), At("kafka:t:1", 0, 7))],
    ids=["a dead letter", "an event of Kafka"],
)
async def test_what_may_be_pushed_again_for_good_reason_is_run_again(bench, outcome, position):
    bench.push(7, position=position)
    bench.settle(outcome, 0)
    bench.push(7, position=position)
    assert len(bench.taken) == 2


async def test_what_is_behind_a_row_that_has_to_wait_is_given_back(bench):
    gateway = Gateway()
    rows = [row(n, key=None) for n in (1,)] + [Pushed(n, "live", "car", EVENT, At("inbox:1", 0, n)) for n in (2, 3, 4)]
    bench.source.push([*rows, row(5)], gateway)
    bench.settle(Done(), 1)
    bench.settle(Again(after=60), 2)
    await turn()
    assert gateway.told == [[Told(2, "done"), Told(3, "later"), Told(4, "behind")]]
    assert [delivery.source.owns(delivery) for delivery in bench.taken] == [True, True, True, False, True]
    bench.settle(Done(), 0, 4)
    await turn()
    assert gateway.ended
    bench.push(4)  # it comes again in its turn, and is run
    assert len(bench.taken) == 6


@pytest.mark.parametrize(("park", "word"), [(False, "done"), (True, "behind")], ids=["goes on", "parks"])
async def test_what_is_behind_a_dead_letter_is_given_back_where_it_parks_its_lane(bench, park, word):
    bench.triggers[0].route.park = park
    gateway = Gateway()
    bench.source.push([Pushed(n, "live", "car", EVENT, At("inbox:1", 0, n)) for n in (1, 2)], gateway)
    bench.settle(Rejected("no"), 0)
    if not park:
        bench.settle(Done(), 1)
    await turn()
    assert gateway.told == [[Told(1, "dead"), Told(2, word)]]
    assert gateway.ended


async def test_a_row_that_comes_behind_one_under_way_is_given_back_with_it(bench):
    lane = [Pushed(n, "live", "car", EVENT, At("inbox:1", 0, n)) for n in (1, 2, 3)]
    before, after = Gateway(), Gateway()
    bench.source.push(lane[:2], before)
    bench.source.push(lane, after)
    bench.settle(Again(after=60), 0)
    await turn()
    assert before.told == [[Told(1, "later"), Told(2, "behind")]]
    assert after.told == [[Told(1, "later"), Told(2, "behind"), Told(3, "behind")]]


async def test_what_was_given_back_and_came_again_by_itself_is_not_given_back_with_what_was_before_it(bench):
    lane = [Pushed(n, "live", "car", EVENT, At("inbox:1", 0, n)) for n in (1, 2)]
    bench.source.push(lane, Gateway())
    bench.taken[0].invocation = "it runs"
    bench.source.pause("live")
    bench.source.resume("live")
    again, later = Gateway(), Gateway()
    bench.source.push(lane[1:], again)  # another worker has done the first one meanwhile
    bench.settle(Again(after=60), 0)
    bench.source.push(lane[1:], later)
    assert [delivery.position.offset for delivery in bench.taken] == [1, 2, 2]
    bench.settle(Done(), 2)
    await turn()
    assert again.told == later.told == [[Told(2, "done")]]


async def test_rows_without_a_position_are_run_each(bench):
    gateway = bench.push(7, 7, position=None)
    assert len(bench.taken) == 2
    bench.settle(Done(), 0, 1)
    await turn()
    assert gateway.ended


async def test_nothing_runs_before_the_function_is_this_workers():
    bench = Bench()
    bench.push(7)
    assert not bench.taken
    bench.source.start()
    assert len(bench.taken) == 1


async def test_what_was_not_begun_is_left_to_another_worker(bench):
    gateway = bench.push(7, 8)
    begun, waiting = bench.taken
    begun.invocation = "i-1"
    bench.source.stop()
    await turn()
    assert gateway.told == [[Told(8, "lost")]]
    assert begun.source.owns(begun)
    assert not waiting.source.owns(waiting)
    bench.settle(Done(), 0)
    await turn()
    assert gateway.ended


async def test_a_worker_that_stops_before_it_began_leaves_everything():
    bench = Bench()
    gateway = bench.push(7)
    bench.source.stop()
    bench.source.start()
    late = bench.push(8)
    await turn()
    assert not bench.taken
    assert (gateway.told, late.told) == ([[Told(7, "lost")]], [[Told(8, "lost")]])


async def test_rows_of_a_paused_trigger_are_left_for_later(bench):
    bench.source.pause("live")
    gateway = bench.push(7)
    await turn()
    [[told]] = gateway.told
    assert told.outcome == "lost"
    assert told.after > 0
    bench.source.resume("live")
    bench.push(7)
    assert len(bench.taken) == 1


async def test_what_was_not_begun_is_given_back_when_its_trigger_is_paused(bench):
    gateway = bench.push(7, 8)
    others = bench.push(9, trigger="keyed")
    bench.taken[0].invocation = "i-1"
    bench.source.pause("live")
    await turn()
    assert gateway.told == [[Told(8, "lost", push_source.NOT_HERE)]]
    assert not others.told
    bench.settle(Done(), 0)
    await turn()
    assert gateway.ended


async def test_raw_data_is_decoded_here(bench):
    bench.push(1, trigger="frames", raw=True)
    bench.push(2, trigger="frames")
    bench.push(3, trigger="live", raw=True)
    assert [delivery.event.data for delivery in bench.taken] == [EVENT.data]
    assert bench.source.decoding == 2
    await until(lambda: len(bench.taken) == 3)
    assert bench.source.decoding == 0
    assert [delivery.event.data for delivery in bench.taken[1:]] == [b'{"first":1}', EVENT.data]
    assert bench.taken[1].event.datacontenttype == "application/json"


async def test_a_decode_that_hangs_holds_up_its_own_trigger_alone(bench):
    slow = bench.push(1, 2, trigger="hanging", raw=True)
    bench.push(3)
    await asyncio.to_thread(bench.began.wait, 5)
    assert [delivery.trigger for delivery in bench.taken] == ["live"]
    bench.source.stop()
    await turn()
    assert [each.outcome for each in slow.told[0]] == ["lost", "lost"]
    bench.go_on.set()
    await until(lambda: bench.source.decoding == 0)
    assert len(bench.taken) == 1


async def test_a_decode_that_would_end_its_thread_makes_the_event_unreadable(bench):
    bench.push(1, trigger="leaving", raw=True)
    bench.push(2, trigger="leaving", raw=True)
    await until(lambda: len(bench.taken) == 2)
    assert bench.taken[0].problem == bench.taken[1].problem == "decode failed: SystemExit: 3"


async def test_raw_data_that_cannot_be_decoded_makes_the_event_unreadable(bench):
    gateway = Gateway()
    empty = Event(id="1", source="inbox", type="t", data=b"")
    bench.source.push([Pushed(1, "frames", "a", empty, At("inbox:1", 0, 1), raw=True)], gateway)
    await until(lambda: bench.taken)
    [delivery] = bench.taken
    assert "IndexError" in delivery.problem
    assert delivery.event == empty


async def test_rows_of_a_trigger_that_stands_still_are_left_for_later(bench):
    bench.refused["live"] = 4.0
    gateway = bench.push(7)
    frames = bench.push(8, trigger="frames")
    await turn()
    assert gateway.told == [[Told(7, "lost", 4.0)]]
    await until(lambda: len(bench.taken) == 1)
    assert not frames.told


async def test_a_row_without_a_key_is_unreadable_where_the_trigger_has_one(bench):
    bench.push(1, trigger="keyed", key=None)
    bench.push(2, trigger="live", key=None)
    assert bench.taken[0].problem.startswith("no key")
    assert bench.taken[1].problem is None


async def test_what_an_output_refused_is_not_handed_to_a_handler(bench):
    refused = Event(id="1", source="f", type="t", data=b"{}", headers=((burial.REFUSED_BY, b"alerts"),))
    bench.source.push([Pushed(1, "live", "a", refused, At("inbox:1", 0, 1))], Gateway())
    assert bench.taken[0].problem.startswith("it is what output alerts refused")
