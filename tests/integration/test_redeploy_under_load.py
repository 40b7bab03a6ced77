"""A new revision takes over while callers keep their connections and records keep coming: nobody notices."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka_broker import create_topic, eventually, fresh_name
from machine import Machine, use_broker

pytestmark = [pytest.mark.kafka, pytest.mark.node, pytest.mark.slow]

CLIENTS, REQUESTS, RECORDS = 10, 1_000, 3_000

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: switch}}
spec:
  handler: handler:count
  triggers:
  - {{name: in, key: data.vehicle, kafka: {{topic: {topic}}}}}
  - {{name: ask, handler: handler:ask, returns: null, http: {{path: /switch, methods: [POST]}}}}
  outputs:
  - {{name: out, kafka: {{topic: {out}}}}}
  returns: out
"""

HANDLER = """
import asyncio
from typing import Any

from fleetfn import State
from msgspec import Struct

REVISION = {revision}


class Count(Struct):
    n: int = 0


def count(record: dict[str, Any], state: State[Count]) -> dict[str, Any]:
    state.value.n += 1
    return {{"id": record["id"], "n": state.value.n, "revision": REVISION}}


async def ask(number: int) -> dict[str, int]:
    await asyncio.sleep(0.6 if number % 10 == 0 else 0.08)
    return {{"number": number, "revision": REVISION}}
"""


def test_no_request_fails_and_no_record_is_lost_while_revisions_change(machine: Machine, kafka: str) -> None:
    topic, out = fresh_name("switch-in"), fresh_name("switch-out")
    for name in (topic, out):
        create_topic(kafka, name)
    folder = write(machine.folder, topic, out, kafka)
    machine.fn("up")
    deploy(machine, folder, revision=1)

    load = Load(machine.port)
    stream = threading.Thread(target=produce, args=(kafka, topic), daemon=True)
    stream.start()
    load.start()
    for revision in (2, 3):
        eventually(lambda: load.answered() > REQUESTS * (revision - 1) // 4)  # noqa: B023 - called at once
        deploy(machine, folder, revision=revision)
    eventually(lambda: load.revisions[3] or load.failures)
    load.join()
    stream.join(60)

    assert load.failures == []
    assert load.answered() >= REQUESTS
    assert set(load.revisions) == {1, 2, 3}
    eventually(lambda: sum(entry["n"] for entry in states(machine)) == RECORDS, 120)
    assert emitted(kafka, out) == {f"r{number}" for number in range(RECORDS)}
    assert machine.json("dlq", "list") == []
    print(f"{load.answered()} requests over {CLIENTS} kept connections, answered by revisions {dict(load.revisions)}")


def write(base: Path, topic: str, out: str, brokers: str) -> Path:
    folder = base / "switch"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION.format(topic=topic, out=out))
    use_broker(base, brokers)
    return folder


def deploy(machine: Machine, folder: Path, *, revision: int) -> None:
    (folder / "handler.py").write_text(HANDLER.format(revision=revision))
    machine.fn("deploy", str(folder))


def emitted(brokers: str, topic: str) -> set[str]:
    """The records that were told of, once all are. Some may be told of twice: a worker that ends may be in doubt."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": fresh_name()})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(4)])
    found: set[str] = set()

    def all_there() -> bool:
        messages = consumer.consume(RECORDS, 0.2)
        found.update(json.loads(message.value())["id"] for message in messages if message.error() is None)
        return len(found) >= RECORDS

    try:
        eventually(all_there)
    finally:
        consumer.close()
    return found


def states(machine: Machine) -> list[dict[str, Any]]:
    keys = machine.json("state", "list", "switch")["keys"]
    return [machine.json("state", "get", "switch", key)["value"] for key in keys]


class Load:
    """Clients that keep one connection each and send until `REQUESTS` are answered and they are told that it is
    enough. Nothing is tried again.
    """

    def __init__(self, port: int) -> None:
        self.failures: list[str] = []
        self.revisions: Counter[int] = Counter()
        self._port = port
        self._numbers = itertools.count()
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """It is enough: however long revisions took to change, the last one has answered some."""
        self._enough.set()
        for thread in self._threads:
            thread.join(120)

    def answered(self) -> int:
        return sum(self.revisions.values())

    def _client(self) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.connect()
            connection.auto_open = 0  # a connection that was closed would show
            self._ask(connection)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        while (number := self._next()) is not None:
            try:
                connection.request("POST", "/switch", str(number), {"content-type": "application/json"})
                reply = connection.getresponse()
                body = reply.read()
                answer = json.loads(body) if reply.status == 200 else {}
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"request {number}: {error!r}")
                return
            with self._lock:
                if answer.get("number") != number:
                    self.failures.append(f"request {number}: {reply.status} {body!r}")
                self.revisions[answer.get("revision", 0)] += 1

    def _next(self) -> int | None:
        with self._lock:
            number = next(self._numbers)
        return None if number >= REQUESTS and self._enough.is_set() else number


def produce(brokers: str, topic: str) -> None:
    """Evenly over about 15 seconds."""
    producer = Producer({"bootstrap.servers": brokers})
    for number in range(RECORDS):
        vehicle = f"V{number % 8}"
        producer.produce(topic, key=vehicle, value=json.dumps({"vehicle": vehicle, "id": f"r{number}"}))
        producer.poll(0.005)
    assert producer.flush(30) == 0
