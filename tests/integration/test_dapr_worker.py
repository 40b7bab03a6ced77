"""Workers whose records are in a component of Dapr, and whose outputs are Dapr's: the road as everywhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dapr_sidecars import Sidecars, published
from fleetfn.cloudevents import json as json_codec
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn.store import Record, Write
from fleetfn_runtime.channel import Failed
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.dapr_store import DaprStore
from fleetfn_spec.environments import DaprState, StatePlace
from fleetfn_triggers.dapr_connection import DaprConnection
from kafka_broker import eventually, fresh_name
from worker_process import WorkerProcess, function, reply, request

pytestmark = [pytest.mark.dapr, pytest.mark.node]

REDIS = StatePlace(dapr=DaprState(component="redis"))

CODE = """
import msgspec
from fleetfn import Context, Snapshot, State

class Trips(msgspec.Struct):
    count: int = 0

def add(body: dict, trips: State[Trips], ctx: Context) -> int:
    trips.value.count += 1
    ctx.emit("alerts", {"car": body["car"], "count": trips.value.count})
    ctx.emit("files", {"count": trips.value.count})
    return trips.value.count

def show(trips: Snapshot[Trips]) -> int:
    return trips.value.count

async def all(ctx: Context) -> dict:
    return {key: trips.count async for key, trips in ctx.states(Trips)}
"""

TRIGGERS = [
    {"name": "add", "key": "data.car", "http": {"path": "/add"}},
    {"name": "show", "handler": "handler:show", "key": "path.car", "http": {"path": "/show/{car}", "methods": ["GET"]}},
    {"name": "all", "handler": "handler:all", "http": {"path": "/all", "methods": ["GET"]}},
]


def made(topic: str):
    outputs = [
        {"name": "alerts", "dapr": {"pubsub": "pubsub", "topic": topic}},
        {"name": "files", "dapr": {"binding": "files", "metadata": {"fileName": topic + "-{key}.json"}}},
    ]
    return function(triggers=TRIGGERS, outputs=outputs)


@pytest.fixture
def topic() -> str:
    return fresh_name()


@pytest.fixture
async def workers(
    sidecars: Sidecars, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[WorkerProcess]]:
    """Two of them: one finds its sidecar by Dapr's variable, the other one's outputs by a connection."""
    sidecars.clear("redis")
    monkeypatch.setenv("DAPR_HTTP_PORT", sidecars.first.rpartition(":")[2])
    started = [
        WorkerProcess(tmp_path / "a", CODE, made(topic), state=REDIS).start(),
        WorkerProcess(
            tmp_path / "b", CODE, made(topic), state=REDIS, dapr={"dapr": DaprConnection(url=sidecars.second)}
        ).start(),
    ]
    yield started
    for worker in started:
        worker.close()


async def ask(worker: WorkerProcess, path: str, body: bytes = b"", *, method: str = "GET") -> tuple[int, bytes]:
    reader, writer = await worker.connect(request(path, body, method=method))
    with contextlib.closing(writer):
        status, _, said = await reply(reader)
    return status, said


async def test_two_workers_keep_one_state_and_publish_each_event(
    workers: list[WorkerProcess], sidecars: Sidecars, topic: str
) -> None:
    for worker in workers:
        await worker.serving()

    async def drive(worker: WorkerProcess) -> list[tuple[int, bytes]]:
        return [await ask(worker, "/add", b'{"car": "LSV%d"}' % (n % 3), method="POST") for n in range(15)]

    answers = [each for part in await asyncio.gather(*map(drive, workers)) for each in part]
    assert {status for status, _ in answers} == {200}
    assert sorted(int(said) for _, said in answers) == sorted([*range(1, 11)] * 3)
    assert await ask(workers[0], "/all") == await ask(workers[1], "/all") == (200, b'{"LSV0":10,"LSV1":10,"LSV2":10}')
    assert await ask(workers[1], "/show/LSV1") == (200, b"10")
    events = [json_codec.decode(each) for each in published(sidecars, topic)]
    assert len({event.id for event in events}) == 30  # whoever loads what another has just saved publishes it, too
    assert {event.source for event in events} == {events[0].source}
    assert (sidecars.files / f"{topic}-LSV2.json").exists()
    for worker in workers:
        assert await worker.drain() == 0


async def test_what_a_killed_worker_owed_is_sent_by_the_next(
    sidecars: Sidecars, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecars.clear("redis")
    monkeypatch.setenv("DAPR_HTTP_PORT", sidecars.first.rpartition(":")[2])
    sidecar = Sidecar(sidecars.first)
    killed = await DaprStore.open(sidecar, "redis", "default/adder")
    owed = Emit("alerts", "LSV1", Event(id="owed", source="s", type="t", data=b"{}"))
    await killed.save([Write("LSV1", Record(b'{"count":7}', unsent=(owed,)), None)])
    worker = WorkerProcess(tmp_path / "a", CODE, made(topic), state=REDIS).start()
    await worker.serving()
    await asyncio.to_thread(eventually, lambda: published(sidecars, topic))
    assert [json_codec.decode(each).id for each in published(sidecars, topic)] == ["owed"]
    assert await ask(worker, "/show/LSV1") == (200, b"7")
    assert await worker.drain() == 0
    assert (await killed.load(["LSV1"]))[0].record.unsent == ()
    await sidecar.close()
    worker.close()


async def test_a_component_that_is_missing_fails_the_ready_check(
    sidecars: Sidecars, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPR_HTTP_PORT", sidecars.first.rpartition(":")[2])
    state = StatePlace(dapr=DaprState(component="nowhere"))
    worker = WorkerProcess(tmp_path / "a", CODE, made(topic), state=state).start()
    message = await worker.hear(Failed)
    worker.close()
    assert message is not None
    assert "has no state store 'nowhere'" in message[0].message


async def test_so_does_an_output_to_a_component_that_is_missing(
    sidecars: Sidecars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPR_HTTP_PORT", sidecars.first.rpartition(":")[2])
    spec = function(outputs=[{"name": "alerts", "dapr": {"pubsub": "nowhere", "topic": "t"}}])
    code = "def add(body: dict) -> None: ..."
    worker = WorkerProcess(tmp_path / "a", code, spec).start()
    message = await worker.hear(Failed)
    worker.close()
    assert message is not None
    assert 'has no component "nowhere" (it has files, postgresql, pubsub, redis, sqlite)' in message[0].message
