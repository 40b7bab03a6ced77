"""What a function's pods did, summed up over pods that come and go, and over gateways."""

import pytest
from fleetfn.errors import StoreError
from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.cluster.tallies import Tallies
from fleetfn_spec.cluster import Figures
from fleetfn_spec.control import Counters


class Notes:
    """In memory. `full`: takes nothing."""

    def __init__(self):
        self.kept = {}
        self.full = False

    def note(self, name):
        return self.kept.get(name)

    async def put(self, _, *, notes):
        if self.full:
            raise StoreError("the disk is full")
        self.kept |= notes
        return []

    async def forget(self, prefix):
        self.kept = {name: value for name, value in self.kept.items() if not name.startswith(prefix)}


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def tallies(notes):
    return another(notes)


def another(notes):
    return Tallies(notes, Pods(lambda _: None), clock=lambda: 7.0)


def said(run, done, **more):
    return Figures(run=run, counters=Counters(done=done), **more)


def done(tallies):
    return tallies.all(["f"])["f"].counters.done


def test_totals_of_processes_are_summed_up_however_often_they_are_told(tallies):
    for figures in (said("a", 3), said("a", 3), said("b", 1), said("a", 5), said("b", 2)):
        tallies.told("f", figures)
    assert done(tallies) == 7


async def test_sums_outlive_the_gateway_and_go_on_with_pods_that_it_knew(tallies, notes):
    tallies.told("f", said("a", 3))
    await tallies.save()
    after = another(notes)
    after.told("f", said("a", 4))
    assert done(after) == 4


async def test_what_could_not_be_written_is_written_later(tallies, notes):
    notes.full = True
    tallies.told("f", said("a", 3))
    await tallies.save()
    notes.full = False
    await tallies.save()
    assert done(another(notes)) == 3


async def test_a_function_that_is_forgotten_begins_anew(tallies, notes):
    tallies.told("f", said("a", 3))
    await tallies.save()
    await tallies.forget("f")
    assert done(tallies) == 0
    assert notes.kept == {}


def test_who_wakes_alone_is_a_cold_start_once(tallies):
    tallies.told("f", said("a", 0), woken=True)
    tallies.told("f", said("a", 1), woken=True)
    tallies.told("f", said("b", 1))
    sums = tallies.all(["f"])["f"]
    assert (sums.counters.cold_starts, sums.last_activation) == (1, 7.0)


def test_the_last_error_is_the_latest_of_all_pods(tallies):
    tallies.told("f", said("a", 1, last_error="older", last_error_time=5.0))
    tallies.told("f", said("b", 1, last_error="newer", last_error_time=6.0))
    tallies.told("f", said("a", 2, last_error="older", last_error_time=5.0))
    assert tallies.all(["f"])["f"].last_error == "newer"


def test_what_pods_there_are_have_in_flight_is_told_by_pod(notes):
    pods = Pods(lambda _: None)
    pods._pods["f-1"] = Seen("f-1", "f", "r", "10.0.0.1", True, False, "", figures=said("a", 1, in_flight=2, rss=9))
    [worker] = Tallies(notes, pods).all(["f"])["f"].workers.values()
    assert (worker.in_flight, worker.rss) == (2, 9)
