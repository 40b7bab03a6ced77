"""What `fn dev` shows of a running function: its log lines, and the events that reach its outputs."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fleetfn.errors import FleetError
from fleetfn_deploy.client import Lines, NodeClient
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function, Output
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection

from fleetfn_cli import loglines
from fleetfn_cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleetfn_spec.control import NodeInfo
    from fleetfn_triggers.secret import Secret

_SHOWN = 500
"""Characters of an emitted payload on one line."""


@dataclass(frozen=True, slots=True)
class Followed:
    """`outputs`: (output, topic, connection) of each."""

    name: str
    outputs: tuple[tuple[str, str, KafkaConnection | MqttConnection], ...]


def followed(function: Function, environment: Environment, node: NodeInfo) -> Followed:
    """Of http outputs nothing is shown: what they send goes to somebody else's server."""
    outputs: list[tuple[str, str, KafkaConnection | MqttConnection]] = []
    for output in function.spec.outputs:
        if output.kafka is not None:
            outputs.append((output.name, output.kafka.topic, _kafka(output, environment, node.embedded_kafka)))
        elif output.mqtt is not None:
            outputs.append((output.name, output.mqtt.topic, _mqtt(output, environment, node.embedded_mqtt)))
    return Followed(function.name, tuple(outputs))


def _kafka(output: Output, environment: Environment, embedded: str | None) -> KafkaConnection:
    named = environment.connection(output.connection or "kafka")
    connection = named.kafka if named is not None and named.kafka is not None else KafkaConnection()
    return connection if connection.brokers else KafkaConnection(brokers=[embedded] if embedded else [])


def _mqtt(output: Output, environment: Environment, embedded: str | None) -> MqttConnection:
    named = environment.connection(output.connection or "mqtt")
    return named.mqtt if named is not None and named.mqtt is not None else MqttConnection(url=f"mqtt://{embedded}")


class Tail(Protocol):
    """Messages from now on; `stop`, from any thread, ends them."""

    def __iter__(self) -> Iterator[Any]: ...

    def stop(self) -> None: ...


class Following:
    """Shows what is logged and emitted from when it is made on, once it is started. Lines of several never mix."""

    def __init__(self, what: Followed, client: NodeClient, screen: Screen) -> None:
        self.what = what
        self._screen = screen
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        self._started = False
        log = client.logs(what.name, follow=True)
        self._ends.append(log.close)
        self._add(functools.partial(self._show_log, log))
        for name, topic, connection in what.outputs:
            tail = self._tail(name, topic, connection)
            if tail is not None:
                self._ends.append(tail.stop)
                self._add(functools.partial(self._show_emits, name, tail))

    def start(self) -> None:
        """Nothing happens where it has started."""
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        for end in self._ends:
            end()
        if self._started:
            for thread in self._threads:
                thread.join(5)

    def _add(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=self._guarded, args=(work,), name="fn-dev-follow", daemon=True))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except FleetError as error:
            self._screen.warn(f"no longer shown: {error.message}")

    def _tail(self, output: str, topic: str, connection: KafkaConnection | MqttConnection) -> Tail | None:
        try:
            if isinstance(connection, MqttConnection):
                from fleetfn_cli import mqtt_tail

                return mqtt_tail.Tail(connection, topic, resolve=_resolve)
            from fleetfn_triggers import kafka_tail

            return kafka_tail.Tail(connection, [topic], resolve=_resolve)
        except FleetError as error:
            self._screen.warn(f"what is emitted to {output} (topic {topic}) is not shown: {error.message}")
            return None

    def _show_log(self, log: Lines[bytes]) -> None:
        for line in log:
            self._line(loglines.text(line, self._screen.paint))

    def _show_emits(self, output: str, tail: Tail) -> None:
        for message in tail:
            self._line(emitted(output, message, self._screen.paint))

    def _line(self, text: str) -> None:
        with self._lock:
            self._screen.line(text)


def emitted(output: str, message: Any, paint: Callable[[str, str], str]) -> str:
    """One line for one event in an output's topic: a Kafka record, or an MQTT message."""
    is_mqtt = hasattr(message, "payload")
    where = f"topic {message.topic}" if is_mqtt else f"key {_text(message.key()) or '-'}"
    data = _text(message.payload if is_mqtt else message.value()).replace("\n", " ")
    shown = data if len(data) <= _SHOWN else data[:_SHOWN] + "…"
    return f"{paint('emitted to ' + output, 'cyan')} {where}: {shown or '(no data)'}"


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "backslashreplace")


def _resolve(reference: Secret) -> str:
    from pathlib import Path

    from fleetfn_spec import secrets

    return secrets.resolve(reference, os.environ, Path.cwd())
