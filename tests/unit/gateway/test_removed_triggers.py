"""What waits for a trigger that its function has no more becomes dead letters, after a while."""

import pytest
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.removed import KEPT, STEP, Removed
from fleetfn_triggers.inbox import Which
from gateway_doubles import arrival, function, http


@pytest.fixture
async def queue(tmp_path):
    queue = await Queue.open(tmp_path / "inbox.db", quota=2**30)
    yield queue
    await queue.close()


WITHOUT = {"f": function(http("u"))}


class Now:
    def __init__(self):
        self.seconds = 50.0

    def __call__(self):
        return self.seconds


async def test_what_waits_an_hour_for_a_trigger_that_is_gone_becomes_dead_letters_in_order(queue):
    now = Now()
    removed = Removed(queue, lambda: 2000.0, now)
    sequences = await queue.put([arrival(number, f"k{number % 3}") for number in range(STEP + 5)])
    kept = await queue.put([arrival(1, trigger="u"), arrival(1, function="other")])
    await removed.bury_due(WITHOUT)
    now.seconds += KEPT - 1
    await removed.bury_due(WITHOUT)
    assert await queue.count(Which()) == 0
    now.seconds += 1
    await removed.bury_due(WITHOUT)
    letters = (await queue.dead(Which(), limit=1000)).rows
    assert [each.sequence for each in letters] == sequences
    assert {(each.reason, each.created) for each in letters} == {("removed", 2000.0)}
    assert letters[0].detail == "the function has no trigger 't' any more"
    assert [(await queue.get(each)).status for each in kept] == ["waiting", "waiting"]
    assert await queue.redrive(Which()) == len(sequences)
    taken = await queue.take("f", ["t"], 3, 2**20)
    assert [each.event for each in taken] == [arrival(number).event for number in range(3)]


async def test_a_revision_that_has_it_again_finds_all_as_it_was(queue):
    now = Now()
    removed = Removed(queue, lambda: 2000.0, now)
    await queue.put([arrival(1, "k")])
    await removed.bury_due(WITHOUT)
    now.seconds += KEPT - 1
    await removed.bury_due({"f": function(http("t"))})
    now.seconds += KEPT
    await removed.bury_due(WITHOUT)
    assert await queue.count(Which()) == 0
    assert queue.ready("f", ["t"]) == 1


async def test_what_is_in_flight_is_left_to_who_has_it(queue):
    now = Now()
    removed = Removed(queue, lambda: 2000.0, now)
    first, second = await queue.put([arrival(1, "k"), arrival(2, "k")])
    await queue.take("f", ["t"], 1, 100)
    await removed.bury_due(WITHOUT)
    now.seconds += KEPT
    await removed.bury_due(WITHOUT)
    assert [each.sequence for each in (await queue.dead(Which())).rows] == [second]
    await queue.done([first])
    assert await queue.get(first) is None
