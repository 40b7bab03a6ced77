"""A worker and a gateway, each a process: rows of the inbox are run, through kills of either."""

import asyncio
import json

import msgspec
import pytest
from fleetfn.event import Event
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_runtime.gateway_inbox import GatewayInbox
from fleetfn_runtime.sqlite_store import SqliteStore
from fleetfn_triggers.inbox import Arrival
from gateway_process import GatewayProcess
from worker_process import WorkerProcess, function, reply, request

pytestmark = pytest.mark.node

HANDLER = """
import os
import time
from pathlib import Path

import msgspec
from fleetfn import Context, Request, Retry, State


class Reading(msgspec.Struct):
    n: int
    deadly: bool = False
    failing: int = 0
    sleep: float = 0


class Count(msgspec.Struct):
    seen: list[int] = []


def count(reading: Reading, state: State[Count], ctx: Context) -> dict:
    ctx.log.info("attempt %d of %d", ctx.attempt, reading.n)
    if reading.deadly:
        os._exit(9)
    if ctx.attempt <= reading.failing:
        raise ValueError("not now")
    time.sleep(reading.sleep)
    state.value.seen.append(reading.n)
    return {"n": reading.n}


def note(reading: Reading, ctx: Context) -> None:
    with Path("noted").open("a") as file:
        file.write(f"{reading.n}\\n")
    time.sleep(reading.sleep)


def ask(request: Request, ctx: Context) -> dict:
    shown = {"method": request.method, "path": request.path, "query": dict(request.query)}
    shown["body"] = request.body.decode()
    Path("asked").write_text(msgspec.json.encode({**shown, "params": dict(request.path_params)}).decode())
    return shown


def decode(data: bytes) -> dict:
    return {"n": data[0]}
"""


class Bench:
    """One function, its worker, its gateway."""

    def __init__(self, folder, **spec):
        made = function(
            "counter",
            handler="handler:count",
            triggers=[
                {"name": "count", "key": "path.car", "http": {"path": "/count/{car}"}},
                {"name": "note", "handler": "handler:note", "http": {"path": "/note"}},
                {"name": "ask", "handler": "handler:ask", "http": {"path": "/ask/{car}", "methods": ["GET", "POST"]}},
                {
                    "name": "frames",
                    "key": "path.car",
                    "decode": "handler:decode",
                    "http": {"path": "/frames/{car}"},
                },
            ],
            **{"retry": {"attempts": 3, "initial": "10ms"}, **spec},
        )
        self.worker = WorkerProcess(folder, HANDLER, made)
        run = self.worker.run
        self.worker.settings = msgspec.structs.replace(self.worker.settings, deliver=run / "deliver.sock")
        self.source = self.worker.settings.source
        self.gateway = GatewayProcess(folder / "gateway", run / "gateway.sock", worker=run / "deliver.sock")
        self.inbox = GatewayInbox(UnixClient(run / "gateway.sock"))
        self.function = made

    async def open(self):
        await self.gateway.start().serving()
        await self.gateway.tell(self.function, self.source)
        await self.start()
        return self

    async def start(self):
        self.worker.start()
        await self.worker.serving()

    async def ended(self):
        """The worker's exit code."""
        code = await self.worker.ended()
        self.worker.close()
        return code

    async def put(self, key, *readings, trigger="count", **fields):
        return await self.inbox.put([self.arrival(key, one, trigger, **fields) for one in readings])

    def arrival(self, key, reading, trigger, **fields):
        data = reading if isinstance(reading, bytes) else json.dumps(reading).encode()
        kind = None if isinstance(reading, bytes) else "application/json"
        event = Event(id="1", source="/test", type="t", datacontenttype=kind, data=data)
        return Arrival(function="counter", trigger=trigger, key=key, event=event, **fields)

    async def seen(self):
        store = await SqliteStore.open(self.worker.data / "state.db")
        keys = (await store.keys()).keys
        loaded = await store.load(keys)
        await store.close()
        return {key: msgspec.json.decode(one.record.value)["seen"] for key, one in zip(keys, loaded, strict=True)}

    async def waiting(self, trigger="count"):
        return await self.gateway.waiting("counter", trigger)

    def noted(self):
        path = self.source / "noted"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    async def ask(self, raw):
        reader, writer = await self.worker.connect(raw)
        answer = await reply(reader)
        writer.close()
        return answer

    async def close(self):
        await self.inbox.close()
        self.worker.close()
        await self.gateway.close()


async def eventually(condition, *, limit=60):
    async with asyncio.timeout(limit):
        while not await condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


@pytest.fixture
async def make(tmp_path):
    made = []

    async def make(**spec):
        made.append(Bench(tmp_path, **spec))
        return await made[-1].open()

    yield make
    for one in made:
        await one.close()


async def none_waits(bench, trigger="count"):
    async def nothing():
        return await bench.waiting(trigger) == 0

    await eventually(nothing)


async def test_rows_are_run_in_order_of_their_key_and_are_gone_then(make):
    bench = await make()
    await asyncio.gather(*(bench.put(f"car{car}", *({"n": n} for n in range(50))) for car in range(4)))
    await none_waits(bench)
    assert await bench.seen() == {f"car{car}": list(range(50)) for car in range(4)}
    assert await bench.gateway.dead() == []


async def test_a_row_that_kills_its_worker_is_given_up_on_and_the_others_go_on(make):
    bench = await make(retry={"attempts": 2, "initial": "10ms"})
    await bench.put("bad", {"n": 1, "deadly": True}, {"n": 2})
    await bench.put("good", {"n": 3})
    for _ in range(2):
        assert await bench.ended() == 9
        await bench.start()
    await none_waits(bench)
    [letter] = await bench.gateway.dead()
    assert (letter.reason, letter.key, letter.attempts) == ("crashed", "bad", 2)
    assert await bench.seen() == {"bad": [2], "good": [3]}


async def test_kills_of_the_worker_lose_nothing_and_count_nothing_twice(make):
    bench = await make()
    rows = [{"n": n} for n in range(200)]
    for part in range(4):
        await asyncio.gather(*(bench.put(f"car{car}", *rows[part * 50 : (part + 1) * 50]) for car in range(5)))

        async def some(part=part):
            return len((await bench.seen()).get("car0", [])) > part * 50

        await eventually(some)
        bench.worker.kill()
        assert await bench.ended() == -9
        await bench.start()
    await none_waits(bench)
    assert await bench.seen() == {f"car{car}": list(range(200)) for car in range(5)}


async def test_a_row_under_way_while_the_gateway_is_killed_runs_once(make):
    bench = await make()
    await bench.put(None, {"n": 1, "sleep": 3.0}, trigger="note")

    async def begun():
        return bench.noted() == [1]

    await eventually(begun)
    await bench.gateway.kill()
    await bench.gateway.start().serving()
    await none_waits(bench, "note")
    assert bench.noted() == [1]


async def test_what_was_not_begun_when_a_worker_drains_is_run_by_the_next(make):
    bench = await make(scale={"concurrency": 1})
    # time enough to drain before all have begun, however long the test is held up
    await bench.put(None, {"n": 0, "sleep": 3.0}, *({"n": n, "sleep": 0.3} for n in range(1, 20)), trigger="note")

    async def begun():
        return bench.noted()[:1] == [0]

    await eventually(begun)
    assert await bench.worker.drain() == 0
    bench.worker.close()
    assert 0 < len(bench.noted()) < 20
    await bench.start()
    await none_waits(bench, "note")
    assert sorted(bench.noted()) == list(range(20))


async def test_what_waits_behind_a_row_that_is_tried_again_much_later_is_run_after_it(make):
    bench = await make(retry={"attempts": 3, "initial": "3s"})
    await bench.put("car", {"n": 0}, {"n": 1, "failing": 1}, *({"n": n} for n in range(2, 40)))
    await none_waits(bench)
    assert await bench.seen() == {"car": list(range(40))}


async def test_data_as_it_came_is_decoded_by_the_worker(make):
    bench = await make()
    await bench.put("car", b"\x07", b"", b"\x09", trigger="frames", raw=True)
    await none_waits(bench, "frames")
    assert await bench.seen() == {"car": [7, 9]}
    [letter] = await bench.gateway.dead()
    assert (letter.reason, letter.event.data, letter.raw) == ("unreadable", b"", True)


ASYNC = {"prefer": "respond-async"}


async def test_a_request_that_can_wait_is_retried_and_given_up_on_as_a_dead_letter(make):
    bench = await make()
    answers = [
        await bench.ask(request("/count/car", json.dumps({"n": n, "failing": failing}).encode(), **ASYNC))
        for n, failing in ((1, 2), (2, 9), (3, 0))
    ]
    assert [(status, json.loads(body)["sequence"]) for status, _, body in answers] == [(202, 1), (202, 2), (202, 3)]
    await none_waits(bench)
    assert await bench.seen() == {"car": [1, 3]}
    [letter] = await bench.gateway.dead()
    assert (letter.reason, letter.attempts, letter.sequence) == ("attempts", 3, 2)
    assert "not now" in letter.detail


async def test_the_same_id_again_runs_once(make):
    bench = await make()
    for _ in range(2):
        status, _, body = await bench.ask(request("/note", b'{"n": 1}', idempotency_key="a", **ASYNC))
        assert (status, json.loads(body)["sequence"]) == (202, 1)
    await none_waits(bench, "note")
    status, _, body = await bench.ask(request("/note", b'{"n": 1}', idempotency_key="a", **ASYNC))
    assert (status, json.loads(body)["sequence"]) == (202, 1)
    assert bench.noted() == [1]


async def test_a_handler_that_takes_the_request_gets_it(make):
    bench = await make()
    status, _, _ = await bench.ask(request("/ask/LSV%201?a=1&b=", b"hello", **ASYNC))
    assert status == 202
    await none_waits(bench, "ask")
    assert json.loads((bench.source / "asked").read_text()) == {
        "method": "POST",
        "path": "/ask/LSV 1",
        "query": {"a": ["1"], "b": [""]},
        "body": "hello",
        "params": {"car": "LSV 1"},
    }


async def test_without_its_gateway_a_caller_who_waits_is_served_and_one_who_does_not_is_told(make):
    bench = await make()
    await bench.gateway.kill()
    status, headers, _ = await bench.ask(request("/count/car", b'{"n": 1}', **ASYNC))
    assert (status, "retry-after" in headers) == (503, True)
    assert (await bench.ask(request("/count/car", b'{"n": 1}')))[0] == 200
    await bench.gateway.start().serving()
    assert (await bench.ask(request("/count/car", b'{"n": 2}', **ASYNC)))[0] == 202
    await none_waits(bench)
    assert await bench.seen() == {"car": [1, 2]}
