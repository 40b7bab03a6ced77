"""Brokers that are not there: at deploy, at the node's start, in the middle of a stream. Nothing is lost or used up."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from bad_input import client, ends, environments, states, taken_to_the_end
from kafka_broker import Broker, create_topic, eventually, fresh_name, produce, read_all
from machine import Machine
from running_node import free_port, write_function

pytestmark = [pytest.mark.node, pytest.mark.kafka]

CODE = """
from fleetfn import State


def count(n: int, total: State[int]) -> dict[str, int]:
    total.value += n
    return {"total": total.value}


def show(vehicle: str, total: State[int]) -> int:
    return total.value
"""

SPEC = """
handler: handler:count
returns: out
retry: {{attempts: 2, initial: 10ms, max: 20ms}}
scale: {{idle: {idle}}}
triggers:
- {{name: stream, kafka: {{topic: {topic}}}}}
outputs:
- {{name: out, kafka: {{topic: {out}}}}}
"""
VEHICLES = [f"V{number}" for number in range(8)]


def counter(folder: Path, topic: str, out: str, idle: str = "60s") -> str:
    spec = SPEC.format(topic=topic, out=out, idle=idle)
    return str(write_function(folder / "counter", CODE, spec, name="counter"))


def write(address: str, topic: str, each: int) -> None:
    produce(address, topic, [(vehicle, b"1") for _ in range(each) for vehicle in VEHICLES])


def told(machine: Machine, *words: str) -> bool:
    page = machine.fn("describe", "counter")
    return all(word in page for word in words)


def counted(machine: Machine, each: int) -> bool:
    return states(machine, "counter") == dict.fromkeys(VEHICLES, each)


def test_a_deploy_without_its_broker_says_which_and_changes_nothing(machine: Machine) -> None:
    address = f"127.0.0.1:{free_port()}"
    environments(machine.folder, address)
    folder = counter(machine.folder, "readings", "alerts")
    done = machine.run("deploy", folder, "--env", "bench")
    assert done.returncode == 1
    assert address in done.stderr
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert machine.json("list") == []


def test_a_deploy_whose_topics_are_missing_names_them(machine: Machine, kafka: str) -> None:
    environments(machine.folder, kafka)
    topic, out = fresh_name("in"), fresh_name("out")
    folder = counter(machine.folder, topic, out)
    done = machine.run("deploy", folder, "--env", "bench")
    assert done.returncode == 1
    assert topic in done.stderr
    assert "Hint: " in done.stderr
    assert machine.json("list") == []


def test_records_wait_for_an_output_whose_topic_is_missing_and_describe_names_it(machine: Machine, kafka: str) -> None:
    """Some brokers make topics when they are written to, so only a run can tell."""
    environments(machine.folder, kafka)
    topic, out = fresh_name("in"), fresh_name("out")
    create_topic(kafka, topic)
    machine.fn("deploy", counter(machine.folder, topic, out), "--env", "bench")
    node = client(machine)
    write(kafka, topic, 2)
    eventually(lambda: told(machine, out, "does not exist"))
    create_topic(kafka, out)
    eventually(lambda: counted(machine, 2))
    taken_to_the_end(machine, kafka, topic, "counter", "stream")
    assert len(read_all(kafka, out, 16)) == 16
    assert node.dead(function="counter") == []
    assert node.function("counter").counters.retried == 0


@pytest.mark.slow
def test_a_broker_that_goes_and_comes_back_in_a_stream_costs_no_record_and_no_attempt(
    machine: Machine, own_broker: Broker
) -> None:
    topic, out = fresh_name("in"), fresh_name("out")
    for name in (topic, out):
        create_topic(own_broker.address, name)
    environments(machine.folder, own_broker.address)
    machine.fn("deploy", counter(machine.folder, topic, out), "--env", "bench")
    node = client(machine)
    write(own_broker.address, topic, 50)
    eventually(lambda: any(states(machine, "counter").values()))

    own_broker.stop()
    eventually(lambda: node.function("counter").triggers[0].problem)
    eventually(lambda: told(machine, own_broker.address))
    own_broker.start()
    write(own_broker.address, topic, 50)
    eventually(lambda: counted(machine, 100), 120)
    eventually(lambda: not node.function("counter").triggers[0].problem)

    assert node.dead(function="counter") == []
    assert node.function("counter").counters.retried == 0
    taken_to_the_end(machine, own_broker.address, topic, "counter", "stream")  # what it gave is published before
    written = sum(ends(own_broker.address, out))
    totals = sorted({json.loads(each.value())["total"] for each in read_all(own_broker.address, out, written)})
    assert totals == list(range(1, 101))


@pytest.mark.slow
def test_a_node_whose_broker_went_away_is_down_in_seconds_and_handles_the_rest_later(
    machine: Machine, own_broker: Broker
) -> None:
    topic, out = fresh_name("in"), fresh_name("out")
    for name in (topic, out):
        create_topic(own_broker.address, name)
    environments(machine.folder, own_broker.address)
    machine.fn("deploy", counter(machine.folder, topic, out), "--env", "bench")
    write(own_broker.address, topic, 200)
    eventually(lambda: any(states(machine, "counter").values()))
    own_broker.stop()  # before what was handled is committed
    eventually(lambda: client(machine).function("counter").triggers[0].problem)
    began = time.monotonic()
    machine.fn("down")
    assert time.monotonic() - began < 30
    own_broker.start()
    machine.fn("up")
    eventually(lambda: counted(machine, 200), 120)
    assert client(machine).dead(function="counter") == []


@pytest.mark.slow
def test_a_node_that_starts_while_its_broker_is_down_takes_what_comes_once_it_is_back(
    machine: Machine, own_broker: Broker
) -> None:
    topic, out = fresh_name("in"), fresh_name("out")
    for name in (topic, out):
        create_topic(own_broker.address, name)
    environments(machine.folder, own_broker.address)
    machine.fn("deploy", counter(machine.folder, topic, out, idle="1s"), "--env", "bench")
    write(own_broker.address, topic, 1)
    eventually(lambda: counted(machine, 1))
    machine.fn("down")
    write(own_broker.address, topic, 1)

    own_broker.stop()
    machine.fn("up")
    node = client(machine)
    eventually(lambda: node.function("counter").triggers[0].problem)
    eventually(lambda: told(machine, own_broker.address))
    own_broker.start()
    eventually(lambda: counted(machine, 2), 120)
    machine.asleep()
    write(own_broker.address, topic, 1)
    eventually(lambda: counted(machine, 3))
    eventually(lambda: not node.function("counter").triggers[0].problem)
    assert node.dead(function="counter") == []
