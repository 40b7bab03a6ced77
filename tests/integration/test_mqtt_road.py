"""Messages published while the function sleeps, while its worker is killed, while the node is down and while the broker
restarts: all are handled, each vehicle's in order, none twice in state.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator

import psutil
import pytest
from bad_input import stands
from kafka_broker import eventually
from machine import Machine
from mqtt_broker import OwnMosquitto
from mqtt_proxy import Proxy
from mqtt_talk import Publisher, Recorder
from test_mqtt_kills import check, write_function

pytestmark = [pytest.mark.mqtt, pytest.mark.node, pytest.mark.slow]

VEHICLES, EACH = 10, 5


class Fleet:
    """Vehicles that publish, and what a dashboard sees of it."""

    def __init__(self, machine: Machine, broker: OwnMosquitto) -> None:
        self.machine = machine
        self.broker = broker
        self.expected: dict[str, list[str]] = defaultdict(list)
        self.out = machine.folder / "out.jsonl"

    def publish(self) -> None:
        """EACH messages of every vehicle; the broker has acknowledged them when it returns."""
        with Publisher(self.broker.address) as pen:
            for _ in range(EACH):
                for number in range(VEHICLES):
                    vehicle = f"V{number:02}"
                    id_ = f"{vehicle}/{len(self.expected[vehicle])}"
                    self.expected[vehicle].append(id_)
                    pen.publish(f"kills/{vehicle}/in", {"vehicle": vehicle, "id": id_})

    def saved(self) -> None:
        """Until the broker's file has it: it acknowledges before, and what it had only acknowledged ends with it."""
        vehicle = f"V{VEHICLES - 1:02}"
        last = json.dumps({"vehicle": vehicle, "id": self.expected[vehicle][-1]}).encode()
        file = self.broker.folder / "data" / "mosquitto.db"
        eventually(lambda: file.exists() and last in file.read_bytes())

    def handled(self) -> None:
        """Until all that was published has gone through."""
        wanted = sum(len(ids) for ids in self.expected.values())
        eventually(lambda: self.machine.json("describe", "chains")["triggers"][0]["waiting"] == 0)
        eventually(lambda: self.counted() == wanted)

    def counted(self) -> int:
        database = self.machine.data / "functions" / "chains" / "state.db"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
            values = connection.execute("SELECT value FROM record").fetchall()
        return sum(json.loads(value)["n"] for (value,) in values)


@pytest.fixture
def fleet(request: pytest.FixtureRequest, machine: Machine, own_mosquitto: OwnMosquitto) -> Iterator[Fleet]:
    """Its parameter: when the function falls asleep."""
    proxy = Proxy(own_mosquitto.address, lambda *_: True, lambda *_: None)
    folder = write_function(machine.folder, proxy, "kills", idle=getattr(request, "param", "3s"))
    machine.fn("up")
    machine.fn("deploy", str(folder))
    stands(machine, "chains", "in")
    yield Fleet(machine, own_mosquitto)
    proxy.close()


def judge(fleet: Fleet, recorder: Recorder) -> None:
    fleet.handled()
    eventually(lambda: recorder.seen() >= {id_ for ids in fleet.expected.values() for id_ in ids})
    assert fleet.machine.json("dlq", "list") == []
    fleet.machine.fn("down")
    verdict = check(fleet.machine, fleet.expected)
    assert verdict["wrong"] == []


def test_while_the_function_sleeps(fleet: Fleet) -> None:
    fleet.machine.asleep()
    with Recorder(fleet.broker.address, "kills/+/out", fleet.out) as recorder:
        fleet.publish()
        judge(fleet, recorder)


@pytest.mark.parametrize("fleet", ["120s"], indirect=True)  # it is there still when it is looked for
def test_while_its_worker_is_killed(fleet: Fleet) -> None:
    with Recorder(fleet.broker.address, "kills/+/out", fleet.out) as recorder:
        for _ in range(3):
            fleet.publish()
            eventually(lambda: kill(fleet.machine.workers()))
        judge(fleet, recorder)


def kill(workers: list[psutil.Process]) -> int:
    """How many: one that was listed may have ended since."""
    killed = 0
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
            killed += 1
    return killed


def test_while_the_node_is_down(fleet: Fleet) -> None:
    with Recorder(fleet.broker.address, "kills/+/out", fleet.out) as recorder:
        fleet.publish()
        fleet.handled()
        fleet.machine.fn("down")
        fleet.publish()
        fleet.machine.fn("up")
        judge(fleet, recorder)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_while_the_broker_restarts(fleet: Fleet, how: str) -> None:
    with Recorder(fleet.broker.address, "kills/+/out", fleet.out) as recorder:
        fleet.machine.fn("pause", "chains")
        fleet.publish()
        fleet.machine.fn("down")
        fleet.publish()
        fleet.saved()
        before = recorder.subscriptions
        getattr(fleet.broker, how)()
        fleet.machine.fn("up")
        eventually(lambda: "mqtt" in problem(fleet))
        fleet.broker.start()
        eventually(lambda: problem(fleet) == "")
        eventually(lambda: recorder.subscriptions > before)  # the broker keeps nothing for it while it is away
        fleet.machine.fn("resume", "chains")
        fleet.publish()
        judge(fleet, recorder)


def problem(fleet: Fleet) -> str:
    return str(fleet.machine.json("describe", "chains")["triggers"][0]["problem"]).lower()
