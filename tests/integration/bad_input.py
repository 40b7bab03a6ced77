"""What tests of bad input share: an environment with a real broker, and a node's control API without starting `fn`."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from confluent_kafka import Consumer, TopicPartition
from fleetfn_deploy import places
from fleetfn_deploy.client import NodeClient
from fleetfn_deploy.places import Place
from fleetfn_spec.control import TriggerStatus
from kafka_broker import committed, eventually, fresh_name
from machine import Machine


def environments(folder: Path, address: str) -> None:
    """An environments.yaml with the environment `bench`, whose Kafka is at `address`."""
    connections(folder, f'{{name: kafka, kafka: {{brokers: ["{address}"]}}}}')


def connections(folder: Path, *lines: str) -> None:
    """An environments.yaml with the environment `bench`, and these connections (YAML)."""
    (folder / "environments.yaml").write_text(
        "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n"
        "- name: bench\n  target: {node: {}}\n  connections:\n" + "".join(f"  - {line}\n" for line in lines)
    )


def mqtt_at(address: str, **fields: str) -> str:
    """A connection for `connections`. `fields`: more of it, as YAML; `url` takes the place of the address."""
    named = {"url": f'"mqtt://{address}"', **fields}
    return f"{{name: mqtt, mqtt: {{{', '.join(f'{name}: {value}' for name, value in named.items())}}}}}"


def place(machine: Machine) -> Place:
    with mock.patch.dict(os.environ, {"FN_DATA": str(machine.data)}):
        return places.find("default")


def client(machine: Machine) -> NodeClient:
    return NodeClient(place(machine).socket)


def trigger(machine: Machine, function: str, name: str) -> TriggerStatus:
    return next(each for each in client(machine).function(function).triggers if each.name == name)


def stands(machine: Machine, function: str, name: str) -> None:
    """Wait until its subscription does: a deploy waits some seconds only, and what is published before is lost."""

    def all_is_well() -> bool:
        status = client(machine).function(function)  # a gateway that does not tell is no problem of its triggers
        return not status.problems and all(each.problem == "" for each in status.triggers if each.name == name)

    eventually(all_is_well)


def page(machine: Machine, function: str, *words: str) -> str:
    """What `fn describe` shows once it has all of these: a gateway that is slow to answer is told as one that does not
    tell.
    """
    found = ""

    def told() -> bool:
        nonlocal found
        found = machine.fn("describe", function)
        return all(each in found for each in words)

    eventually(told)
    return found


def states(machine: Machine, function: str) -> dict[str, object]:
    node = client(machine)
    return {key: node.state(function, key).value for key in node.states(function, limit=500).keys}


def ends(address: str, topic: str) -> list[int]:
    """What was written to each partition of the topic: the offset after its last record."""
    reader = Consumer({"bootstrap.servers": address, "group.id": fresh_name()})
    try:
        return [reader.get_watermark_offsets(TopicPartition(topic, number), 60)[1] for number in range(4)]
    finally:
        reader.close()


def taken_to_the_end(machine: Machine, address: str, topic: str, function: str, trigger: str) -> None:
    """Wait until the offset of every one of the topic's records is committed."""
    group = f"bench/{(machine.data / 'id').read_text().strip()}/{function}/{trigger}"
    wanted = ends(address, topic)
    eventually(lambda: [max(0, each) for each in committed(address, group, topic)] == wanted)
