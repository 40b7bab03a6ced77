"""MQTT QoS 1: into the inbox, and through to the handler. Beside it a bare subscriber of the same broker.

A session that gathered the messages is emptied, 1,000 on their way at most; messages per second from the first to the
last. Bare: paho-mqtt, a msgspec decode of each payload, acknowledged at once; and the same over the connections that
the bridge has. Into the inbox: each message made an event with the key of its topic, journaled, then acknowledged.
Through to the handler: a node that starts with the session full, until its handler, in a worker, has had the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import payloads
from fleetfn_gateway.mqtt_bridge import MqttBridge
from fleetfn_gateway.queue import Queue
from fleetfn_spec.function import Function, Metadata, Spec, Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.inbox import Arrival
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.mqtt_connection import MqttConnection
from fn_node import FnNode, wait_for
from mqtt_talk import WINDOW, BareLink, BarePaho, decoder, fill, on_loop
from results import Line
from setting import Setting
from turns import Subject, side_by_side

KEYS = 1000
INTO_INBOX = {"350 B": 50_000, "3 KB": 20_000}
"""Messages of a turn."""

TO_HANDLER = 20_000

PAHO = "bare paho-mqtt"


def lines(setting: Setting) -> Iterator[Line]:
    sizes = {
        "350 B": (payloads.small(), decoder(payloads.Frame)),
        "3 KB": (payloads.large(), decoder(payloads.Frames)),
    }
    for size, (recorded, decode) in sizes.items():
        count = setting.count(INTO_INBOX[size])
        into = _Inbox(setting, recorded, count, decode)
        yield from side_by_side(
            f"MQTT QoS 1 into the inbox, {size}", "messages/s", into.subjects(), floor=PAHO, runs=setting.runs
        )
    recorded, decode = sizes["350 B"]
    through = _Handler(setting, recorded, setting.count(TO_HANDLER), decode)
    yield from side_by_side(
        "MQTT QoS 1 to the handler, 350 B", "messages/s", through.subjects(), floor=PAHO, runs=setting.runs
    )


class _Measured:
    """Sessions of the same kind of topic, each filled for its subject alone."""

    def __init__(
        self, setting: Setting, recorded: Sequence[tuple[str, bytes]], count: int, decode: Callable[[bytes], Any]
    ) -> None:
        self.host = setting.mosquitto
        self.folder = setting.folder
        self.count = count
        self.decode = decode
        self._payloads = [payload for _, payload in recorded]
        self._name = f"{time.time_ns():x}"

    def fill(self, topic: str) -> None:
        chosen = islice(cycle(self._payloads), self.count)
        on_loop(fill(self.host, [(f"{topic}/v{n % KEYS}", payload) for n, payload in enumerate(chosen)]))

    def bare(self) -> dict[str, Subject]:
        topic = f"bench/{self._name}/paho"
        paho = BarePaho(self.host, f"paho-{self._name}", f"{topic}/+", self.decode)
        paho.subscribe()

        def run() -> float:
            self.fill(topic)
            return paho.run(self.count)

        return {PAHO: run}


class _Inbox(_Measured):
    def subjects(self) -> dict[str, Subject]:
        topic = f"bench/{self._name}/link"
        link = BareLink(self.host, f"link-{self._name}", f"{topic}/+", self.decode)
        on_loop(link.subscribe())

        def bare_link() -> float:
            self.fill(topic)
            return on_loop(link.run(self.count))

        return {**self.bare(), "bare, our own packets": bare_link, "FleetFn, into the inbox": self._bridged()}

    def _bridged(self) -> Subject:
        topic = f"bench/{self._name}/bridge"
        function, trigger = _function(topic, self.host, self.folder)
        path = self.folder / f"{self._name}.db"
        on_loop(_through_bridge(function, trigger, path, 0))

        def run() -> float:
            self.fill(topic)
            return on_loop(_through_bridge(function, trigger, path, self.count))

        return run


def _function(topic: str, host: str, folder: Path) -> tuple[GatewayFunction, Trigger]:
    trigger = Trigger(name="live", key="topic.vehicle", mqtt=Mqtt(topic=f"{topic}/{{vehicle}}", inflight=WINDOW))
    function = Function(
        apiVersion="fleetfn.dev/v1alpha1",
        kind="Function",
        metadata=Metadata(name="bench"),
        spec=Spec(handler="handler:watch", triggers=[trigger]),
    )
    told = GatewayFunction(
        function=function,
        revision="",
        environment="bench",
        place="here",
        mqtt={"mqtt": MqttConnection(url=f"mqtt://{host}")},
        source=folder,
    )
    return told, trigger


async def _through_bridge(function: GatewayFunction, trigger: Trigger, path: Path, count: int) -> float:
    """0 messages: subscribe, and leave a session behind."""
    queue = await Queue.open(path, quota=1 << 40)
    counting = _Counting(queue, count)
    bridge = MqttBridge(function, trigger, queue, counting)
    await bridge.start()
    if count:
        await counting.all.wait()
    await bridge.close()
    await queue.close()
    return count / (counting.ended - counting.begun) if count else 0.0


class _Counting:
    """The queue, and when it was given the first message and had the last."""

    def __init__(self, queue: Queue, count: int) -> None:
        self._left = count
        self.note, self.forget, self._put = queue.note, queue.forget, queue.put
        self.begun = self.ended = 0.0
        self.all = asyncio.Event()

    async def put(self, arrivals: Sequence[Arrival], **notes: Any) -> list[int]:
        if arrivals and not self.begun:
            self.begun = time.perf_counter()
        sequences = await self._put(arrivals, **notes)
        self._left -= len(arrivals)
        if self._left <= 0:
            self.ended = time.perf_counter()
            self.all.set()
        return sequences


class _Handler(_Measured):
    def subjects(self) -> dict[str, Subject]:
        return {
            **self.bare(),
            "FleetFn, typed handler": lambda: self._handled("stateless"),
            "FleetFn, typed handler with State": lambda: self._handled("stateful"),
        }

    def _arrives(self, topic: str, told: Path) -> bool:
        frame = msgspec.json.decode(self._payloads[0]) | {"vehicle": "probe"}
        on_loop(fill(self.host, [(topic, msgspec.json.encode(frame))]))
        time.sleep(0.2)
        return told.with_suffix(".probe").exists()

    def _handled(self, trigger: str) -> float:
        """On a node of its own: deployed, so that its session stands, then down while the session is filled."""
        node = FnNode(self.folder, {"mqtt": {"mqtt": {"url": f"mqtt://{self.host}"}}})
        told = node.folder / "seconds"
        with node:
            node.deploy("mqtt", {"count": self.count, "file": str(told)})
            wait_for(lambda: self._arrives(f"bench/{trigger}/probe", told), "the subscription", 30.0)
        self.fill(f"bench/{trigger}")
        with node:
            wait_for(told.exists, f"the last of {self.count} messages")
            node.fn("delete", "mqtt", "--yes")  # with its sessions: the next one has its own
        return self.count / float(msgspec.json.decode(told.read_bytes()))
