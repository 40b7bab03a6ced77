"""The gateway's smaller parts: who holds the data folder, redrives with a rate, what a worker gets, who is asked."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fake_node import FakeNode, Refused
from fleetfn.errors import StoreError, UsageError
from fleetfn.event import Event
from fleetfn.position import At
from fleetfn_gateway import workers
from fleetfn_gateway.__main__ import _parser
from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.gateway import concurrency_of
from fleetfn_gateway.keeping import Keeping, TakenError
from fleetfn_gateway.owner import Nobody, NodeOwner, NoWorkerError, OneWorker
from fleetfn_gateway.redriving import Redriving
from fleetfn_gateway.workers import Worker
from fleetfn_spec.function import BatchPolicy, Scale, Spec, Trigger
from fleetfn_spec.gateway import Awake, Redrive
from fleetfn_triggers.inbox import Row, Which
from fleetfn_triggers.mqtt import Mqtt
from gateway_doubles import until


def row(sequence, key=None, size=1):
    event = Event(id=str(sequence), source="test", type="test", data=b"x" * size)
    fields = {"function": "f", "trigger": "t", "attempts": 0, "due": None, "status": "waiting", "created": 0.0}
    return Row(sequence=sequence, key=key, event=event, position=At("inbox:x", 0, sequence), **fields)


class TestKeeping:
    def test_a_second_gateway_is_refused_and_told_who_holds_the_folder(self, tmp_path):
        with Keeping(tmp_path / "data"), pytest.raises(TakenError, match=rf"already \(pid {os.getpid()}\)"):
            Keeping(tmp_path / "data", wait=0)

    def test_a_gateway_that_is_just_ending_is_waited_for(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        held, let_go = context.Event(), context.Event()
        other = context.Process(target=_hold, args=(tmp_path, held, let_go))
        other.start()
        assert held.wait(60)
        with pytest.raises(TakenError):
            Keeping(tmp_path, wait=0)
        let_go.set()
        with Keeping(tmp_path, wait=60):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
        other.join()


def _hold(data, held, let_go):
    with Keeping(data):
        held.set()
        let_go.wait(60)


class FakeLetters:
    def __init__(self, count):
        self.left = count
        self.steps = []
        self.fails = 0
        self.which = None

    async def count(self, which):
        self.which = which
        return self.left

    async def redrive(self, which, *, limit=None):
        self.which = which
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk is full")
        count = self.left if limit is None else min(limit, self.left)
        self.left -= count
        self.steps.append((time.monotonic(), count))
        return count


async def anybody(which):
    """Somebody would run any of them."""


class TestRedriving:
    async def test_one_with_a_rate_ends_where_nobody_would_run_the_rest_any_more(self):
        letters, asked = FakeLetters(60), []

        async def somebody(which):
            asked.append(which)
            if len(asked) > 3:
                raise UsageError("the function is deleted")

        redriving = Redriving(letters, check=somebody)
        assert await redriving.redrive(Redrive(which=Which(), rate=100)) == 60
        await until(lambda: len(asked) == 4)
        await until(lambda: not redriving._tasks)
        assert letters.left > 0

    async def test_all_at_once_without_a_rate(self):
        letters = FakeLetters(5)
        assert await Redriving(letters, check=anybody).redrive(Redrive(which=Which())) == 5
        assert [count for _, count in letters.steps] == [5]

    async def test_a_dry_run_only_counts(self):
        letters = FakeLetters(5)
        assert await Redriving(letters, check=anybody).redrive(Redrive(which=Which(), rate=1, dry_run=True)) == 5
        assert letters.steps == []

    async def test_so_many_a_second_with_a_rate(self):
        letters = FakeLetters(60)
        redriving = Redriving(letters, check=anybody)
        assert await redriving.redrive(Redrive(which=Which(), rate=200)) == 60
        assert letters.left > 0  # it goes on by itself
        await until(lambda: letters.left == 0)
        assert [count for _, count in letters.steps] == [20, 20, 20]
        assert letters.steps[-1][0] - letters.steps[0][0] >= 0.19

    async def test_letters_that_die_again_meanwhile_are_left(self):
        letters = FakeLetters(0)
        redriving = Redriving(letters, check=anybody, clock=lambda: 1000.0)
        await redriving.redrive(Redrive(which=Which(key="k"), rate=5))
        assert letters.which == Which(key="k", before=1000.0)
        await redriving.redrive(Redrive(which=Which(before=10.0), rate=5))
        assert letters.which == Which(before=10.0)

    async def test_a_full_disk_is_waited_out(self, monkeypatch):
        monkeypatch.setattr("fleetfn_gateway.redriving._RETRY", 0.01)
        letters = FakeLetters(3)
        letters.fails = 2
        await Redriving(letters, check=anybody).redrive(Redrive(which=Which(), rate=1000))
        await until(lambda: letters.left == 0)

    async def test_closing_ends_it(self):
        letters = FakeLetters(1000)
        redriving = Redriving(letters, check=anybody)
        await redriving.redrive(Redrive(which=Which(), rate=10))
        await until(lambda: letters.steps)
        await redriving.close()
        assert letters.left > 0
        assert not redriving._tasks

    @pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
    async def test_a_rate_that_is_none_is_refused(self, rate):
        with pytest.raises(UsageError, match="no number of events a second"):
            await Redriving(FakeLetters(1), check=anybody).redrive(Redrive(which=Which(), rate=rate))


class TestWorkers:
    def test_a_worker_gets_several_rows_per_key_that_it_handles(self):
        assert [Worker("w", concurrency, now=0).room(0) for concurrency in (1, 64, 10_000)] == [64, 256, 4096]

    def test_two_batches_fit_however_large_they_are(self):
        def room(*sizes, concurrency=8):
            triggers = [
                Trigger(name=f"t{number}", mqtt=Mqtt(topic="t"), batch=None if size is None else BatchPolicy(size=size))
                for number, size in enumerate(sizes)
            ]
            spec = Spec(handler="handler:watch", triggers=triggers, scale=Scale(concurrency=concurrency))
            return Worker("w", concurrency_of(spec), now=0).room(0)

        assert [room(None), room(100), room(None, 1000), room(10, concurrency=100)] == [64, 200, 2000, 400]

    def test_a_quick_worker_gets_what_it_lately_handled_in_a_tenth_of_a_second(self):
        worker = Worker("w", 64, now=0)
        rows = [row(number) for number in range(2000)]
        worker.begin(rows)
        for each in rows:
            worker.ended(each)
        worker.seen = 100
        assert worker.room(workers.AHEAD / 2) == 256
        assert worker.room(workers.AHEAD * 2) == 1000
        assert worker.room(workers.AHEAD * 3) == 256  # it has handled none since

    def test_however_quick_it_is_what_a_worker_gets_is_bounded(self):
        worker = Worker("w", 64, now=0)
        rows = [row(number) for number in range(workers.MOST + 1)]
        worker.begin(rows)
        for each in rows:
            worker.ended(each)
        worker.seen = 100
        assert worker.room(workers.AHEAD) == workers.MOST

    def test_rows_behind_others_of_their_lane_take_no_room_from_first_rows(self):
        worker = Worker("w", 64, now=0)
        lane = [row(number, "a") for number in range(32)]
        worker.begin([*lane, row(40), row(41)])
        assert (worker.room(0), worker.room_behind, worker.in_flight) == (253, 225, 34)
        for each in lane[:2]:
            worker.ended(each)
        assert (worker.room(0), worker.room_behind, worker.in_flight) == (254, 226, 32)

    def test_bytes_in_flight_are_bounded(self):
        worker = Worker("w", 64, now=0)
        worker.begin([row(1, size=workers.BYTES - 1000)])
        assert worker.room(0) > 0
        worker.begin([row(2, size=1000)])
        assert worker.room(0) == 0
        worker.ended(row(2, size=1000))
        assert worker.room(0) > 0

    def test_a_worker_neither_named_nor_heard_for_long_gets_nothing(self):
        worker = Worker("w", 64, now=0)
        assert worker.room(workers.STALE + 1) == 0
        worker.heard(2.0)
        assert worker.room(workers.STALE + 1) > 0
        worker.begin([row(1)])
        assert worker.room(100) > 0  # a push is open: it is there

    def test_a_worker_that_failed_rests_ever_longer_even_if_it_is_named(self):
        worker = Worker("w", 64, now=0)
        rests = []
        for _ in range(5):
            rests.append(worker.failed(10))
            worker.named, worker.seen = True, 10
            assert worker.room(10) == 0
            assert worker.room(10 + rests[-1]) > 0
        assert rests[-1] > rests[0]

    def test_batches_are_bounded_by_rows_and_bytes(self):
        small = workers.batches([row(number) for number in range(300)])
        assert [len(batch) for batch in small] == [128, 128, 44]
        large = workers.batches([row(number, size=workers.BATCH_BYTES // 2) for number in range(4)])
        assert [len(batch) for batch in large] == [1, 1, 1, 1]
        assert workers.batches([]) == []

    def test_rows_of_a_lane_go_to_one_worker_in_one_push(self):
        lanes = [[row(32 * lane + number, f"k{lane}") for number in range(32)] for lane in range(40)]
        two = [Worker(f"w{number}", 64, now=0) for number in range(2)]
        shares = workers.spread([each for lane in lanes for each in lane], dict.fromkeys(two, 30))
        pushes = [push for share in shares.values() for push in workers.batches(share)]
        assert all(sum(lane[0] in push for push in pushes) == 1 for lane in lanes)
        assert all(lane[n] in push for lane in lanes for push in pushes if lane[0] in push for n in range(32))
        assert max(map(len, pushes)) < workers.BATCH + 32

    def test_workers_that_come_move_few_lanes(self):
        three = [Worker(f"w{number}", 64, now=0) for number in range(3)]
        rows = [row(number, f"k{number}") for number in range(300)]
        before = _places(workers.spread(rows, dict.fromkeys(three[:2], 1000)))
        after = _places(workers.spread(rows, dict.fromkeys(three, 1000)))
        moved = {key for key in before if before[key] != after[key]}
        assert {after[key] for key in moved} == {three[2]}
        assert 80 < len(moved) < 120

    @pytest.mark.parametrize("keyed", [True, False])
    def test_lanes_are_spread_evenly_over_sockets_of_like_names(self, keyed):
        four = [Worker(f"/run/f/deliver-{pid}.sock", 64, now=0) for pid in range(4711, 4715)]
        rows = [row(number, f"LSV{number:014}" if keyed else None) for number in range(4000)]
        shares = workers.spread(rows, dict.fromkeys(four, 4000))
        assert all(900 < len(share) < 1100 for share in shares.values())

    def test_a_gateway_that_starts_again_finds_lanes_where_they_were(self):
        two = [Worker(f"w{number}", 64, now=0) for number in range(2)]
        places = _places(workers.spread([row(number, f"k{number}") for number in range(12)], dict.fromkeys(two, 12)))
        assert "".join(places[f"k{number}"].socket[1] for number in range(12)) == "101110000011"


def _places(shares):
    return {row.key: worker for worker, rows in shares.items() for row in rows}


class TestOwner:
    @pytest.fixture
    def node(self):
        with tempfile.TemporaryDirectory(prefix="fn-") as folder:
            node = FakeNode(Path(folder) / "control.sock")
            yield node
            node.close()

    async def test_a_node_is_asked_for_workers_with_how_much_waits(self, node):
        node.answers[("POST", "/v1/functions/f/wake")] = Awake(workers=["/run/deliver-7.sock"])
        owner = NodeOwner(node.socket)
        assert await owner.wake("f", 7) == ["/run/deliver-7.sock"]
        assert node.asked[0].json() == {"waiting": 7}
        await owner.close()

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (Refused(503, "f is backing off"), "f is backing off"),
            (Refused(404, "there is no function f"), "there is no function f"),
            (Awake(workers=[]), "named no worker"),
            ({"workers": "rubbish"}, "cannot be read"),
        ],
        ids=["busy", "unknown", "nobody", "rubbish"],
    )
    async def test_any_other_answer_is_no_worker(self, node, answer, says):
        node.answers[("POST", "/v1/functions/f/wake")] = answer
        owner = NodeOwner(node.socket)
        with pytest.raises(NoWorkerError, match=says):
            await owner.wake("f", 1)
        await owner.close()

    async def test_a_node_that_is_away_is_no_worker(self, tmp_path):
        with pytest.raises(NoWorkerError, match="owner is away"):
            await NodeOwner(tmp_path / "gone.sock").wake("f", 1)

    @pytest.mark.parametrize(("said", "after"), [(b"7", 7.0), (b"999999", 60.0), (b"soon", None), (b"-1", None)])
    async def test_retry_after_is_told(self, said, after):
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 x\r\nretry-after: " + said + b"\r\ncontent-length: 2\r\n\r\n{}")
            writer.close()

        with tempfile.TemporaryDirectory(prefix="fn-") as folder:
            server = await asyncio.start_unix_server(answer, f"{folder}/o.sock")
            owner = NodeOwner(Path(folder) / "o.sock")
            with pytest.raises(NoWorkerError) as caught:
                await owner.wake("f", 1)
            assert caught.value.after == after
            await owner.close()
            server.close()

    async def test_a_lone_worker_needs_no_waking(self, tmp_path):
        assert await OneWorker(tmp_path / "w.sock").wake("f", 1) == (str(tmp_path / "w.sock"),)

    async def test_without_an_owner_nothing_is_delivered(self):
        with pytest.raises(NoWorkerError, match="without an owner"):
            await Nobody().wake("f", 1)


def test_waits_double_up_to_the_longest_and_start_anew():
    backoff = Backoff(1, 10, jitter=lambda: 1.0)
    assert [backoff.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.failed() == 1
    assert Backoff(1, 10, jitter=lambda: 0.0).failed() == 0.5


@pytest.mark.parametrize(
    ("given", "quota", "retention"),
    [
        ([], 4 * 2**30, 30 * 86400.0),
        (["--quota", "500MiB", "--dead-letters", "1h30m"], 500 * 2**20, 5400.0),
        (["--quota", "1048576", "--dead-letters", "60.5"], 2**20, 60.5),
    ],
    ids=["defaults", "with units", "bare numbers"],
)
def test_settings_read(given, quota, retention):
    asked = _parser().parse_args(["--data", "d", "--socket", "s", *given])
    assert (asked.quota, asked.dead_letters) == (quota, retention)


@pytest.mark.parametrize("given", [["--quota", "much"], ["--dead-letters", "soon"], ["--owner", "o", "--worker", "w"]])
def test_settings_that_do_not_read_are_refused(given, capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(["--data", "d", "--socket", "s", *given])
    assert given[0].lstrip("-") in capsys.readouterr().err


def test_the_process_imports_no_more_than_it_needs_to_start():
    script = "import sys, fleetfn_gateway.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"fastapi", "starlette", "pydantic", "confluent_kafka", "paho", "prometheus_client", "cronsim", "httpx"}
    assert heavy.isdisjoint(loaded)
