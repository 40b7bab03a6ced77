"""Batches on a node: of one vehicle with state from Kafka, of any vehicles from MQTT."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bad_input import stands
from kafka_broker import create_topic, eventually, fresh_name, produce, read_all
from machine import Machine
from mqtt_broker import Mosquitto
from mqtt_talk import Publisher

pytestmark = pytest.mark.node

ENVIRONMENTS = """
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: local
  target: {{node: {{}}}}
  connections:
  - {{name: {kind}, {kind}: {{{address}}}}}
"""

BY_KEY = """
import msgspec
from fleetfn import Batch, Context, Reject, Retry, State


class Reading(msgspec.Struct):
    car: str
    n: int


class Trip(msgspec.Struct):
    seen: list[int] = []
    batches: list[int] = []


def watch(readings: Batch[Reading], trip: State[Trip], ctx: Context) -> list:
    trip.value.batches.append(len(readings))
    found = []
    for index, reading in enumerate(readings):
        if reading.n == 13:
            raise ValueError("thirteen")
        trip.value.seen.append(reading.n)
        if reading.n == 7 and ctx.attempt == 1:
            found.append(Retry(after=0.1))
        elif reading.n == 17:
            found.append(Reject("seventeen"))
        else:
            ctx.emit("audit", reading.n, item=index)
            found.append(reading if reading.n % 10 == 0 else None)
    return found
"""

BY_KEY_SPEC = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: trips}}
spec:
  handler: handler:watch
  triggers:
  - {{name: telemetry, key: data.car, batch: {{by: key, size: 50, wait: 50ms}}, kafka: {{topic: {topic}}}}}
  outputs:
  - {{name: alerts, kafka: {{topic: {alerts}}}}}
  - {{name: audit, kafka: {{topic: {audit}}}}}
  returns: alerts
  retry: {{attempts: 2, initial: 10ms}}
"""

ANY = """
from pathlib import Path
from fleetfn import Batch, Event, State


def watch(readings: Batch[dict], trip: State[list]) -> None:
    trip.value.append([reading["n"] for reading in readings])


def store(readings: Batch[Event[dict]]) -> None:
    with Path(__file__).with_name("stored").open("a") as file:
        file.write(" ".join(event.subject.split("/")[2] for event in readings) + "\\n")
"""

ANY_SPEC = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: rows}}
spec:
  handler: handler:store
  triggers:
  - {{name: live, key: topic.car, batch: {{size: {size}, wait: 10s}}, mqtt: {{topic: "{root}/live/{{car}}"}}}}
  - name: trips
    handler: handler:watch
    key: topic.car
    batch: {{by: key, size: 30, wait: 10m}}
    mqtt: {{topic: "{root}/trips/{{car}}"}}
"""


def write(machine: Machine, kind: str, address: str, code: str, spec: str) -> Path:
    (machine.folder / "environments.yaml").write_text(ENVIRONMENTS.format(kind=kind, address=address))
    folder = machine.folder / "function"
    folder.mkdir()
    (folder / "handler.py").write_text(code)
    (folder / "function.yaml").write_text(spec)
    return folder


def once_each(kafka: str, topic: str, count: int) -> list[Any]:
    """The first of each `count` emits. A broker that answers late is given one again, with the same id."""
    firsts: dict[bytes, Any] = {}

    def are_there() -> bool:
        for message in read_all(kafka, topic, 10 * count, 3):
            firsts.setdefault(dict(message.headers())["ce_id"], message)
        return len(firsts) >= count

    eventually(are_there)
    assert len(firsts) == count
    return list(firsts.values())


@pytest.mark.kafka
def test_a_vehicles_events_share_a_run_and_a_save_and_end_each_for_itself(machine: Machine, kafka: str) -> None:
    topic, alerts, audit = (fresh_name(what) for what in ("telemetry", "alerts", "audit"))
    for each in (topic, alerts, audit):
        create_topic(kafka, each)
    spec = BY_KEY_SPEC.format(topic=topic, alerts=alerts, audit=audit)
    folder = write(machine, "kafka", f'brokers: ["{kafka}"]', BY_KEY, spec)
    cars, each = 5, 60
    machine.fn("deploy", str(folder))
    produce(
        kafka,
        topic,
        [
            (f"car{n % cars}", json.dumps({"car": f"car{n % cars}", "n": n // cars}).encode())
            for n in range(cars * each)
        ],
    )
    expected = [n for n in range(each) if n not in {13, 17}]
    audited = [(m.key().decode(), json.loads(m.value())) for m in once_each(kafka, audit, cars * len(expected))]
    assert sorted(audited) == sorted((f"car{c}", n) for c in range(cars) for n in expected)
    assert all([n for key, n in audited if key == f"car{c}"] == expected for c in range(cars)), "out of order"
    told = [json.loads(m.value())["n"] for m in once_each(kafka, alerts, cars * 6)]
    assert Counter(told) == dict.fromkeys(range(0, each, 10), cars)

    trips = {f"car{c}": machine.json("state", "get", "trips", f"car{c}")["value"] for c in range(cars)}
    assert {car: trip["seen"] for car, trip in trips.items()} == {f"car{c}": expected for c in range(cars)}
    assert max(max(trip["batches"]) for trip in trips.values()) > 1, "nothing came together"
    ends = (("attempts", 2), ("rejected", 1))
    expected_letters = Counter((f"car{c}", reason, attempts) for c in range(cars) for reason, attempts in ends)
    letters: Counter[tuple[str, str, int]] = Counter()

    def all_told() -> bool:
        told = machine.json("dlq", "list")
        letters.clear()
        letters.update((one["key"], one["reason"], one["attempts"]) for one in told)
        return len(told) >= expected_letters.total()

    eventually(all_told)
    assert letters == expected_letters


@pytest.mark.mqtt
def test_messages_share_a_run_of_many_vehicles_or_of_one(machine: Machine, mosquitto: Mosquitto) -> None:
    """However many a batch has, the gateway hands over enough at a time; of one vehicle, nothing else is waited for."""
    root, cars, size, trip = fresh_name("batches"), 1400, 700, 90
    spec = ANY_SPEC.format(root=root, size=size)
    folder = write(machine, "mqtt", f'url: "mqtt://{mosquitto.address}"', ANY, spec)
    machine.fn("deploy", str(folder))
    machine.fn("pause", "rows")
    for each in ("live", "trips"):
        stands(machine, "rows", each)
    with Publisher(mosquitto.address) as pen:
        for n in range(trip):
            pen.publish(f"{root}/trips/car1", {"n": n}, wait=None)
        for n in range(cars):
            pen.publish(f"{root}/live/car{n}", {"n": n}, wait=None if n < cars - 1 else 60)

    def waiting() -> int:
        return sum(int(each["waiting"]) for each in machine.json("describe", "rows")["triggers"])

    def stored() -> list[list[str]]:
        return [line.split() for path in machine.data.rglob("stored") for line in path.read_text().splitlines()]

    eventually(lambda: waiting() == cars + trip)
    machine.fn("resume", "rows")
    eventually(lambda: sum(map(len, stored())) >= cars)
    assert sorted(car for batch in stored() for car in batch) == sorted(f"car{n}" for n in range(cars))
    assert max(map(len, stored())) == size, "no batch was full"
    eventually(lambda: waiting() == 0)
    batches = machine.json("state", "get", "rows", "car1")["value"]
    assert [n for batch in batches for n in batch] == list(range(trip))
    assert max(map(len, batches)) == 30, "no batch was full"
    assert machine.json("dlq", "list") == []
