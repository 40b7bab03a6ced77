"""On a cluster, with a pod that is awake: what its function's Service costs, and how many events a second it takes."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import http_load
import msgspec
import payloads
from cluster_api import LIMIT, Api, wait
from cluster_ground import HANDLERS, PORT, Ground, Signs
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from http_load import Load
from paho.mqtt.client import CallbackAPIVersion, Client
from results import Line
from setting import Setting
from turns import Subject, side_by_side

RUNS = 5
RECORDS = 20_000
MESSAGES = 900
"""At once; a Mosquitto as it ships keeps 1,000 for a subscriber that is slower."""

KEYS = 1000
PARTITIONS = 6
ASKED = 300
"""Requests, one after the other, whose time counts."""

AWAKE = {"scale": {"idle": "300s", "max": 1}}


class Warm:
    def __init__(self, setting: Setting, ground: Ground, signs: Signs, stack: ExitStack) -> None:
        self._setting = setting
        self._ground = ground
        self._api: Api = ground.api
        self._signs = signs
        self._stack = stack
        self._runs = count(1)
        self._frames = payloads.small()
        self._turns = min(RUNS, setting.runs)

    def lines(self) -> Iterator[Line]:
        yield from self._http("warm", None, "answer", [self._frames[0][1]])
        yield from self._http("warm-state", "data.vehicle", "keep", self._bodies(KEYS))
        yield from self._kafka()
        yield from self._mqtt()

    # HTTP: the Service's address leads to the pod itself, so both ways are one.

    def _http(self, name: str, key: str | None, handler: str, bodies: list[bytes]) -> Iterator[Line]:
        trigger = {"name": "http", "key": key, "http": {"path": "/warm"}}
        self._ground.deploy(name, trigger, handler, **AWAKE)
        service = self._api.address_of(name)
        wait(lambda: _way(service, bodies[0]), f"{name} answers")
        pod = self._api.wait(lambda: next(iter(self._api.of(name)), None), "a pod")
        wait(lambda: self._api.led_to(name) == ([pod.address], PORT), f"the Service of {name} leads to its pod alone")
        wait(lambda: _way(service, bodies[0]) == "direct", f"requests to {name} come by no gateway")
        ways = {"a pod by its address": (pod.address, PORT), "FleetFn, by its Service": (service, 80)}
        load = Load("/warm", "bench", tuple(bodies))
        rates: dict[str, Subject] = {way: partial(self._rate, load, *place) for way, place in ways.items()}
        times: dict[str, Subject] = {way: partial(_ask, *place, bodies[0], ASKED) for way, place in ways.items()}
        what = f"cluster, awake, HTTP{', State in Redis' if key else ''}"
        floor = "a pod by its address"
        yield from side_by_side(what, "requests/s", rates, floor=floor, runs=self._turns)
        yield from side_by_side(f"{what}, one after the other", "ms", times, floor=floor, runs=self._turns)

    def _rate(self, load: Load, host: str, port: int) -> float:
        return http_load.measure(
            load, port, self._setting.folder, run=next(self._runs), quick=self._setting.quick, host=host
        )

    # Kafka with state: Dapr's sidecar and Redis, beside SQLite under the same worker on the node.

    def _kafka(self) -> Iterator[Line]:
        topics = [f"{self._api.namespace}-{each}" for each in ("pod", "node")]
        admin = AdminClient({"bootstrap.servers": self._ground.kafka})
        for made in admin.create_topics([NewTopic(each, PARTITIONS) for each in topics]).values():
            made.result(LIMIT)
        self._stack.callback(lambda: [each.result(LIMIT) for each in admin.delete_topics(topics).values()])
        records = self._setting.count(RECORDS)
        self._ground.deploy("records", _records(topics[0]), "count", config={"every": records}, **AWAKE)
        self._on_node(topics[1], records)
        producer = Producer({"bootstrap.servers": self._ground.kafka, "linger.ms": 20})
        subjects: dict[str, Subject] = {
            "FleetFn on the node, SQLite": partial(self._produced, producer, topics[1], records),
            "FleetFn in a pod, Dapr and Redis": partial(self._produced, producer, topics[0], records),
        }
        for each in subjects.values():
            each()  # wakes it, and makes a record of each vehicle
        yield from side_by_side(
            "cluster, awake, Kafka with State", "records/s", subjects, floor=next(iter(subjects)), runs=self._turns
        )

    def _produced(self, producer: Producer, topic: str, records: int) -> float:
        bodies = self._bodies(KEYS)
        return self._counted(records, lambda: _produce(producer, topic, list(islice(cycle(bodies), records))))

    def _on_node(self, topic: str, records: int) -> None:
        """A worker that ends with the run."""
        folder = self._setting.folder / "node"
        folder.mkdir()
        (folder / "handler.py").write_text((HANDLERS / "handler.py").read_text())
        told = {"handler": "handler:count", "triggers": [_records(topic)], "config": {"every": records}}
        local = {"name": "local", "connections": [{"name": "kafka", "kafka": {"brokers": [self._ground.kafka]}}]}
        for file, kind, content in (
            ("function.yaml", "Function", {"metadata": {"name": "records"}, "spec": told}),
            ("environments.yaml", "Environments", {"environments": [local]}),
        ):
            text = json.dumps({"apiVersion": "fleetfn.dev/v1alpha1", "kind": kind, **content})
            (folder / file).write_text(text)
        environ = {**os.environ, "FN_BENCH_SIGNS": self._signs.place}
        log = self._stack.enter_context((folder / "log").open("wb"))
        command: list[str | Path] = [sys.executable, "-m", "fleetfn_runtime", "--folder", folder]
        command += ["--data", self._setting.folder / "node-data"]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder)
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)

    # MQTT: into the gateway's inbox, and from there to the handler.

    def _mqtt(self) -> Iterator[Line]:
        topic = f"{self._api.namespace}/count"
        trigger = {"name": "mqtt", "key": "topic.vehicle", "mqtt": {"topic": f"{topic}/{{vehicle}}", "qos": 1}}
        self._ground.deploy("messages", trigger, "count_plain", config={"every": MESSAGES}, **AWAKE)
        client = Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(MESSAGES)
        host, port = self._ground.mosquitto.split(":")
        client.connect(host, int(port))
        client.loop_start()
        self._stack.callback(client.loop_stop)
        self._stack.callback(client.disconnect)
        bodies = [(f"{topic}/{number}", body) for number, body in enumerate(self._bodies(MESSAGES))]

        def publish() -> None:
            for place, body in bodies:
                client.publish(place, body, qos=1)

        subjects: dict[str, Subject] = {"FleetFn, in a pod": lambda: self._counted(MESSAGES, publish)}
        subjects["FleetFn, in a pod"]()  # wakes it
        yield from side_by_side("cluster, awake, MQTT QoS 1", "messages/s", subjects, floor=None, runs=self._turns)

    def _counted(self, events: int, send: Callable[[], None]) -> float:
        """Events a second, from the first that is handled to the last."""
        self._signs.forget()
        send()
        first, last = (msgspec.json.decode(self._signs.next()) for _ in range(2))
        return (events - 1) / float(last["ran"] - first["ran"])

    def _bodies(self, keys: int) -> list[bytes]:
        """One frame of each of so many vehicles."""
        frames = islice(cycle(self._frames), keys)
        return [data.replace(car.encode(), f"{number:07}-1".encode()) for number, (car, data) in enumerate(frames)]


def _records(topic: str) -> dict[str, Any]:
    return {"name": "kafka", "key": "data.vehicle", "kafka": {"topic": topic, "start": "earliest"}}


def _produce(producer: Producer, topic: str, bodies: list[bytes]) -> None:
    for body in bodies:
        producer.produce(topic, body, body[:40])
        producer.poll(0)
    producer.flush(LIMIT)


def _way(host: str, body: bytes) -> str:
    """By what a request came, `direct` where nothing says that it was passed on; '' where it did not."""
    try:
        connection = http.client.HTTPConnection(host, 80, timeout=LIMIT)
        connection.request("POST", "/warm", body, {"content-type": "application/json"})
        return str(connection.getresponse().getheader("via") or "direct")
    except OSError:  # kube-proxy does not know the Service yet
        return ""
    finally:
        connection.close()


def _ask(host: str, port: int, body: bytes, times: int) -> float:
    """Median ms of requests on one connection."""
    found = []
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT)
    for _ in range(times):
        began = time.perf_counter()
        connection.request("POST", "/warm", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        found.append(time.perf_counter() - began)
        if reply.status != HTTPStatus.OK:
            raise RuntimeError(f"/warm answered {reply.status}")
    connection.close()
    return statistics.median(found) * 1000
