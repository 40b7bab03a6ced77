"""What an image meets where it is run by hand: an environment's connections, as files and variables of a container.

Secrets travel as references: what they name goes with them, variables as variables and files as files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec
from fleetfn.errors import UsageError
from fleetfn_spec import secrets
from fleetfn_spec.anchoring import FILES
from fleetfn_spec.environments import Connection, Environment
from fleetfn_spec.function import Function
from fleetfn_triggers.dapr_connection import DaprConnection
from fleetfn_triggers.kafka import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret

_SCHEMES = ("mqtt://", "mqtts://")


@dataclass(frozen=True, slots=True)
class Met:
    environment: str
    files: Mapping[str, bytes] = field(repr=False)
    """By name; `environments.yaml` is one."""
    variables: Mapping[str, str] = field(repr=False)


def meet(
    environment: Environment,
    folder: PurePosixPath,
    *,
    given: Mapping[str, str],
    function: Function | None = None,
) -> Met:
    """`folder`: where the files will lie. `given`: variables; those that references name are taken from fn's own
    environment where they are missing. `function`: of which config is known, if it is.
    """
    files: dict[str, bytes] = {}
    connections = [_movable(each, folder, files) for each in environment.connections]
    config = function.spec.config if function is not None else {}
    named = {reference.env for _, reference in secrets.in_struct(environment)}
    named |= {reference.env for _, reference in secrets.references(config)}
    found = {name: os.environ[name] for name in named if name is not None and name in os.environ}
    told = {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Environments",
        "environments": [{"name": environment.name, "connections": [_plain(each) for each in connections]}],
    }
    files["environments.yaml"] = msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    return Met(environment.name, files, {**found, **given})


def variables(path: Path | None) -> dict[str, str]:
    """Of an env file. Raises SecretError, UsageError."""
    if path is None:
        return {}
    try:
        return secrets.parse_env_file(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"the env file {path} cannot be read: {error.strerror}") from error


def with_addresses(environment: Environment, given: Iterable[str]) -> Environment:
    """`NAME=host:port[,host:port]`, `NAME=mqtt://host:port` or, of Dapr, `NAME=http://host:port`: instead of the
    address it has. Raises UsageError.
    """
    connections = {each.name: each for each in environment.connections}
    for each in given:
        name, equals, address = each.partition("=")
        if not (name and equals and address):
            raise UsageError(
                f"{each!r} is no connection", hint="--connection kafka=broker:9092 and mqtt=mqtt://broker:1883 are."
            )
        connections[name] = _at(name, address, connections.get(name))
    return msgspec.structs.replace(environment, connections=list(connections.values()))


def at_loopback(environment: Environment) -> list[tuple[str, str]]:
    """(connection, address) of those that name this machine's loopback, which a container's is not."""
    return [
        (each.name, address)
        for each in environment.connections
        for address in _addresses(each)
        if _is_loopback(urlsplit(address if "://" in address else f"//{address}").hostname or "")
    ]


def _at(name: str, address: str, known: Connection | None) -> Connection:
    """Raises UsageError for an address that no connection of its kind can have."""
    if (known is not None and known.dapr is not None) or (known is None and address.startswith("http://")):
        before = msgspec.to_builtins(known.dapr) if known is not None else {}
        return Connection(name=name, dapr=_read({**before, "url": address}, DaprConnection, name, address))
    is_mqtt = known.mqtt is not None if known is not None else address.startswith(_SCHEMES) or name == "mqtt"
    fields: dict[str, Any] = {"name": name}
    if is_mqtt:
        url = address if address.startswith(_SCHEMES) else f"mqtt://{address}"
        before = msgspec.to_builtins(known.mqtt) if known is not None else {}
        fields["mqtt"] = _read({**before, "url": url}, MqttConnection, name, address)
    else:
        before = msgspec.to_builtins(known.kafka) if known is not None else {}
        fields["kafka"] = _read({**before, "brokers": address.split(",")}, KafkaConnection, name, address)
    return Connection(**fields)


def _read(value: dict[str, Any], type_: type[Any], name: str, address: str) -> Any:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name} cannot be at {address!r}: {error}",
            hint="Write host:port, or mqtt://host:port for MQTT, http://host:port for Dapr.",
        ) from error


def _addresses(connection: Connection) -> list[str]:
    if connection.kafka is not None:
        return connection.kafka.brokers
    url = connection.mqtt.url if connection.mqtt is not None else connection.dapr and connection.dapr.url
    return [url] if url else []


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _movable(connection: Connection, folder: PurePosixPath, files: dict[str, bytes]) -> Connection:
    """With the files that it names in `files`, and named by where they will lie. Those that cannot be read stay: who
    needs them says so.
    """

    def moved(value: Any, name: str = "") -> Any:
        if isinstance(value, Secret):
            return Secret(file=take(value.file)) if value.file is not None else value
        if isinstance(value, msgspec.Struct):
            of = {each: moved(getattr(value, each), each) for each in value.__struct_fields__}
            return msgspec.structs.replace(value, **of)
        return take(value) if name in FILES and isinstance(value, str) else value

    def take(path: str) -> str:
        try:
            content = Path(path).read_bytes()
        except OSError:
            return path
        name = f"{len(files)}-{Path(path).name}"
        files[name] = content
        return str(folder / name)

    return moved(connection)  # type: ignore[no-any-return]  # it is what came in


def _plain(value: Any) -> Any:
    """As it stands in YAML: what is as it would be anyway is left out."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {
            each.encode_name: _plain(given) for each in fields if (given := getattr(value, each.name)) != _usual(each)
        }
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return {name: _plain(each) for name, each in value.items()} if isinstance(value, dict) else value


def _usual(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
