"""How many workers there should be: figures and time are the test's."""

import pytest
from fleetfn_node.scaling import BUSY, Demand, Scaling, needed


class World:
    def __init__(self, *, least=0, most=4, idle=30.0, concurrency=10):
        self.scaling = Scaling(least=least, most=most, idle=idle, concurrency=concurrency)
        self.now = 100.0
        self.there = 1

    def look(self, **demand):
        """A second later; whatever is wanted is there at once."""
        self.now += 1.0
        self.there = self.scaling.look(self.now, self.there, Demand(**demand))
        return self.there

    def looks(self, count, **demand):
        return [self.look(**demand) for _ in range(count)]


CASES = {
    "a lag over many partitions": ({"lag": 90, "lagging": 6}, 3),
    "a lag of one hot partition": ({"lag": 9000, "lagging": 1}, 1),
    "requests under way": ({"held": 50}, 2),
    "rows that wait": ({"waiting": 41}, 2),
    "a little of each": ({"lag": 30, "lagging": 2, "held": 30, "waiting": 30}, 3),
    "nothing": ({}, 0),
}


@pytest.mark.parametrize(("demand", "workers"), CASES.values(), ids=CASES)
def test_what_there_is_to_do_in_workers(demand, workers):
    assert needed(Demand(**demand), 30, 40) == workers


def test_more_are_wanted_after_two_looks_that_say_so():
    assert World().looks(3, lag=1000, lagging=6) == [1, 4, 4]


def test_a_burst_that_is_gone_at_the_next_look_starts_nobody():
    world = World()
    assert world.look(lag=1000, lagging=6) == 1
    assert world.looks(2) == [1, 1]
    assert world.look(lag=1000, lagging=6) == 1


def test_of_two_looks_the_smaller_one_counts():
    world = World()
    world.look(lag=1000, lagging=6)
    assert world.look(lag=30, lagging=6) == 2


def test_a_worker_that_handles_what_waits_within_a_second_needs_no_other():
    assert World().looks(3, lag=1000, lagging=6, done=2000) == [1, 1, 1]


def test_a_worker_that_holds_far_more_than_its_concurrency_needs_another_however_quick_it_is():
    assert World().looks(2, held=60, done=2000) == [1, 3]


def test_never_more_than_the_most():
    assert World(most=2).looks(3, waiting=10_000) == [1, 2, 2]


def test_fewer_are_wanted_once_they_were_enough_for_as_long_as_idle_says():
    world = World(idle=30.0)
    world.looks(2, waiting=10_000)
    assert world.looks(30) == [4] * 30
    assert world.look() == 1


def test_as_many_stay_as_were_needed_at_one_time_within_idle():
    world = World(idle=30.0)
    world.looks(2, waiting=10_000)
    world.looks(15)
    world.look(held=15)
    assert world.looks(15)[-1] == 2


def test_a_load_that_stays_changes_nothing():
    world = World(idle=5.0)
    world.looks(2, held=50)
    assert world.there == 3
    assert set(world.looks(100, held=25)) == {3}
    assert set(world.looks(100, held=45)) == {3}


def test_workers_whose_processors_are_busy_stay():
    world = World(idle=5.0)
    world.looks(2, held=50)
    assert set(world.looks(100, cores=2 * BUSY + 0.1)) == {3}
    assert world.looks(7, cores=2 * BUSY - 0.1)[-1] == 2


def test_the_least_stay():
    world = World(least=2, idle=5.0)
    world.looks(2, waiting=10_000)
    assert world.looks(20)[-1] == 2
