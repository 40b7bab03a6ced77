"""Plain MQTT clients for tests, as a vehicle or a dashboard would be: nothing of FleetFn in them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Self

from mqtt_broker import eventually
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from paho.mqtt.properties import Properties


class _Talker:
    def __init__(self, address: str) -> None:
        """`address`: host:port."""
        self._connected = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self.client.on_connect = self._on_connect
        self.client.reconnect_delay_set(0.05, 0.5)
        host, _, port = address.rpartition(":")
        self.client.connect(host, int(port))

    def __enter__(self) -> Self:
        self.client.loop_start()
        assert self._connected.wait(60), "no connection to the MQTT broker"
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, _client: Client, *_: Any) -> None:
        self._connected.set()


class Publisher(_Talker):
    """QoS 1; what is published while the broker is away is sent when it is back."""

    def publish(self, topic: str, data: Any, *, wait: float | None = 60, retain: bool = False) -> None:
        """JSON. `wait`: seconds until the broker must have acknowledged; None: it may do so later."""
        told = self.client.publish(topic, json.dumps(data), qos=1, retain=retain)
        if wait is not None:
            told.wait_for_publish(wait)
            assert told.is_published(), f"the broker did not acknowledge a message to {topic} within {wait} s"


class Recorder(_Talker):
    """Writes every message of a topic filter to a file, a JSON line each with its CloudEvents id."""

    def __init__(self, address: str, topic: str, file: Path) -> None:
        super().__init__(address)
        self._topic = topic
        self._file = file.open("w", buffering=1)
        self._seen: set[str] = set()
        self.subscriptions = 0
        """How often the broker has confirmed one: once more after each loss of the connection."""
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message

    def __enter__(self) -> Self:
        super().__enter__()
        eventually(lambda: self.subscriptions)
        return self

    def __exit__(self, *what: object) -> None:
        super().__exit__(*what)
        self._file.close()

    def seen(self) -> set[str]:
        """`of` of all messages so far."""
        return set(self._seen)

    def _on_connect(self, client: Client, *rest: Any) -> None:
        client.subscribe(self._topic, qos=1)
        super()._on_connect(client, *rest)

    def _on_subscribe(self, *_: Any) -> None:
        self.subscriptions += 1

    def _on_message(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        data = json.loads(message.payload)
        self._file.write(json.dumps({"id": _attribute(message.properties, "id"), **data}) + "\n")
        self._seen.add(data["of"])


def _attribute(properties: Properties | None, name: str) -> str:
    """A CloudEvents attribute, which MQTT 5 carries as a user property."""
    found = dict(getattr(properties, "UserProperty", []))
    return str(found[name])
