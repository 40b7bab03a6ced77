"""How old events are when they are handled, at a steady rate: p50 and p99 of a run, in ms, per trigger.

A node with real brokers, one worker, a typed handler with State, 1,000 keys. The age of an event counts from the
instant at which its open loop (age_senders.py) was to send it until its handler has run, so it has in it what the
sender, the broker and we take. The state's save comes after that: it delays the key's next event.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import payloads
from age_senders import Http, Kafka, Mqtt, Open, pace
from confluent_kafka.admin import AdminClient, NewTopic
from fn_node import FnNode, wait_for
from mqtt_talk import on_loop
from results import Line
from setting import Setting
from turns import as_line, say

RATE = 2000
SECONDS, QUICK = 20, 3
WARM = 2
"""Seconds of sending before those that count: the function wakes, records are at hand."""

KEYS = 1000
PARTITIONS = 4
TURNS = 3
"""At most: each lasts."""

Opener = Callable[[], Awaitable[Open]]


def lines(setting: Setting) -> Iterator[Line]:
    brokers, host = setting.kafka, setting.mosquitto
    _make_topic(brokers)
    connections = {"kafka": {"kafka": {"brokers": [brokers]}}, "mqtt": {"mqtt": {"url": f"mqtt://{host}"}}}
    with FnNode(setting.folder, connections) as node:
        ages = Path(node.folder / "ages")
        ages.mkdir()
        node.deploy("age", {"ages": str(ages)})
        seconds = QUICK if setting.quick else SECONDS
        yield from _measured(_openers(node.port, brokers, host), ages, seconds, min(setting.runs, TURNS))
        node.fn("delete", "age", "--yes")


def _openers(port: int, brokers: str, host: str) -> dict[str, Opener]:
    async def http() -> Open:
        return Http(port)

    async def asynchronous() -> Open:
        return Http(port, "prefer: respond-async\r\n")

    async def kafka() -> Open:
        return Kafka(brokers)

    async def mqtt() -> Open:
        return await Mqtt.open(host)

    return {"HTTP": http, "Kafka": kafka, "MQTT": mqtt, "asynchronous HTTP": asynchronous}


def _measured(openers: dict[str, Opener], ages: Path, seconds: int, turns: int) -> Iterator[Line]:
    found: dict[str, list[list[float]]] = {name: [] for name in openers}
    for turn in range(turns):
        for name, opener in openers.items():
            say(f"event age at {RATE:,}/s: {name}, {turn + 1} of {turns}")
            _run(opener, ages, WARM)
            found[name].append(_run(opener, ages, seconds))
    for percent in (50, 99):
        for name, runs in found.items():
            figures = [_percentile(run, percent) * 1000 for run in runs]
            yield as_line(f"event age at {RATE:,}/s, with State: p{percent}", name, "ms", figures)


def _run(opener: Opener, ages: Path, seconds: int) -> list[float]:
    """Ages in seconds, in ascending order."""
    name = f"{time.monotonic_ns():x}"
    count = RATE * seconds
    frames = [msgspec.Raw(payload) for _, payload in payloads.small(count)]

    async def send() -> None:
        sender = await opener()

        async def one(number: int, due: float) -> None:
            event = {"run": name, "of": count, "due": due, "frame": frames[number % len(frames)]}
            await sender.send(f"v{number % KEYS}", msgspec.json.encode(event))

        await pace(RATE, count, one)
        await sender.close()

    on_loop(send())
    told = ages / f"{name}.json"
    wait_for(told.exists, f"the last of {count} events", 60.0)
    return sorted(msgspec.json.decode(told.read_bytes(), type=list[float]))


def _percentile(ascending: list[float], percent: int) -> float:
    return ascending[math.ceil(len(ascending) * percent / 100) - 1]


def _make_topic(brokers: str) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    if "bench-age" not in admin.list_topics(timeout=20).topics:
        admin.create_topics([NewTopic("bench-age", PARTITIONS, 1)])["bench-age"].result(20)
