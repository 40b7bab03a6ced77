"""Cold starts: from the first byte, record, message or due instant until the reply, or until the handler has run.

Each start is of a function that sleeps: there are several alike, woken one after the other, so that the others fall
asleep meanwhile. Between two starts there is a pause, in which a warm parent forks its next spare; and there is a line
for functions that are all woken at once. The floor is a bare fork (cold/bare_fork.py; cold/bare_woken.py where a broker
wakes it), which does with bare means what the start has to do.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cold_clients
import payloads
from cold_clients import HANDLERS, Signs
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from controlled_node import LIMIT, ControlledNode
from fleetfn_spec.environments import Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection
from paho.mqtt.client import CallbackAPIVersion, Client
from results import Line
from setting import Setting
from turns import Subject, as_line, say, side_by_side

ALIKE = 5
"""Functions of a subject."""

STARTS = 20
"""Of a subject in a turn."""

AT_ONCE = 10

EVERY = 4
"""Seconds between a clock's fires: its function sleeps in between."""

PAUSE = 0.4
"""Seconds between starts: a warm parent is quiet for 0.2 s before it forks ahead."""

HEAVY = ("numpy==2.4.6", "pandas==3.1.1")

FLOOR = "bare fork"


def lines(setting: Setting) -> Iterator[Line]:
    starts = setting.count(STARTS)
    with ExitStack() as stack:
        signs = Signs(setting.folder / "seen")
        stack.callback(signs.close)
        node = stack.enter_context(ControlledNode(setting.folder, FN_BENCH_SEEN=str(signs.path)))
        cold = _Cold(setting, node, signs, stack.enter_context(cold_clients.bare_fork("handler")), starts)
        yield from side_by_side("cold start, HTTP", "ms", cold.http(), floor=FLOOR, runs=setting.runs)
        yield from cold.at_once()
        yield from side_by_side("cold start, HTTP with State", "ms", cold.state(stack), floor=FLOOR, runs=setting.runs)
        yield from side_by_side("cold start, Kafka", "ms", cold.kafka(stack), floor=FLOOR, runs=setting.runs)
        yield from side_by_side("cold start, MQTT", "ms", cold.mqtt(stack), floor=FLOOR, runs=setting.runs)
        yield from side_by_side("cold start, a clock", "ms", cold.clock(), floor=FLOOR, runs=setting.runs)
        yield from side_by_side(
            "cold start, numpy and pandas", "ms", cold.heavy(), floor="FleetFn, neither imported", runs=setting.runs
        )


class _Cold:
    """Deploys what it measures when it is asked for subjects."""

    def __init__(self, setting: Setting, node: ControlledNode, signs: Signs, floor: int, starts: int) -> None:
        self._setting = setting
        self._node = node
        self._signs = signs
        self._starts = starts
        self._body = payloads.small(1)[0][1]
        self._floor = lambda: cold_clients.reply(floor, "/", self._body)

    def http(self) -> dict[str, Subject]:
        subjects = {
            FLOOR: self._turn([self._floor]),
            "FleetFn": self._turn(self._answering("plain", "answer")),
        }
        if self._setting.with_peers:
            subjects["functions-framework, process start"] = self._framework
        return subjects

    def at_once(self) -> Iterator[Line]:
        """All functions are woken in the same moment: one gets the spare."""
        woken = self._answering("many", "answer", count=AT_ONCE)
        figures: dict[str, list[float]] = {FLOOR: [], "FleetFn": []}
        line = f"cold start, HTTP, {AT_ONCE} functions at once"
        for turn in range(self._setting.runs):
            say(f"{line}: {turn + 1} of {self._setting.runs}")
            figures[FLOOR].append(_together([self._floor] * AT_ONCE))
            self._rest()
            figures["FleetFn"].append(_together(woken))
        for name, runs in figures.items():
            yield as_line(line, name, "ms", runs, figures[FLOOR])

    def state(self, stack: ExitStack) -> dict[str, Subject]:
        port = stack.enter_context(cold_clients.bare_fork("handler", self._setting.folder / "bare.db"))
        bare = [lambda: cold_clients.reply(port, "/", self._body)]
        return {
            FLOOR: self._turn(bare),
            "FleetFn": self._turn(self._answering("state", "keep", key="data.vehicle")),
        }

    def kafka(self, stack: ExitStack) -> dict[str, Subject]:
        brokers = self._setting.kafka
        bare, *topics = [f"cold-{time.time_ns():x}-{number}" for number in range(ALIKE + 1)]
        admin = AdminClient({"bootstrap.servers": brokers})
        for made in admin.create_topics([NewTopic(each, 1) for each in (bare, *topics)]).values():
            made.result(LIMIT)
        stack.enter_context(cold_clients.bare_woken("kafka", brokers, bare, self._signs.path))
        connection = Connection(name="kafka", kafka=KafkaConnection(brokers=[brokers]))
        producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
        for number, topic in enumerate(topics):
            trigger = {"name": "kafka", "key": "data.vehicle", "kafka": {"topic": topic}}
            self._deploy(f"kafka-{number}", trigger, connection)

        def start(topic: str) -> Callable[[], float]:
            def produce() -> None:
                producer.produce(topic, self._body)
                producer.flush(LIMIT)

            return lambda: self._signs.seconds_from(produce)

        return {FLOOR: self._turn([start(bare)]), "FleetFn": self._turn([start(topic) for topic in topics])}

    def mqtt(self, stack: ExitStack) -> dict[str, Subject]:
        address = self._setting.mosquitto
        stack.enter_context(cold_clients.bare_woken("mqtt", address, "bare/v", self._signs.path))
        connection = Connection(name="mqtt", mqtt=MqttConnection(url=f"mqtt://{address}"))
        for number in range(ALIKE):
            topic = {"topic": f"cold/{number}/{{vehicle}}", "qos": 1}
            trigger = {"name": "mqtt", "key": "topic.vehicle", "mqtt": topic}
            self._deploy(f"mqtt-{number}", trigger, connection)
        host, port = address.split(":")

        def start(topic: str) -> Callable[[], float]:
            def measure() -> float:
                with _publishing(host, int(port)) as client:
                    return self._signs.seconds_from(lambda: client.publish(topic, self._body, qos=1))

            return measure

        woken = [start(f"cold/{number}/v") for number in range(ALIKE)]
        return {FLOOR: self._turn([start("bare/v")]), "FleetFn": self._turn(woken)}

    def clock(self) -> dict[str, Subject]:
        trigger = {"name": "clock", "cron": {"schedule": f"@every {EVERY}s", "missed": "skip"}}
        self._deploy("clock", trigger, handler="handler:fired")
        self._node.client.pause("clock")
        return {FLOOR: self._turn([self._floor]), "FleetFn": self._on_time}

    def _on_time(self) -> float:
        """The median of a turn's fires, each of which found the function asleep."""
        self._rest()
        client = self._node.client
        client.resume("clock")
        for _ in range(2):  # the first may make up for a missed one, so that the next finds the worker awake
            self._signs.seconds_late()
        before = client.function("clock").counters.cold_starts
        found = [self._signs.seconds_late() for _ in range(self._starts)]
        client.pause("clock")
        if (cold := client.function("clock").counters.cold_starts - before) != self._starts:
            raise RuntimeError(f"{cold} of {self._starts} fires found the clock's function asleep")
        return statistics.median(found) * 1000

    def heavy(self) -> dict[str, Subject]:
        """Each with a dependency set, installed when it is deployed."""
        files = {"frames.py": _text("frames.py"), "requirements.txt": "\n".join(HEAVY)}
        return {
            "FleetFn, neither imported": self._turn(self._answering("light", "answer")),
            "FleetFn": self._turn(self._answering("heavy", "answer", module="frames", files=files, count=2)),
            "FleetFn, `warm: imports`": self._turn(
                self._answering("warm", "answer", module="frames", files=files, count=2, warm="imports")
            ),
        }

    def _turn(self, starts: list[Callable[[], float]]) -> Subject:
        """The median of a turn's starts."""

        def measure() -> float:
            found = []
            while len(found) < self._starts:
                self._rest()
                for start in starts:
                    time.sleep(PAUSE)
                    found.append(start())
            return statistics.median(found) * 1000

        return measure

    def _rest(self) -> None:
        self._node.asleep()
        time.sleep(PAUSE)

    def _answering(
        self,
        name: str,
        handler: str,
        *,
        module: str = "handler",
        files: dict[str, str] | None = None,
        key: str | None = None,
        count: int = ALIKE,
        warm: str = "",
    ) -> list[Callable[[], float]]:
        """Functions with an HTTP trigger; what measures a start of each."""

        def start(path: str) -> Callable[[], float]:
            return lambda: cold_clients.reply(self._node.port, path, self._body)

        for number in range(count):
            trigger = {"name": "http", "key": key, "http": {"path": f"/{name}/{number}"}}
            scale = {"idle": "1s", **({"warm": warm} if warm else {})}
            self._deploy(f"{name}-{number}", trigger, handler=f"{module}:{handler}", files=files, scale=scale)
        return [start(f"/{name}/{number}") for number in range(count)]

    def _deploy(
        self,
        name: str,
        trigger: dict[str, object],
        *connections: Connection,
        handler: str = "handler:tell",
        files: dict[str, str] | None = None,
        scale: dict[str, str] | None = None,
    ) -> None:
        spec = {"handler": handler, "triggers": [trigger], "scale": scale or {"idle": "1s"}}
        environment = Environment(name="bench", connections=list(connections))
        self._node.deploy(name, files or {"handler.py": _text("handler.py")}, spec, environment)

    def _framework(self) -> float:
        """The median of a few: each is a process' start."""
        program = self._setting.peers.with_name("functions-framework")
        port = _free_port()
        command: list[Path | str] = [program, "--source", HANDLERS / "framework_app.py", "--target", "answer"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        found = [cold_clients.start_to_reply(command, port, "/", self._body) for _ in range(3)]
        return statistics.median(found) * 1000


@contextmanager
def _publishing(host: str, port: int) -> Iterator[Client]:
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect(host, port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _together(starts: list[Callable[[], float]]) -> float:
    """Milliseconds until the slowest of starts at once."""
    found: list[float] = []
    threads = [threading.Thread(target=lambda start=start: found.append(start())) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(found) * 1000


def _text(name: str) -> str:
    return (HANDLERS / name).read_text()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
