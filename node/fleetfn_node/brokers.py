"""Which brokers a function's triggers and outputs meet: its environment's connections, or the embedded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function, Output, Trigger
from fleetfn_triggers.dapr_connection import DaprConnection
from fleetfn_triggers.kafka import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection

Kind = Literal["kafka", "mqtt"]
KINDS: tuple[Kind, ...] = ("kafka", "mqtt")
"""Kinds that have a broker. A trigger or output that names no connection takes the one named like its kind."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Addresses (host:port) of the embedded brokers; None: it does not run."""

    kafka: str | None = None
    mqtt: str | None = None


def kind_of(user: Trigger | Output) -> Kind | None:
    """None: it needs no broker."""
    return next((kind for kind in KINDS if getattr(user, kind) is not None), None)


def name_of(user: Trigger | Output, kind: Kind) -> str:
    return user.connection or kind


def used(function: Function, kind: Kind) -> list[str]:
    """Names of the connections of this kind that the function uses, each once."""
    users: list[Trigger | Output] = [*function.spec.triggers, *function.spec.outputs]
    return list(dict.fromkeys(name_of(each, kind) for each in users if kind_of(each) == kind))


def is_embedded(name: str, kind: Kind, environment: Environment) -> bool:
    """The environment gives no address: demo and development only."""
    match getattr(environment.connection(name), kind, None):
        case KafkaConnection(brokers=brokers):
            return not brokers
        case MqttConnection():
            return False
        case _:
            return True


def embedded_kinds(function: Function, environment: Environment) -> list[Kind]:
    """Those whose embedded broker the function needs."""
    return [kind for kind in KINDS if any(is_embedded(name, kind, environment) for name in used(function, kind))]


def kafkas(function: Function, environment: Environment, embedded: Embedded) -> dict[str, KafkaConnection]:
    """By name, with addresses; secrets are still references."""
    return {name: kafka(name, environment, embedded) for name in used(function, "kafka")}


def mqtts(function: Function, environment: Environment, embedded: Embedded) -> dict[str, MqttConnection]:
    """Likewise; without those whose embedded broker does not run."""
    found = {name: mqtt(name, environment, embedded) for name in used(function, "mqtt")}
    return {name: connection for name, connection in found.items() if connection is not None}


def daprs(environment: Environment) -> dict[str, DaprConnection]:
    """By name. There is no embedded one: who finds none here asks the sidecar beside the node."""
    return {each.name: each.dapr for each in environment.connections if each.dapr is not None}


def kafka(name: str, environment: Environment, embedded: Embedded) -> KafkaConnection:
    found = environment.connection(name)
    if found is not None and found.kafka is not None and found.kafka.brokers:
        return found.kafka
    given = found.kafka if found is not None and found.kafka is not None else KafkaConnection()
    return msgspec.structs.replace(given, brokers=[embedded.kafka] if embedded.kafka else [])


def mqtt(name: str, environment: Environment, embedded: Embedded) -> MqttConnection | None:
    """None: it would be the embedded broker, which does not run."""
    found = environment.connection(name)
    if found is not None and found.mqtt is not None:
        return found.mqtt
    return MqttConnection(url=f"mqtt://{embedded.mqtt}") if embedded.mqtt else None
