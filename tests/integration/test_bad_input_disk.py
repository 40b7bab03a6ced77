"""A full disk: events wait, HTTP callers are told to come again, and all goes on once there is space."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input import client, environments, states
from kafka_broker import create_topic, eventually, fresh_name, produce
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.slow]

CODE = """
from fleetfn import State


def count(n: int, total: State[list[str]]) -> int:
    total.value.append("x" * 2000)
    return len(total.value)
"""

SPEC = """
handler: handler:count
retry: {{attempts: 2, initial: 10ms, max: 20ms}}
scale: {{idle: 60s}}
triggers:
- {{name: stream, kafka: {{topic: {topic}}}}}
- {{name: ask, key: path.vehicle, http: {{path: "/count/{{vehicle}}"}}}}
"""


@pytest.fixture
def small(machine: Machine) -> Iterator[Machine]:
    """A machine whose data folder is a file system of 16 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    machine.data.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", machine.data], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        text = f"a small file system cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    try:
        yield machine
    finally:
        (machine.data / "filler").unlink(missing_ok=True)
        machine.run("down")
        subprocess.run(["umount", "-l", machine.data], check=True)


def test_a_full_disk_loses_no_event_and_no_attempt(small: Machine, kafka: str) -> None:
    topic = fresh_name("full")
    create_topic(kafka, topic)
    environments(small.folder, kafka)
    folder = write_function(small.folder / "counter", CODE, SPEC.format(topic=topic), name="counter")
    small.fn("deploy", str(folder), "--env", "bench")
    node = client(small)
    produce(kafka, topic, [("V1", b"1")])
    eventually(lambda: lengths(small) == {"V1": 1})

    fill(small.data / "filler")
    vehicles = [f"V{number}" for number in range(10)]
    produce(kafka, topic, [(vehicle, b"1") for _ in range(20) for vehicle in vehicles])
    eventually(lambda: node.function("counter").triggers[0].problem)
    eventually(lambda: is_told(small))
    replies = [ask(small, f"W{number}") for number in range(3)]
    eventually(lambda: ask(small, "W9")[0] == 503)
    assert all(status in {200, 503} for status, _ in replies), replies

    (small.data / "filler").unlink()
    eventually(lambda: node.function("counter").triggers[0].problem == "", 60)
    wanted = dict.fromkeys(vehicles, 20) | {"V1": 21}
    eventually(lambda: {key: length for key, length in lengths(small).items() if key in wanted} == wanted)
    eventually(lambda: ask(small, "X")[0] == 200)
    assert node.dead(function="counter") == []
    assert node.function("counter").counters.retried == 0


def lengths(machine: Machine) -> dict[str, int]:
    return {key: len(value) for key, value in states(machine, "counter").items() if isinstance(value, list)}


def is_told(machine: Machine) -> bool:
    page = machine.fn("describe", "counter")
    return "disk" in page or "space" in page


def fill(path: Path) -> None:
    """Leave not a byte."""
    with path.open("wb", buffering=0) as filler:
        size = 1 << 16
        while size:
            try:
                filler.write(b"\0" * min(size, shutil.disk_usage(path.parent).free or size))
            except OSError:
                size //= 2


def ask(machine: Machine, vehicle: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=60)
    try:
        connection.request("POST", f"/count/{vehicle}", b"1")
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()
