"""Events that kill the process which handles them: after their attempts they are dead letters, others are handled."""

from __future__ import annotations

import http.client
import json

import pytest
from bad_input import client, environments, states, taken_to_the_end
from kafka_broker import create_topic, eventually, fresh_name, produce, read_all
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.kafka]

CODE = """
import ctypes
import os
import signal
import time
from dataclasses import dataclass

from fleetfn import State


@dataclass
class Reading:
    vehicle: str
    celsius: float


def watch(reading: Reading, seen: State[int]) -> dict[str, object]:
    seen.value += 1
    if reading.celsius == 901:
        os._exit(7)
    if reading.celsius == 902:
        os.kill(os.getpid(), signal.SIGKILL)
    if reading.celsius == 903:
        ctypes.string_at(0)
    if reading.celsius == 904:
        time.sleep(3600)
    return {"vehicle": reading.vehicle, "seen": seen.value}
"""

SPEC = """
handler: handler:watch
returns: out
retry: {{attempts: 2, initial: 10ms, max: 20ms}}
timeout: 2s
scale: {{idle: 5s}}
triggers:
- {{name: stream, key: data.vehicle, kafka: {{topic: {topic}}}}}
- {{name: ask, key: data.vehicle, returns: null, http: {{path: /watch}}}}
outputs:
- {{name: out, kafka: {{topic: {out}}}}}
"""


def reading(vehicle: str, celsius: int) -> bytes:
    return json.dumps({"vehicle": vehicle, "celsius": celsius}).encode()


class Deadly:
    """A function that some events kill, with its topics."""

    def __init__(self, machine: Machine, kafka: str) -> None:
        self.machine = machine
        self.kafka = kafka
        self.topic, self.out = fresh_name("deadly"), fresh_name("out")
        for name in (self.topic, self.out):
            create_topic(kafka, name)
        environments(machine.folder, kafka)
        spec = SPEC.format(topic=self.topic, out=self.out)
        machine.fn(
            "deploy", str(write_function(machine.folder / "deadly", CODE, spec, name="deadly")), "--env", "bench"
        )

    def ask(self, vehicle: str, celsius: int) -> tuple[int, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.machine.port, timeout=60)
        try:
            connection.request("POST", "/watch", reading(vehicle, celsius), {"content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read()).get("seen", 0)
        finally:
            connection.close()

    def served(self, vehicle: str, seen: int) -> None:
        """A caller who asks again while the next worker starts is served, and counted once."""

        def good() -> bool:
            try:
                return self.ask(vehicle, 1) == (200, seen)
            except (http.client.RemoteDisconnected, ConnectionError):
                return False

        eventually(good)


@pytest.fixture
def deadly(machine: Machine, kafka: str) -> Deadly:
    return Deadly(machine, kafka)


@pytest.mark.slow
def test_events_that_kill_the_process_become_dead_letters_and_every_other_count_is_exact(deadly: Deadly) -> None:
    machine = deadly.machine
    vehicles = [f"V{number}" for number in range(20)]
    killers = {901: "V3", 902: "V11", 903: "V17"}
    records = []
    for turn in range(30):
        records += [(vehicle, reading(vehicle, turn)) for vehicle in vehicles]
        if turn == 10:
            records += [(vehicle, reading(vehicle, kill)) for kill, vehicle in killers.items()]
    produce(deadly.kafka, deadly.topic, records)

    node = client(machine)
    eventually(lambda: len(node.dead(function="deadly")) >= len(killers), 180)  # of six starts, each later
    eventually(lambda: states(machine, "deadly") == dict.fromkeys(vehicles, 30))
    letters = {json.loads(letter.event.data or b"")["celsius"]: letter for letter in node.dead(function="deadly")}
    assert {celsius: letter.key for celsius, letter in letters.items()} == killers
    for letter in letters.values():
        assert (letter.reason, letter.attempts) == ("crashed", 2)
        assert "2 attempts: in the last one the worker died" in letter.detail

    wanted = {(vehicle, seen) for vehicle in vehicles for seen in range(1, 31)}

    def emitted() -> set[tuple[str, int]]:
        found = [json.loads(message.value()) for message in read_all(deadly.kafka, deadly.out, 10_000, 5)]
        return {(each["vehicle"], each["seen"]) for each in found}

    eventually(lambda: emitted() == wanted)
    taken_to_the_end(machine, deadly.kafka, deadly.topic, "deadly", "stream")
    table = machine.fn("dlq", "list", "--reason", "crashed")
    assert all(vehicle in table for vehicle in killers.values())


@pytest.mark.slow
def test_a_record_that_never_ends_is_a_dead_letter_and_the_others_go_on(deadly: Deadly) -> None:
    """A plain `def` cannot be stopped: its worker is replaced."""
    produce(deadly.kafka, deadly.topic, [("A", reading("A", 1)), ("S", reading("S", 904)), ("B", reading("B", 1))])
    node = client(deadly.machine)
    eventually(lambda: states(deadly.machine, "deadly") == {"A": 1, "B": 1})
    eventually(lambda: node.dead(function="deadly"))
    (letter,) = node.dead(function="deadly")
    assert (letter.key, letter.reason, letter.attempts) == ("S", "crashed", 2)
    assert "the run did not end" in letter.detail
    produce(deadly.kafka, deadly.topic, [("S", reading("S", 1))])
    eventually(lambda: states(deadly.machine, "deadly") == {"A": 1, "B": 1, "S": 1})
    taken_to_the_end(deadly.machine, deadly.kafka, deadly.topic, "deadly", "stream")


def test_a_request_that_kills_the_process_is_not_repeated_and_the_next_ones_are_served(deadly: Deadly) -> None:
    assert deadly.ask("V1", 1) == (200, 1)
    for turn, kill in enumerate((901, 902), 1):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            deadly.ask("V1", kill)
        deadly.served("V2", turn)
    assert deadly.ask("V1", 904)[0] == 504
    deadly.served("V1", 2)
    deadly.served("V2", 3)
    assert client(deadly.machine).dead(function="deadly") == []
    log = (deadly.machine.data / "node.log").read_text()
    assert "exit code 7" in log
    assert "was killed by signal 9" in log
