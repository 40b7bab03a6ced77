"""Events that kill their worker are given up after their attempts; an outage of what all need gives up none."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka_broker import create_topic, eventually, fresh_name
from machine import Machine, use_broker
from running_node import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.node, pytest.mark.slow]

VEHICLES = 200

KILLER = """
import os
import signal

from fleetfn import State
from msgspec import Struct


class Message(Struct):
    vehicle: str
    how: str = ""


class Count(Struct):
    n: int = 0


def watch(message: Message, state: State[Count]) -> None:
    if message.how == "exit":
        os._exit(3)
    if message.how == "memory":
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does to who is out of memory
    state.value.n += 1
"""

DOWNSTREAM = """
import socket

from fleetfn import Config, State
from msgspec import Struct


class Message(Struct):
    vehicle: str


class Settings(Struct):
    port: int


class Count(Struct):
    n: int = 0


def watch(message: Message, state: State[Count], settings: Config[Settings]) -> None:
    socket.create_connection(("127.0.0.1", settings.port), timeout=2).close()
    state.value.n += 1
"""

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  handler: handler:watch
  config: {config}
  triggers:
  - {{name: in, key: data.vehicle, kafka: {{topic: {topic}}}}}
  retry: {{attempts: {attempts}, initial: 100ms, max: 1s}}
"""


def write(machine: Machine, kafka: str, name: str, handler: str, config: str, attempts: int) -> str:
    """Deploys the function; its topic."""
    topic = fresh_name(name)
    create_topic(kafka, topic, partitions=4)
    folder = machine.folder / name
    folder.mkdir()
    (folder / "handler.py").write_text(handler)
    (folder / "function.yaml").write_text(FUNCTION.format(name=name, topic=topic, config=config, attempts=attempts))
    use_broker(machine.folder, kafka)
    machine.fn("up")
    machine.fn("deploy", str(folder))
    return topic


def test_an_event_that_kills_its_worker_is_given_up_and_all_others_are_handled(machine: Machine, kafka: str) -> None:
    topic = write(machine, kafka, "killer", KILLER, "{}", attempts=3)
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(VEHICLES):
        how = {50: "exit", 120: "memory"}.get(number, "")
        producer.produce(topic, key=f"V{number}", value=json.dumps({"vehicle": f"V{number}", "how": how}))
    assert producer.flush(60) == 0
    eventually(lambda: len(machine.json("dlq", "list")) == 2, 180)
    letters = {letter["key"]: letter for letter in machine.json("dlq", "list")}
    assert set(letters) == {"V50", "V120"}
    assert {letter["reason"] for letter in letters.values()} == {"crashed"}
    assert {letter["attempts"] for letter in letters.values()} == {3}
    eventually(lambda: machine.json("describe", "killer")["triggers"][0]["backlog"] == 0, 120)
    eventually(lambda: len(machine.fn("state", "list", "killer", "--limit", "1000").split()) == VEHICLES - 2)


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Somebody takes connections on the port."""
    with socket.create_server(("127.0.0.1", port), backlog=512) as server:
        ended = threading.Event()
        server.settimeout(0.1)

        def accept() -> None:
            while not ended.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_an_outage_of_a_minute_gives_up_nothing_and_ends_by_itself(machine: Machine, kafka: str) -> None:
    """500 events a second for 80 seconds, of which the handler's downstream is away for 60."""
    port, rate, seconds = int(free_port()), 500, 80
    topic = write(machine, kafka, "downstream", DOWNSTREAM, f"{{port: {port}}}", attempts=3)
    producer = Producer({"bootstrap.servers": kafka})
    sent = 0

    def send_for(duration: float) -> None:
        nonlocal sent
        begin = time.monotonic()
        for number in range(int(duration * rate)):
            vehicle = f"V{sent % 1000}"
            producer.produce(topic, key=vehicle, value=json.dumps({"vehicle": vehicle}))
            sent += 1
            producer.poll(max(0.0, begin + number / rate - time.monotonic()))

    with listening(port):
        send_for(10)
        eventually(lambda: machine.json("describe", "downstream")["counters"]["done"] > 0)
    send_for(60)
    eventually(lambda: "breaker open" in machine.json("describe", "downstream")["triggers"][0]["problem"])
    with listening(port):
        send_for(seconds - 70)
        assert producer.flush(60) == 0
        eventually(lambda: machine.json("describe", "downstream")["triggers"][0]["backlog"] == 0, 240)
        eventually(lambda: counted(machine) == sent, 120)
    assert machine.json("dlq", "list") == []
    eventually(lambda: machine.json("describe", "downstream")["triggers"][0]["problem"] == "")


def counted(machine: Machine) -> int:
    database = machine.data / "functions" / "downstream" / "state.db"
    connection = sqlite3.connect(f"file:{Path(database)}?mode=ro", uri=True)
    total = sum(json.loads(value)["n"] for (value,) in connection.execute("SELECT value FROM record") if value)
    connection.close()
    return int(total)
