"""One vehicle that is told to wait an hour delays no other, over Kafka and MQTT; the worker may sleep meanwhile."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input import stands
from confluent_kafka import Producer
from kafka_broker import create_topic, eventually, fresh_name
from machine import Machine
from mqtt_broker import Mosquitto, OwnMosquitto
from mqtt_talk import Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.mqtt, pytest.mark.node, pytest.mark.slow]

VEHICLES, EACH, BLOCKED = 1_000, 4, "V0500"

HANDLER = '''
import time
from pathlib import Path

from fleetfn import Config, Retry, State
from msgspec import Struct, field


class Message(Struct):
    vehicle: str
    n: int
    sent: float


class Settings(Struct):
    gate: str
    """Path: while it exists, one vehicle is told to come again."""
    blocked: str
    again: str


class Seen(Struct):
    order: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


def watch(message: Message, state: State[Seen], settings: Config[Settings]) -> None:
    if message.vehicle == settings.blocked and Path(settings.gate).exists():
        raise Retry(after=settings.again)
    state.value.order.append(message.n)
    state.value.waited.append(time.time() - message.sent)
'''

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: blocked}}
spec:
  handler: handler:watch
  config: {{gate: "{gate}", blocked: {vehicle}, again: {again}}}
  triggers:
  - {{name: in, key: data.vehicle, {source}}}
  retry: {{attempts: 100}}
  scale: {{idle: 2s}}
"""


class Road:
    """Events of 1,000 vehicles in, by one source or the other."""

    def __init__(self, machine: Machine, kafka: str, mosquitto: Mosquitto, over: str) -> None:
        self.machine = machine
        self.over = over
        self.topic = fresh_name("blocked")
        self.kafka = kafka
        self.mosquitto = mosquitto.address
        self.gate = machine.folder / "gate"

    def deploy(self, again: str) -> None:
        if self.over == "kafka":
            create_topic(self.kafka, self.topic, partitions=4)
            source = f"kafka: {{topic: {self.topic}}}"
        else:
            source = f'mqtt: {{topic: "{self.topic}/{{vehicle}}"}}'
        folder = self.machine.folder / "blocked"
        folder.mkdir()
        (folder / "handler.py").write_text(HANDLER)
        text = FUNCTION.format(gate=self.gate, vehicle=BLOCKED, again=again, source=source)
        (folder / "function.yaml").write_text(text)
        (self.machine.folder / "environments.yaml").write_text(
            "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n- name: local\n  connections:\n"
            f'  - {{name: kafka, kafka: {{brokers: ["{self.kafka}"]}}}}\n'
            f'  - {{name: mqtt, mqtt: {{url: "mqtt://{self.mosquitto}"}}}}\n'
        )
        self.machine.fn("up")
        self.machine.fn("deploy", str(folder))
        if self.over == "mqtt":
            stands(self.machine, "blocked", "in")

    def send(self, first: int) -> None:
        """EACH events of every vehicle, numbered from `first` on."""
        messages = [
            (f"V{vehicle:04}", {"vehicle": f"V{vehicle:04}", "n": n})
            for n in range(first, first + EACH)
            for vehicle in range(VEHICLES)
        ]
        if self.over == "kafka":
            producer = Producer({"bootstrap.servers": self.kafka, "enable.idempotence": True})
            for key, data in messages:
                producer.produce(self.topic, key=key, value=json.dumps({**data, "sent": time.time()}))
            assert producer.flush(60) == 0
        else:
            with Publisher(self.mosquitto) as pen:
                for key, data in messages[:-1]:
                    pen.publish(f"{self.topic}/{key}", {**data, "sent": time.time()}, wait=None)
                key, data = messages[-1]
                pen.publish(f"{self.topic}/{key}", {**data, "sent": time.time()})

    def done(self) -> int:
        return int(self.machine.json("describe", "blocked")["counters"]["done"])

    def trigger(self) -> dict[str, Any]:
        return dict(self.machine.json("describe", "blocked")["triggers"][0])

    def states(self) -> dict[str, dict[str, Any]]:
        database = self.machine.data / "functions" / "blocked" / "state.db"
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60) as connection:
            rows = connection.execute("SELECT key, value FROM record").fetchall()
        connection.close()
        return {key: json.loads(value) for key, value in rows if value is not None}


@pytest.fixture
def busy_mosquitto(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Mosquitto]:
    """One that does not write all it holds at each message: it would be what vehicles wait for."""
    broker = OwnMosquitto(tmp_path / "mosquitto", "autosave_on_changes false")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["kafka", "mqtt"])
def road(request: pytest.FixtureRequest, machine: Machine, kafka: str, busy_mosquitto: Mosquitto) -> Road:
    return Road(machine, kafka, busy_mosquitto, request.param)


def test_a_vehicle_that_waits_an_hour_delays_no_other(road: Road) -> None:
    road.deploy(again="1h")
    road.send(0)
    eventually(lambda: road.done() >= VEHICLES * EACH, 120)
    free = max(wait for state in road.states().values() for wait in state["waited"])
    road.gate.touch()
    road.send(EACH)
    eventually(lambda: road.done() >= VEHICLES * EACH + (VEHICLES - 1) * EACH, 120)
    states = road.states()
    assert states.pop(BLOCKED)["order"] == list(range(EACH))
    assert all(state["order"] == list(range(2 * EACH)) for state in states.values())
    beside = max(wait for state in states.values() for wait in state["waited"][EACH:])
    print(f"{road.over}: longest wait of a vehicle {free:.2f} s, beside a blocked one {beside:.2f} s")
    assert beside <= free + 20.0
    eventually(lambda: (road.trigger()["waiting"], road.trigger()["held"]) == (EACH, 1))
    if road.over == "kafka":  # committed offsets move on
        eventually(lambda: road.trigger()["backlog"] == 0)


def test_its_events_come_later_in_order_by_a_worker_that_is_woken_for_them(road: Road) -> None:
    road.gate.touch()
    road.deploy(again="8s")
    road.send(0)
    eventually(lambda: road.done() >= (VEHICLES - 1) * EACH, 120)
    road.gate.unlink()
    road.machine.asleep()
    eventually(lambda: road.states().get(BLOCKED, {}).get("order") == list(range(EACH)))
    road.send(EACH)
    eventually(lambda: road.done() >= VEHICLES * EACH * 2, 120)
    states = road.states()
    assert len(states) == VEHICLES
    assert all(state["order"] == list(range(2 * EACH)) for state in states.values())
    assert road.machine.json("dlq", "list") == []
