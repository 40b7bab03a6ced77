"""What a node costs that has nothing to do: memory, CPU, and how both grow with functions and with keys.

Memory is PSS of all processes of the node, so that pages which forks share count once; CPU is what their threads ran in
a minute, by the kernel's nanoseconds and not by its ticks (memory_use.py). Of a hundred functions 94 have an HTTP
trigger, and two each Kafka, MQTT and a clock (the embedded brokers run from the beginning). A thousand are measured on
a real Kafka and a real Mosquitto, too, whose own processor time is not counted. Nothing here has a floor: the first
subject of a line is what the others add to.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import memory_use
from confluent_kafka.admin import AdminClient, NewTopic
from controlled_node import ControlledNode
from fleetfn_spec.environments import LOCAL, Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection
from results import Line
from setting import Setting
from turns import as_line, say

FUNCTIONS = (0, 1, 10, 100, 1000)
KEYS = (1, 10, 100, 1_000, 10_000, 100_000)

MINUTE = 60.0
QUICK = 10.0

SETTLED = 35.0
"""Seconds after the last worker has gone: a spare is forked, consumers come to rest, the watch looks up less often."""

RESTING = 150.0
"""The same where the watch rests after two minutes: on a real Kafka."""

TOPIC_LIMIT = 30.0
"""Seconds that a broker may take to make topics."""

HANDLER = """
import msgspec
from fleetfn import State, Tick

class Trip(msgspec.Struct):
    distance: float = 0.0
    harsh: int = 0
    places: list[str] = []

class Reading(msgspec.Struct):
    vehicle: str
    distance: float

def drive(reading: Reading, state: State[Trip]) -> None:
    state.value.distance += reading.distance
    state.value.places = ["48.1351,11.5820", "48.2082,16.3738"]

def tick(tick: Tick) -> None: ...
"""


def lines(setting: Setting) -> Iterator[Line]:
    seconds = QUICK if setting.quick else MINUTE
    with ControlledNode(setting.folder) as node:
        yield from _functions(node, seconds, FUNCTIONS[:-1] if setting.quick else FUNCTIONS)
    with ControlledNode(setting.folder) as node:
        yield from _on_real_brokers(node, setting, seconds, FUNCTIONS[-2 if setting.quick else -1])
    with ControlledNode(setting.folder) as node:
        yield from _keys(node, seconds, KEYS[:-1] if setting.quick else KEYS)


def _functions(node: ControlledNode, seconds: float, counts: tuple[int, ...]) -> Iterator[Line]:
    """Both embedded brokers run from the start, so that they are no cost of the first function that uses them."""
    for number in (96, 98):
        _deploy(node, number)
        node.client.delete(f"idle-{number}", keep_state=False)
    there = 0
    for count in counts:
        say(f"idle node: {count} functions")
        began = time.monotonic()
        for number in range(there, count):
            _deploy(node, number)
        took = time.monotonic() - began
        node.asleep()
        time.sleep(SETTLED)
        subject = f"{count:,} sleeping functions"
        memory, cpu = _measured(node, seconds)
        yield _one("idle node, memory", subject, "MiB", memory)
        yield _one("idle node, CPU", subject, "s/minute", cpu)
        if count > there:
            yield _one(
                "deploys one after the other", f"{there:,} to {count:,}", "ms each", took / (count - there) * 1e3
            )
        there = count


def _on_real_brokers(node: ControlledNode, setting: Setting, seconds: float, count: int) -> Iterator[Line]:
    say(f"idle node: {count} functions on real brokers")
    admin = AdminClient({"bootstrap.servers": setting.kafka})
    topics = [NewTopic(f"idle-{number}", 4) for number in range(count) if number % 100 in {98, 99}]
    for made in admin.create_topics(topics).values():
        made.result(TOPIC_LIMIT)
    connections = [
        Connection(name="kafka", kafka=KafkaConnection(brokers=[setting.kafka])),
        Connection(name="mqtt", mqtt=MqttConnection(url=f"mqtt://{setting.mosquitto}")),
    ]
    for number in range(count):
        _deploy(node, number, Environment(name="real", connections=connections))
    node.asleep()
    time.sleep(SETTLED if setting.quick else RESTING)
    memory, cpu = _measured(node, seconds)
    subject = f"{count:,} sleeping functions, real brokers"
    yield _one("idle node, memory", subject, "MiB", memory)
    yield _one("idle node, CPU", subject, "s/minute", cpu)


def _keys(node: ControlledNode, seconds: float, counts: tuple[int, ...]) -> Iterator[Line]:
    trigger = {"name": "http", "key": "data.vehicle", "http": {"path": "/drive"}}
    node.deploy("drive", {"handler.py": HANDLER}, {"handler": "handler:drive", "triggers": [trigger]})
    node.asleep()
    yield _one("a node with a function that keeps state, memory", "asleep", "MiB", memory_use.memory(node.process.pid))
    kept = 0
    for count in counts:
        say(f"state: {count} keys")
        _drive(node, kept, count)
        kept = count
        (worker,) = (each.pid for each in node.client.function("drive").workers)
        state = node.data / "functions" / "drive"
        size = sum(file.stat().st_size for file in state.glob("state.db*"))
        yield _one("state.db, with its log", f"{count:,} keys", "KiB", size / 1024)
        yield _one("a worker's memory", f"{count:,} keys", "MiB", memory_use.memory(worker))
    # A worker that has just handled them all, and stays for `idle`.
    memory, cpu = _measured(node, min(seconds, QUICK))
    yield _one("a node with a function that keeps state, memory", "one worker awake", "MiB", memory)
    yield _one("a node with a function that keeps state, CPU", "one worker awake", "s/minute", cpu)


def _drive(node: ControlledNode, first: int, last: int) -> None:
    """An event of each of these vehicles."""

    def some(numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", node.port)
        for number in numbers:
            body = json.dumps({"vehicle": f"WVWZZZ1JZXW{number:06}", "distance": 1.5})
            connection.request("POST", "/drive", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status >= http.client.BAD_REQUEST:
                raise RuntimeError(f"an event was answered {answer.status}")
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(some, [range(start, last, 16) for start in range(first, min(first + 16, last))]))


def _measured(node: ControlledNode, seconds: float) -> tuple[float, float]:
    """MiB now, and processor seconds that a minute takes."""
    pid = node.process.pid
    before = memory_use.threads(pid)
    time.sleep(seconds)
    used = memory_use.seconds_since(before, pid)
    return memory_use.memory(pid), used * MINUTE / seconds


def _deploy(node: ControlledNode, number: int, environment: Environment = LOCAL) -> None:
    name = f"idle-{number}"
    handler = "handler:drive"
    trigger: dict[str, Any]
    match number % 100:
        case 94 | 95:
            handler, trigger = "handler:tick", {"cron": {"schedule": "0 3 1 1 *", "timezone": "UTC"}}
        case 96 | 97:
            trigger = {"key": "data.vehicle", "mqtt": {"topic": f"idle/{number}/+", "qos": 1}}
        case 98 | 99:
            trigger = {"key": "data.vehicle", "kafka": {"topic": f"idle-{number}"}}
        case _:
            trigger = {"key": "data.vehicle", "http": {"path": f"/idle/{number}"}}
    spec = {"handler": handler, "triggers": [{"name": "on", **trigger}], "scale": {"idle": "1s"}}
    node.deploy(name, {"handler.py": HANDLER}, spec, environment)


def _one(line: str, subject: str, unit: str, value: float) -> Line:
    return as_line(line, subject, unit, [value])
