"""Which events wait for others, and when a batch begins: lanes and a clock, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from fleetfn_runtime import gathering as gathering_module
from fleetfn_runtime.gathering import Gathering, parties
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.runs import Batching, Run
from road_doubles import BatchHandler, ListSource, delivery, route


class Surroundings:
    def __init__(self, **batch: Any) -> None:
        self.now = 100.0
        self.route = route(BatchHandler(lambda _: []), batch=Batching(**{"size": 3, "wait": 1.0, **batch}))
        self.other = route(BatchHandler(lambda _: []), trigger="other", kind=1)
        self.lanes: Lanes[Run] = Lanes(kinds=2)
        self.gathering = Gathering([self.route, self.other], self.lanes, lambda: self.now)
        self.source = ListSource()

    def put(self, key: str | None, data: str = "", *, other: bool = False, **more: Any) -> Run:
        run = Run(delivery(self.source, key, data.encode(), **more), self.other if other else self.route)
        self.lanes.put(run)
        self.gathering.came(run)
        return run

    def take(self, most: int = 100) -> list[str]:
        return ["".join(_data(link) for link in run.links()) for run in self.runs(most)]

    def runs(self, most: int = 100) -> list[Run]:
        self.lanes.wake(self.now)
        return self.gathering.take(self.route, most)


def _data(run: Run) -> str:
    return (run.delivery.event.data or b"").decode()


class TestByKey:
    def test_a_key_begins_when_it_has_as_many_as_a_batch_may_have(self) -> None:
        one = Surroundings(by_key=True)
        for letter in "ab":
            one.put("car", letter)
        one.put("van", "x")
        assert one.take() == []
        one.put("car", "c")
        assert one.take() == ["abc"]

    def test_or_when_its_first_has_waited_long_enough(self) -> None:
        one = Surroundings(by_key=True)
        one.put("car", "a")
        one.now += 0.6
        one.put("van", "x")
        one.put("car", "b")
        assert one.take() == []
        assert one.lanes.next_due() == 101.0
        one.now = 101.0
        assert one.take() == ["ab"]
        one.now = 101.6
        assert one.take() == ["x"]

    def test_what_waited_behind_a_batch_under_way_counts_its_time(self) -> None:
        one = Surroundings(by_key=True, wait=1.0)
        one.put("car", "a")
        one.now += 1
        (first,) = one.runs()
        one.put("car", "b")
        one.now += 1
        one.lanes.finish(first)
        assert one.take() == ["b"]

    def test_a_batch_has_no_more_than_it_may(self) -> None:
        one = Surroundings(by_key=True)
        for letter in "abcde":
            one.put("car", letter)
        (first,) = one.runs()
        assert [_data(link) for link in first.links()] == ["a", "b", "c"]
        one.lanes.finish(first)
        assert one.take() == []
        one.now += 1
        assert one.take() == ["de"]

    def test_without_waiting_it_takes_what_is_there(self) -> None:
        one = Surroundings(by_key=True, wait=0.0)
        one.put("car", "a")
        one.put("car", "b")
        assert one.take() == ["ab"]

    def test_nothing_is_waited_for_that_cannot_come_along(self) -> None:
        one = Surroundings(by_key=True)
        one.put("car", "a")
        one.put("car", "b", other=True)
        assert one.take() == ["a"]

    def test_what_an_inbox_pushed_is_the_only_one_of_its_key(self) -> None:
        one = Surroundings(by_key=True)
        one.put("car", "a", pushed=True)
        assert one.take() == ["a"]

    def test_a_key_that_is_held_at_the_inbox_waits_for_nothing_here(self) -> None:
        one = Surroundings(by_key=True)
        one.route.held.add("car")
        one.put("car", "a")
        assert one.take() == ["a"]


class TestOfAnyKey:
    def test_it_begins_when_there_are_enough(self) -> None:
        one = Surroundings()
        one.put("car", "a")
        one.put(None, "b")
        assert one.take() == []
        one.put("van", "c")
        assert one.take() == ["a", "b", "c"]

    def test_or_when_the_first_has_waited_long_enough(self) -> None:
        one = Surroundings()
        one.put("car", "a")
        assert one.take() == []
        one.now += 0.9
        one.put("van", "b")
        assert one.take() == []
        one.now += 0.1
        assert one.take() == ["a", "b"]

    def test_what_comes_of_a_key_that_gathers_counts(self) -> None:
        one = Surroundings()
        one.put("car", "a")
        assert one.take() == []
        one.put("car", "b")
        assert one.take() == []
        one.put("car", "c")
        assert one.take() == ["abc"]

    def test_only_whole_batches_begin_before_their_time(self) -> None:
        one = Surroundings()
        for letter in "abcdefg":
            one.put(None, letter)
        assert one.take() == ["a", "b", "c", "d", "e", "f"]
        assert one.take() == []
        one.now += 1
        assert one.take() == ["g"]

    def test_with_little_room_the_rest_follows(self) -> None:
        one = Surroundings(size=100)
        for letter in "abcde":
            one.put(None, letter)
        assert one.take() == []
        one.now += 1
        assert one.take(2) == ["a", "b"]
        assert one.take(2) == ["c", "d"]
        assert one.take(2) == ["e"]

    def test_what_runs_alone_neither_waits_nor_joins(self) -> None:
        one = Surroundings()
        one.put("car", "a")
        alone = one.put("van", "b")
        alone.chains = False
        bad = one.put("bus", "c", problem="no key")
        assert one.runs() == [alone, bad]
        assert [len(party) for party in parties([alone, bad], 3)] == [1, 1]

    def test_batches_have_as_many_as_they_may(self) -> None:
        one = Surroundings(size=4, wait=0.0)
        for key, letter in zip("aabbbcd", "1234567", strict=True):
            one.put(key, letter)
        batches = parties(one.runs(), 4)
        assert [[_data(link) for run in party for link in run.links()] for party in batches] == [
            ["1", "2"],
            ["3", "4", "5", "6"],
            ["7"],
        ]


@pytest.mark.parametrize("by_key", [True, False])
class TestEither:
    def test_where_much_gathers_nothing_waits(self, by_key: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a case
        monkeypatch.setattr(gathering_module, "FULL", 5)
        one = Surroundings(by_key=by_key, size=100, wait=600.0)
        for number in range(4):
            one.put(f"car {number}", str(number))
        assert one.take() == []
        one.put("car 0", "+")
        assert sorted(one.take()) == ["0+", "1", "2", "3"]
        one.now += 0.001
        one.put("car 9", "9")
        assert one.take() == [], "it gathers anew"

    def test_bytes_are_bounded(self, by_key: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a case
        monkeypatch.setattr(gathering_module, "FULL_BYTES", 1000)
        one = Surroundings(by_key=by_key, size=100, wait=600.0)
        one.put("car", "a", size=600)
        assert one.take() == []
        one.put("car", "b", size=600)
        assert one.take() == ["ab"]

    def test_callers_pass_what_gathers(self, by_key: bool) -> None:  # noqa: FBT001 - a case
        one = Surroundings(by_key=by_key)
        one.put("car", "a")
        assert one.take() == []
        caller = Run(delivery(one.source, "car", waits=True), one.other)
        caller.key = "car"
        one.lanes.put(caller)
        (taken,) = one.lanes.take(10, 1)
        assert taken is caller
        one.lanes.finish(caller)
        one.now += 1
        assert one.take() == ["a"]

    def test_what_was_swept_is_forgotten(self, by_key: bool) -> None:  # noqa: FBT001 - a case
        one = Surroundings(by_key=by_key)
        lost = [one.put("car", "a"), one.put(None, "b")]
        assert one.take() == []
        for run in one.lanes.sweep(lambda run: run in lost):
            one.gathering.forget(run)
        one.put("car", "c")
        one.put("car", "d")
        assert one.take() == [], "two, and not four"
        one.now += 1
        assert one.take() == ["cd"]
