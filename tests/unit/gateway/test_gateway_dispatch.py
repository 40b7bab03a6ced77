"""Rows of the real queue on their way to doubles of workers."""

import asyncio
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pytest
from fleetfn.position import At
from fleetfn_gateway.dispatch import Dispatch
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.resting import PROBES
from fleetfn_triggers.inbox import Letter, Offer
from fleetfn_triggers.push import Told
from gateway_doubles import LIMIT, FakeOwner, arrival, until
from push_worker import PushWorker, done, never

QUOTA = 2**30


@pytest.fixture
async def queue(tmp_path):
    queue = await Queue.open(tmp_path / "inbox.db", quota=QUOTA)
    yield queue
    await queue.close()


@pytest.fixture
def run():
    """A folder for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        yield Path(folder)


@pytest.fixture
async def dispatching(queue):
    """Starts dispatches of function f, which end with the test."""
    begun = []

    def dispatching(owner, *, triggers=("t",), concurrency=64):
        dispatch = Dispatch("f", queue, owner, triggers=frozenset(triggers), concurrency=concurrency)
        queue.on_ready = lambda _: dispatch.ready()
        begun.append(dispatch)
        return dispatch

    yield dispatching
    for each in begun:
        await each.close()


async def nothing_waits(queue):
    await until(lambda: all(not each.waiting for each in queue.counts().get("f", {}).values()), "an empty queue")


def numbers(rows):
    return [int(row.event.id) for row in rows]


async def test_rows_of_a_lane_are_delivered_in_order_one_at_a_time(queue, run, dispatching):
    under_way = set()

    async def handle(row):
        assert row.key not in under_way
        under_way.add(row.key)
        await asyncio.sleep(0.001)
        under_way.discard(row.key)
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(number, f"k{number % 7}") for number in range(200)])
        dispatch = dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        by_key = defaultdict(list)
        for row in worker.rows:
            by_key[row.key].append(int(row.event.id))
        assert {key: sorted(found) for key, found in by_key.items()} == by_key
        assert sum(map(len, by_key.values())) == 200
        await until(lambda: dispatch.delivered == {"t": 200})


async def test_a_row_is_pushed_as_it_is_in_the_inbox(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        (sequence,) = await queue.put([arrival(7, "LSV1", raw=True)])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        (row,) = worker.rows
        assert (row.sequence, row.trigger, row.key, row.raw, row.attempts) == (sequence, "t", "LSV1", True, 0)
        assert row.position == At(f"inbox:{queue.file}", 0, sequence)
        assert row.event == arrival(7).event


async def test_the_owner_wakes_a_worker_while_its_first_row_is_written(queue, run, dispatching, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.dispatch.ASK", 10.0 * LIMIT)  # however long the row takes
    async with PushWorker(run / "w.sock") as worker:
        owner = FakeOwner(worker.path)
        dispatch = dispatching(owner)
        dispatch.coming("t")
        await until(lambda: [waiting for _, _, waiting in owner.asked] == [1], "the owner, asked for a row to come")
        await queue.put([arrival(1, "k")])
        await nothing_waits(queue)
        assert len(owner.asked) == 1
        assert numbers(worker.rows) == [1]


async def test_nobody_wakes_for_what_is_paused_or_unreadable(queue, run, dispatching):
    owner = FakeOwner(run / "w.sock")
    dispatch = dispatching(owner)
    coming = []
    queue.on_coming = lambda function, trigger: (coming.append((function, trigger)), dispatch.coming(trigger))
    await queue.put([arrival(1, "k", trigger="paused"), arrival(2, None, problem="it has no key")])
    assert coming == [("f", "paused")]
    await asyncio.sleep(0)
    assert owner.asked == []


async def test_slow_rows_delay_no_others(queue, run, dispatching):
    gate = asyncio.Event()

    async def handle(row):
        if row.key.startswith("slow"):
            await gate.wait()
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        dispatch = dispatching(FakeOwner(worker.path))
        for number in range(40):  # each with quick ones beside it, so in pushes of their own
            await queue.put([arrival(number, f"slow{number}"), arrival(100 + number, f"quick{number}")])
            await until(lambda n=number: dispatch.delivered["t"] > n)
        assert worker.open == 40
        assert queue.counts()["f"]["t"].waiting == 40
        gate.set()
        await nothing_waits(queue)


async def test_what_is_behind_a_slow_row_waits(queue, run, dispatching):
    gate = asyncio.Event()

    async def handle(row):
        await gate.wait()
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        dispatching(FakeOwner(worker.path))
        await queue.put([arrival(1, "k")])
        await until(lambda: worker.rows)
        await queue.put([arrival(2, "k")])
        await asyncio.sleep(0.02)
        assert numbers(worker.rows) == [1]
        gate.set()
        await nothing_waits(queue)
        assert numbers(worker.rows) == [1, 2]


async def test_what_waits_in_a_lane_is_pushed_together_in_order(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        await queue.put([arrival(number, "k") for number in range(200)])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert numbers(worker.rows) == list(range(200))
        assert len(worker.pushes) < 20


async def test_what_is_given_back_is_pushed_again_behind_the_row_that_waits(queue, run, dispatching):
    runs = []

    async def handle(row):
        runs.append(int(row.event.id))
        if runs.count(2) > 1 or runs[-1] != 2:
            return done(row)
        offer = Offer(
            function="f",
            trigger="t",
            key=row.key,
            event=row.event,
            position=row.position,
            attempts=1,
            due=time.time() + 0.1,
        )
        await queue.offer([offer])
        return Told(row.sequence, "later")

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(number, "k") for number in range(5)])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert runs == [0, 1, 2, 2, 3, 4]
        assert numbers(worker.pushes[0]) == [0, 1, 2, 3, 4]


async def test_long_slow_lanes_leave_room_for_others(queue, run, dispatching):
    gate = asyncio.Event()

    async def handle(row):
        if row.key.startswith("slow"):
            await gate.wait()
        return done(row)

    async with PushWorker(run / "w.sock", handle):
        await queue.put([arrival(number, f"slow{number % 40}") for number in range(2000)])
        dispatch = dispatching(FakeOwner(run / "w.sock"), concurrency=16)
        await until(lambda: dispatch.in_flight == 80)
        await queue.put([arrival(number, f"quick{number}") for number in range(100)])
        await until(lambda: dispatch.delivered["t"] == 100)
        assert dispatch.in_flight <= 40 + 64
        gate.set()
        await nothing_waits(queue)


async def test_rows_are_pushed_one_by_one_while_it_is_unknown_which_cannot_be_read(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        worker.instead = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
        await queue.put([arrival(number, "k") for number in range(3)])
        dispatching(FakeOwner(worker.path))
        await until(lambda: worker.pushes)
        worker.instead = None
        await nothing_waits(queue)
        assert [len(push) for push in worker.pushes] == [3, 1, 1, 1]


async def test_a_row_that_becomes_due_while_dispatch_looks_is_not_forgotten(tmp_path, run):
    class Passing:
        """The queue, and time that passes whenever it has told what is ready."""

        def __getattr__(self, name):
            return getattr(queue, name)

        def ready(self, *args):
            found = queue.ready(*args)
            now[0] += 0.1
            return found

    now = [1000.0]
    queue = await Queue.open(tmp_path / "inbox.db", quota=QUOTA, clock=lambda: now[0])
    async with PushWorker(run / "w.sock") as worker:
        await queue.put([arrival(1, "k")])
        (row,) = await queue.take("f", "t", 1, 1000)
        queue.release(row.sequence, after=0.05)
        dispatch = Dispatch("f", Passing(), FakeOwner(worker.path), triggers=frozenset("t"), concurrency=4)
        await until(lambda: dispatch.delivered == {"t": 1})
        await dispatch.close()
    await queue.close()


async def test_rows_of_a_worker_that_vanishes_go_to_the_next(queue, run, dispatching):
    async with PushWorker(run / "second.sock") as second:
        owner = FakeOwner(run / "first.sock")
        first = PushWorker(run / "first.sock", never)
        async with first:
            await queue.put([arrival(number, f"k{number % 5}") for number in range(20)])
            dispatching(owner)
            await until(lambda: first.rows)
            owner.workers = [second.path]
        await nothing_waits(queue)
        assert sorted(numbers(second.rows)) == list(range(20))


async def test_a_row_of_which_nothing_is_told_is_pushed_again(queue, run, dispatching):
    runs = defaultdict(int)

    async def handle(row):
        runs[row.event.id] += 1
        return done(row) if runs[row.event.id] > 1 else None

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k"), arrival(2, "k")])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert numbers(worker.rows) == [1, 2, 1, 2, 2]


async def test_a_lost_row_is_pushed_again_when_the_worker_says_and_so_is_its_trigger(queue, run, dispatching):
    told = []

    async def handle(row):
        told.append((asyncio.get_running_loop().time(), row.event.id))
        return Told(row.sequence, "lost", 1.0) if len(told) == 1 else done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        dispatching(FakeOwner(worker.path), triggers=("t", "u"))
        await queue.put([arrival(1, "k")])
        await until(lambda: told)
        await queue.put([arrival(2, "another lane"), arrival(3, "k", trigger="u")])
        there = asyncio.get_running_loop().time()
        await nothing_waits(queue)
        first, _ = told[0]
        if there - first < 0.5:  # else a slow disk has used the rest up
            assert told[1][1] == "3"
        assert min(when for when, number in told[1:] if number != "3") - first >= 1.0
        assert sorted(number for _, number in told) == ["1", "1", "2", "3"]


async def test_a_trigger_that_is_refused_costs_few_pushes_and_holds_no_other(queue, run, dispatching):
    refused, refusing = [], True

    async def handle(row):
        if row.trigger == "t" and refusing:
            refused.append(row)
            return Told(row.sequence, "lost", 0.2)
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        for start in range(0, 10_000, 2500):
            await queue.put([arrival(number, f"k{number}") for number in range(start, start + 2500)])
        began = asyncio.get_running_loop().time()
        dispatch = dispatching(FakeOwner(worker.path), triggers=("t", "u"))
        await until(lambda: refused)
        await queue.put([arrival(number, f"k{number}", trigger="u") for number in range(500)])
        await until(lambda: dispatch.delivered["u"] == 500)
        first = len(refused)
        rests = 2 + (asyncio.get_running_loop().time() - began) / 0.2
        assert first <= 256 + rests * PROBES  # one worker's room, and probes after each rest
        await until(lambda: len(refused) >= first + 2 * PROBES)
        times = len(refused)
        refusing = False
        assert 10_000 / PROBES * 0.2 > 2 * LIMIT  # by probes alone it would not be done in time
        await nothing_waits(queue)
        assert len(refused) <= times + PROBES


async def test_a_trigger_that_one_worker_refuses_goes_on_at_another(queue, run, dispatching):
    async def refuse(row):
        return Told(row.sequence, "lost", 10.0)

    async with PushWorker(run / "a.sock", refuse) as paused, PushWorker(run / "b.sock") as other:
        await queue.put([arrival(number, f"k{number}") for number in range(600)])
        dispatching(FakeOwner(paused.path, other.path))
        await nothing_waits(queue)
        assert paused.rows
        assert len(other.rows) == 600


async def test_a_trigger_that_rests_is_tried_at_once_when_the_function_changes(queue, run, dispatching):
    async def handle(row):
        return done(row) if len(worker.rows) > 1 else Told(row.sequence, "lost", 15.0)

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k")])
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: worker.rows and not dispatch.in_flight)
        dispatch.change(frozenset({"t"}), 64)
        began = asyncio.get_running_loop().time()
        await nothing_waits(queue)
        assert asyncio.get_running_loop().time() - began < 14.0  # it would have rested longer


async def test_a_row_that_was_offered_back_waits_until_it_is_due(queue, run, dispatching):
    runs = []

    async def handle(row):
        runs.append(asyncio.get_running_loop().time())
        if len(runs) > 1:
            return done(row)
        offer = Offer(
            function="f",
            trigger="t",
            key=row.key,
            event=row.event,
            position=row.position,
            attempts=1,
            due=time.time() + 0.3,
        )
        assert await queue.offer([offer]) == ["queued"]
        return Told(row.sequence, "later")

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k")])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert runs[1] - runs[0] >= 0.25
        assert [row.attempts for row in worker.rows] == [0, 1]


async def test_a_buried_row_is_not_pushed_again_and_its_lane_goes_on(queue, run, dispatching):
    async def handle(row):
        if row.event.id != "1":
            return done(row)
        letter = Letter(
            function="f",
            trigger="t",
            key=row.key,
            event=row.event,
            position=row.position,
            attempts=1,
            revision="abc123",
            reason="rejected",
            detail="no",
            failure=None,
            created=1.0,
        )
        await queue.bury([letter])
        return Told(row.sequence, "dead")

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k"), arrival(2, "k")])
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert numbers(worker.rows) == [1, 2, 2]
        assert queue.counts()["f"]["t"].dead == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", id="without fn-outcome"),
        pytest.param(b"HTTP/1.1 200 OK\r\nfn-outcome: 9\r\ncontent-length: 1\r\n\r\n\x90", id="of other rows"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", id="refused"),
        pytest.param(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", id="busy"),
        pytest.param(b"HTTP/1.1 200 OK\r\nfn-outcome: 1\r\ncontent-length: 5\r\n\r\nhello", id="rubbish"),
        pytest.param(b"not even HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nfn-outcome: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n", id="cut short"),
    ],
)
async def test_an_answer_that_is_not_a_workers_decides_nothing(queue, run, dispatching, answer, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.dispatch._REFUSED", (0.05, 0.1))
    async with PushWorker(run / "w.sock") as worker:
        worker.instead = answer
        await queue.put([arrival(1, "k")])
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: len(worker.rows) >= 2)
        assert queue.counts()["f"]["t"].waiting == 1
        assert dispatch.problem
        worker.instead = None
        await until(lambda: dispatch.delivered == {"t": 1})
        assert not dispatch.problem


class Picky(PushWorker):
    """Cannot read rows that are numbered so."""

    def __init__(self, path, *unreadable):
        super().__init__(path)
        self._unreadable = {str(each) for each in unreadable}

    async def _tell(self, pushed, writer):
        if any(row.event.id in self._unreadable for row in pushed):
            said = b'{"message":"the body cannot be read: it is odd"}'
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
            await writer.drain()
        else:
            await super()._tell(pushed, writer)


async def test_a_row_that_no_worker_can_read_keeps_no_others(queue, run, dispatching):
    async with Picky(run / "w.sock", 3) as worker:
        await queue.put([arrival(number, f"k{number}") for number in range(10)])
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: dispatch.delivered["t"] == 9)
        assert queue.counts()["f"]["t"].waiting == 1


@pytest.mark.parametrize("others", [0, 9])
async def test_a_row_that_is_refused_again_and_again_is_buried_and_its_lane_goes_on(
    queue, run, dispatching, monkeypatch, others
):
    monkeypatch.setattr("fleetfn_gateway.dispatch._REFUSED", (0.002, 0.004))
    async with Picky(run / "w.sock", 3) as worker:
        (odd, *_) = await queue.put(
            [arrival(3, "k"), *(arrival(10 + number, f"k{number}") for number in range(others))]
        )
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: queue.counts()["f"]["t"].dead == 1)
        assert numbers(worker.rows).count(3) == 20
        letter = await queue.get(odd)
        assert (letter.status, letter.reason, letter.event.id) == ("dead", "unreadable", "3")
        assert "the body cannot be read: it is odd" in letter.detail
        assert letter.created == pytest.approx(time.time(), abs=60)
        await queue.put([arrival(4, "k")])
        await nothing_waits(queue)
        await until(lambda: dispatch.delivered["t"] == others + 1)


async def test_a_worker_that_can_read_no_row_has_none_buried(queue, run, dispatching, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.dispatch._REFUSED", (0.002, 0.004))
    async with Picky(run / "w.sock", 1, 2) as worker:
        await queue.put([arrival(1, "a"), arrival(2, "b")])
        dispatching(FakeOwner(worker.path))
        await until(lambda: len(worker.rows) > 60)
        assert (queue.counts()["f"]["t"].waiting, queue.counts()["f"]["t"].dead) == (2, 0)


async def test_what_is_told_of_rows_of_another_push_decides_nothing(queue, run, dispatching):
    gate = asyncio.Event()
    (blocked,) = await queue.put([arrival(1, "a")])
    told = []

    async def handle(row):
        if row.key == "a":
            await gate.wait()
            return done(row)
        told.append(row)
        return Told(blocked, "done") if len(told) == 1 else done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: worker.rows)
        await queue.put([arrival(2, "b")])
        await until(lambda: dispatch.delivered == {"t": 1})
        assert len(told) == 2
        assert (await queue.get(blocked)).status == "waiting"
        gate.set()
        await nothing_waits(queue)


async def test_the_owner_is_asked_with_how_much_waits_and_again_while_it_waits(queue, run, dispatching):
    async with PushWorker(run / "w.sock", never) as worker:
        owner = FakeOwner(worker.path)
        await queue.put([arrival(number) for number in range(100)])
        dispatching(owner, concurrency=1)
        await until(lambda: len(owner.asked) == 2)
        (first, name, waiting), (second, _, again) = owner.asked
        assert (name, waiting, again) == ("f", 100, 36)
        assert 0.9 < second - first < 30
        assert len(worker.rows) == 64


async def test_a_function_that_is_to_handle_more_keys_does_so_at_the_workers_that_it_has(queue, run, dispatching):
    async with PushWorker(run / "w.sock", never) as worker:
        await queue.put([arrival(number) for number in range(200)])
        dispatch = dispatching(FakeOwner(worker.path), concurrency=1)
        await until(lambda: dispatch.in_flight == 64)
        dispatch.change(frozenset({"t"}), 64)
        await until(lambda: dispatch.in_flight == 200)


async def test_an_owner_without_a_worker_is_asked_again_when_it_says(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        owner = FakeOwner(after=0.4)
        await queue.put([arrival(1)])
        dispatch = dispatching(owner)
        await until(lambda: dispatch.problem == "there is no worker now")
        await queue.put([arrival(2)])
        owner.workers = [worker.path]
        await nothing_waits(queue)
        (first, *_), (second, *_) = owner.asked[:2]
        assert second - first >= 0.4


async def test_an_owner_that_is_away_is_asked_again_ever_later(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        owner = FakeOwner()
        await queue.put([arrival(1)])
        dispatching(owner)
        await until(lambda: len(owner.asked) == 5)
        times = [when for when, *_ in owner.asked]
        assert times[4] - times[3] > 3 * 0.05  # the first time it was 0.05 s at most
        owner.workers = [worker.path]
        await nothing_waits(queue)


async def test_nothing_is_woken_while_nothing_waits(queue, run, dispatching):
    owner = FakeOwner(run / "w.sock")
    dispatching(owner, triggers=("other",))
    await queue.put([arrival(1)])
    await asyncio.sleep(0.05)
    assert owner.asked == []


async def test_rows_of_a_paused_trigger_wait_until_it_is_resumed(queue, run, dispatching):
    async with PushWorker(run / "w.sock") as worker:
        dispatch = dispatching(FakeOwner(worker.path), triggers=("t", "u"))
        dispatch.change(frozenset({"u"}), 64)
        await queue.put([arrival(1), arrival(2, trigger="u")])
        await until(lambda: dispatch.delivered == {"u": 1})
        assert queue.counts()["f"]["t"].waiting == 1
        dispatch.change(frozenset({"t", "u"}), 64)
        await nothing_waits(queue)


async def test_a_lane_stays_with_its_worker(queue, run, dispatching):
    async with PushWorker(run / "a.sock") as one, PushWorker(run / "b.sock") as other:
        dispatching(FakeOwner(one.path, other.path))
        for start in range(0, 400, 40):
            await queue.put([arrival(number, f"k{number % 40}") for number in range(start, start + 40)])
            await nothing_waits(queue)
        mine, theirs = ({row.key for row in worker.rows} for worker in (one, other))
        assert len(mine) > 5
        assert len(theirs) > 5
        assert not mine & theirs


async def test_a_full_workers_lanes_go_to_another(queue, run, dispatching):
    async with PushWorker(run / "a.sock", never) as slow, PushWorker(run / "b.sock") as quick:
        await queue.put([arrival(number, f"k{number}") for number in range(1000)])
        dispatch = dispatching(FakeOwner(slow.path, quick.path), concurrency=4)
        await until(lambda: dispatch.delivered["t"] == 1000 - 64)
        assert len(slow.rows) == 64
        assert slow.open <= 2 * 4 + 16 + 1


async def test_a_worker_that_takes_nothing_more_gets_nothing_until_it_is_named_anew(queue, run, dispatching):
    async def leaving(row):
        return Told(row.sequence, "lost")

    async with PushWorker(run / "a.sock", leaving) as old, PushWorker(run / "b.sock") as new:
        owner = FakeOwner(old.path)
        await queue.put([arrival(number, f"k{number}") for number in range(10)])
        dispatching(owner)
        await until(lambda: old.rows)
        owner.workers = [new.path]
        await nothing_waits(queue)
        assert len(new.rows) == 10
        assert len(old.pushes) <= 3


async def test_closing_gives_what_is_in_flight_time_to_end(queue, run, dispatching):
    gate = asyncio.Event()

    async def handle(row):
        await gate.wait()
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k")])
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: worker.rows)
        await queue.put([arrival(2, "k")])
        closing = asyncio.create_task(dispatch.close(grace=LIMIT))
        await asyncio.sleep(0.01)
        gate.set()
        await closing
        assert dispatch.delivered == {"t": 1}
        assert numbers(worker.rows) == [1]
        assert queue.counts()["f"]["t"].waiting == 1


@pytest.mark.parametrize("turns", range(12))
async def test_what_is_in_flight_when_it_closes_is_pushed_again_by_the_next(queue, run, dispatching, turns):
    async with PushWorker(run / "w.sock") as worker:
        await queue.put([arrival(number, f"k{number % 3}") for number in range(30)])
        first = dispatching(FakeOwner(worker.path))
        await until(lambda: worker.rows)
        for _ in range(turns):
            await asyncio.sleep(0)
        await first.close()
        counts = queue.counts()
        assert not counts or counts["f"]["t"].in_flight == 0
        dispatching(FakeOwner(worker.path))
        await nothing_waits(queue)
        assert set(numbers(worker.rows)) == set(range(30))


async def test_what_is_done_is_noted_once_the_disk_allows(queue, run, dispatching, tmp_path):
    async def handle(row):
        (tmp_path / "inbox.db").rename(tmp_path / "away.db")
        return done(row)

    async with PushWorker(run / "w.sock", handle) as worker:
        await queue.put([arrival(1, "k")])
        dispatch = dispatching(FakeOwner(worker.path))
        await until(lambda: "cannot be noted" in dispatch.problem)
        (tmp_path / "away.db").rename(tmp_path / "inbox.db")
        await nothing_waits(queue)
        assert len(worker.rows) == 1
