"""On a cluster: from zero to the reply, or until the handler has run, beside the bare start of a pod there.

All functions sleep before each start, and starts alternate. What the API server says of a start is noted the moment it
says it, so that a second table tells where the time went.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import payloads
from cluster_api import LIMIT, Api, Pod, now
from cluster_ground import BARE, BARER, PORT, Ground, Signs, named
from cluster_warm import Warm
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.client import CallbackAPIVersion, Client
from results import Line
from setting import Setting
from turns import as_line, say

FLOOR = "bare pod, ready"
ANSWERING = "bare pod, its first reply"
UNMOUNTED = "bare pod without its token's volume, ready"

PAUSE = (0.5, 1.5)
"""Seconds between starts, at random: KEDA polls each second."""


class Ran(msgspec.Struct):
    """See cluster/handler.py."""

    pod: str
    began: float
    imported: float
    ran: float


class Start(NamedTuple):
    """Of a sleeping function, in seconds of the machine's clock."""

    sent: float
    scaled: float
    pod: Pod
    ran: Ran
    ended: float


def lines(setting: Setting) -> Iterator[Line]:
    with ExitStack() as stack:
        api = stack.enter_context(Api(Path(named("FN_E2E_KUBECONFIG")), f"bench-{time.time_ns() % 16**6:06x}"))
        signs = Signs(api.host)
        stack.callback(signs.close)
        ground = Ground(setting.folder, api, signs)
        yield from _Zero(setting, ground, signs, stack).lines()
        yield from Warm(setting, ground, signs, stack).lines()


@dataclass(frozen=True)
class _Kind:
    """What wakes a function; `start` measures once."""

    start: Callable[[], Start]
    door: str = ""
    """The function whose Service has to lead to the gateway before."""
    polled: bool = False
    """KEDA finds it out by polling."""


class _Zero:
    def __init__(self, setting: Setting, ground: Ground, signs: Signs, stack: ExitStack) -> None:
        self._setting = setting
        self._ground = ground
        self._api = ground.api
        self._signs = signs
        self._stack = stack
        self._body = payloads.small(1)[0][1]

    def lines(self) -> Iterator[Line]:
        say("cluster: deploys")
        kinds = self._kinds()
        self._ground.add_bare(BARE)
        self._ground.add_bare(BARER, automountServiceAccountToken=False)
        figures: dict[str, list[float]] = {name: [] for name in (FLOOR, ANSWERING, UNMOUNTED)}
        starts: dict[str, list[Start]] = {name: [] for name in kinds}
        for turn in range(self._setting.runs):
            say(f"cluster, from zero: {turn + 1} of {self._setting.runs}")
            ready, answered = self._bare(BARE)
            figures[UNMOUNTED].append(self._bare(BARER)[0])
            figures[FLOOR].append(ready)
            figures[ANSWERING].append(answered)
            for name in random.sample(list(kinds), len(kinds)):
                starts[name].append(self._one(kinds[name]))
                say(f"  {name}: {(starts[name][-1].ended - starts[name][-1].sent):.2f} s, bare pod {ready:.2f} s")
        line = "cluster, from zero"
        floor = [each * 1000 for each in figures[FLOOR]]
        for name, found in figures.items():
            yield as_line(line, name, "ms", [each * 1000 for each in found], floor)
        for name, made in starts.items():
            taken = [(each.ended - (each.scaled if kinds[name].polled else each.sent)) * 1000 for each in made]
            yield as_line(line, name, "ms", taken, floor)
        for name, made in starts.items():
            for step, milliseconds in _steps(made).items():
                yield as_line(f"cluster, where the time goes: {name}", step, "ms", milliseconds)

    def _one(self, kind: _Kind) -> Start:
        self._ground.rest(kind.door)
        time.sleep(random.uniform(*PAUSE))
        self._signs.forget()
        return kind.start()

    def _bare(self, name: str) -> tuple[float, float]:
        """Seconds until the API server says that it is ready, and until it has answered."""
        self._ground.rest()
        time.sleep(random.uniform(*PAUSE))
        began = now()
        self._api.scale(name, 1)
        pod = self._api.wait(lambda: next((each for each in self._api.of(name) if each.addressed), None), "an address")
        while not _answers(pod.address):
            time.sleep(0.002)
        answered = now()
        ready = self._api.wait(lambda: pod.ready, "a bare pod")
        self._api.scale(name, 0)
        return ready - began, answered - began

    def _kinds(self) -> dict[str, _Kind]:
        """Deployed. The first one brings the gateway."""
        first, *others = [plan for stateful in (False, True) for plan in self._plans(stateful=stateful)]
        if proxy := self._interceptor():
            others.append(("HTTP, no state, by the http-add-on", lambda: self._by_add_on(proxy)))
        found = {first[0]: first[1]()}
        with ThreadPoolExecutor(3) as pool:
            made = pool.map(lambda plan: plan[1](), others)
            found.update(zip([name for name, _ in others], made, strict=True))
        return found

    def _plans(self, *, stateful: bool) -> list[tuple[str, Callable[[], _Kind]]]:
        state = "State" if stateful else "no state"
        return [
            (f"HTTP, {state}", lambda: self._web(stateful=stateful)),
            (f"MQTT, {state}", lambda: self._message(stateful=stateful)),
            (f"Kafka, {state}, from its scaling on", lambda: self._record(stateful=stateful)),
        ]

    def _web(self, *, stateful: bool) -> _Kind:
        name = self._deploy("http", {"http": {"path": "/start"}}, "keep" if stateful else "answer", stateful=stateful)
        return _Kind(self._http(name, self._api.address_of(name), 80, name), name)

    def _message(self, *, stateful: bool) -> _Kind:
        topic = f"{self._api.namespace}/{'state' if stateful else 'plain'}"
        mqtt = {"mqtt": {"topic": topic, "qos": 1}}
        name = self._deploy("mqtt", mqtt, "keep_and_tell" if stateful else "tell", stateful=stateful)
        return _Kind(self._mqtt(name, topic))

    def _record(self, *, stateful: bool) -> _Kind:
        topic = f"{self._api.namespace}-{'state' if stateful else 'plain'}"
        self._topic(topic)
        kafka = {"kafka": {"topic": topic}}
        name = self._deploy("kafka", kafka, "keep_and_tell" if stateful else "tell", stateful=stateful)
        return _Kind(self._kafka(name, topic), polled=True)

    def _by_add_on(self, proxy: str) -> _Kind:
        trigger = {"name": "http", "key": None, "http": {"path": "/start"}}
        name = self._ground.deploy("http-add-on", trigger, "answer", environment="add-on")
        return _Kind(self._http(name, proxy, 8080, f"{name}.{self._api.namespace}"))

    def _deploy(self, kind: str, trigger: dict[str, Any], handler: str, *, stateful: bool) -> str:
        full = {"name": kind, "key": "data.vehicle" if stateful else None, **trigger}
        return self._ground.deploy(f"{kind}-state" if stateful else kind, full, handler)

    def _interceptor(self) -> str:
        """Address of the http-add-on's proxy; ''."""
        try:
            return self._api.address_of("keda-add-ons-http-interceptor-proxy", "keda")
        except RuntimeError:
            return ""

    def _http(self, function: str, address: str, port: int, host: str) -> Callable[[], Start]:
        def start() -> Start:
            sent = now()
            connection = http.client.HTTPConnection(address, port, timeout=LIMIT)
            connection.request("POST", "/start", self._body, {"host": host, "content-type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
            ended = now()
            connection.close()
            if reply.status != HTTPStatus.OK:
                raise RuntimeError(f"{function} answered {reply.status} {text[:200]!r}")
            return self._noted(function, sent, msgspec.json.decode(text, type=Ran), ended)

        return start

    def _mqtt(self, function: str, topic: str) -> Callable[[], Start]:
        client = Client(CallbackAPIVersion.VERSION2)
        host, port = self._ground.mosquitto.split(":")
        client.connect(host, int(port))
        client.loop_start()
        self._stack.callback(client.loop_stop)
        self._stack.callback(client.disconnect)

        def start() -> Start:
            sent = now()
            client.publish(topic, self._body, qos=1)
            return self._sign(function, sent)

        return start

    def _topic(self, topic: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._ground.kafka})
        admin.create_topics([NewTopic(topic, 1)])[topic].result(LIMIT)
        self._stack.callback(lambda: admin.delete_topics([topic])[topic].result(LIMIT))

    def _kafka(self, function: str, topic: str) -> Callable[[], Start]:
        producer = Producer({"bootstrap.servers": self._ground.kafka, "linger.ms": 0})

        def start() -> Start:
            sent = now()
            producer.produce(topic, self._body)
            producer.flush(LIMIT)
            return self._sign(function, sent)

        return start

    def _sign(self, function: str, sent: float) -> Start:
        while True:
            ran = msgspec.json.decode(self._signs.next(), type=Ran)
            if self._api.pods[ran.pod].deployment == function:
                return self._noted(function, sent, ran, now())
            say(f"  {ran.pod} says that it ran, too")

    def _noted(self, function: str, sent: float, ran: Ran, ended: float) -> Start:
        pod = self._api.pods[ran.pod]
        # It may be put to sleep before the kubelet has called it ready.
        self._api.wait(lambda: pod.ready or ran.pod not in self._api.pods, f"a pod of {function}")
        scaled = self._api.woken[function]
        if not sent <= scaled <= ended:
            raise RuntimeError(
                f"{function} did not sleep: scaled {scaled - sent:.2f} s, done {ended - sent:.2f} s after"
            )
        return Start(sent, scaled, pod, ran, ended)


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, PORT, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _steps(starts: list[Start]) -> Mapping[str, list[float]]:
    """Milliseconds of each step, one after the other."""
    found: dict[str, list[float]] = {}
    for each in starts:
        marks = {
            "sent": each.sent,
            "until KEDA has scaled": each.scaled,
            "until there is a pod": each.pod.created,
            "until its process begins": each.ran.began,
            "until the handler is imported": each.ran.imported,
            "until the handler has run": each.ran.ran,
            "until that is known": each.ended,
        }
        values = list(marks.values())
        for step, before, after in zip(list(marks)[1:], values, values[1:], strict=False):
            found.setdefault(step, []).append((after - before) * 1000)
        ready = each.pod.ready
        if ready is not None:
            found.setdefault("(the kubelet calls it ready, after the event)", []).append((ready - each.sent) * 1000)
    return found
