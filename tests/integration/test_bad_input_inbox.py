"""An inbox that is full, damaged, gone, or without its gateway: sources wait, nothing is lost, people are told."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from bad_input import client, connections, mqtt_at, page, stands, states, trigger
from kafka_broker import create_topic, eventually, fresh_name, produce
from machine import Machine
from mqtt_broker import Mosquitto, Sent, fresh_topic, publish
from running_node import write_function
from test_bad_input_disk import fill

pytestmark = [pytest.mark.node, pytest.mark.mqtt, pytest.mark.kafka]

CODE = """
from dataclasses import dataclass
from pathlib import Path

from fleetfn import Config, Reject, Retry, State


@dataclass
class Limits:
    mended: str


@dataclass
class Number:
    n: int
    fill: str = ""


def count(number: Number, seen: State[list[int]], limits: Config[Limits]) -> list[int]:
    if number.n < 0 and not Path(limits.mended).exists():
        raise Reject(f"{number.n} is negative")
    if number.n >= 1000 and not Path(limits.mended).exists():
        raise Retry(after="3s")
    seen.value.append(number.n)
    return seen.value
"""

SPEC = """
handler: handler:count
config: {{mended: "{mended}"}}
retry: {{attempts: 100, initial: 10ms, max: 20ms}}
scale: {{idle: 60s}}
triggers:
- {{name: live, key: topic.vehicle, mqtt: {{topic: "{mqtt}/{{vehicle}}"}}}}
- {{name: stream, kafka: {{topic: {kafka}}}}}
- {{name: ask, key: path.vehicle, http: {{path: "/count/{{vehicle}}"}}}}
"""

ASYNC = {"prefer": "respond-async", "content-type": "application/json"}


def number(n: int, size: int = 0) -> bytes:
    return json.dumps({"n": n, "fill": "x" * size}).encode()


class Counter:
    """A function that is fed from all sides: what each vehicle had, in order, is its state."""

    def __init__(self, machine: Machine, mosquitto: Mosquitto, kafka: str) -> None:
        self.machine = machine
        self.mosquitto = mosquitto
        self.kafka = kafka
        self.topic = fresh_topic("inbox")
        self.stream = fresh_name("inbox")
        self.mended = machine.folder / "mended"

    def deploy(self) -> None:
        create_topic(self.kafka, self.stream)
        connections(
            self.machine.folder,
            mqtt_at(self.mosquitto.address),
            f'{{name: kafka, kafka: {{brokers: ["{self.kafka}"]}}}}',
        )
        spec = SPEC.format(mended=self.mended, mqtt=self.topic, kafka=self.stream)
        folder = write_function(self.machine.folder / "counter", CODE, spec, name="counter")
        self.machine.fn("deploy", str(folder), "--env", "bench")
        stands(self.machine, "counter", "live")

    def publish(self, vehicle: str, *payloads: bytes) -> None:
        publish(self.mosquitto.address, [Sent(f"{self.topic}/{vehicle}", payload) for payload in payloads])

    def produce(self, vehicle: str, *payloads: bytes) -> None:
        produce(self.kafka, self.stream, [(vehicle, payload) for payload in payloads])

    def ask(self, vehicle: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.machine.port, timeout=60)
        try:
            connection.request("POST", f"/count/{vehicle}", body, {"content-type": "application/json", **headers})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, json.loads(reply.read())
        finally:
            connection.close()

    def ask_later(self, vehicle: str, n: int) -> int:
        """However often it is asked, it is one event: what is answered with 503 may have been kept all the same."""
        return self.ask(vehicle, number(n), **ASYNC, **{"idempotency-key": f"{vehicle}-{n}"})[0]

    def seen(self, vehicle: str) -> Any:
        return states(self.machine, "counter").get(vehicle, [])

    def trigger(self, name: str) -> Any:
        return trigger(self.machine, "counter", name)

    def gateway(self) -> psutil.Process:
        (found,) = self.gateways()
        return found

    def gateways(self) -> list[psutil.Process]:
        """None while the next one is not there yet."""
        return self.machine._below("fleetfn_gateway")

    @property
    def inbox(self) -> Path:
        return self.machine.data / "gateway" / "inbox.db"

    def end(self) -> None:
        """No session stays at the broker."""
        if self.machine.run("delete", "counter", "--yes").returncode == 0:
            self.machine.run("down")


@pytest.fixture
def counter(machine: Machine, mosquitto: Mosquitto, kafka: str) -> Iterator[Counter]:
    counter = Counter(machine, mosquitto, kafka)
    yield counter
    counter.end()


def test_over_its_quota_sources_wait_callers_come_again_and_all_goes_on_after_a_discard(counter: Counter) -> None:
    machine = counter.machine
    machine.fn("up", "--quota", "400kB")
    counter.deploy()
    node = client(machine)
    rejected = [number(-1, 40_000)] * 12
    counter.publish("bad", *rejected)
    page(machine, "counter", "over its quota of 0.4 MiB", "discard dead letters, or raise the quota")
    eventually(lambda: "quota" in machine.run("list").stderr + machine.fn("list"))

    counter.publish("V1", *(number(n, 1_000) for n in range(50)))
    eventually(lambda: "nothing is taken from the broker" in counter.trigger("live").problem)
    status, headers, problem = counter.ask("W1", number(1), **ASYNC)
    assert (status, headers["retry-after"]) == (503, "5")
    assert "cannot be kept now" in json.dumps(problem)
    assert counter.ask("W1", number(7))[0] == 200
    counter.produce("K1", number(1000), number(1), number(2))
    counter.produce("K2", number(3))
    eventually(lambda: counter.seen("K2") == [3])
    assert counter.seen("K1") == []
    assert node.dead(function="counter", key="K1") == []

    counter.mended.touch()
    machine.fn("dlq", "discard", "--all", "--yes")
    eventually(lambda: counter.seen("V1") == list(range(50)))
    eventually(lambda: not node.function("counter").problems)
    eventually(lambda: counter.trigger("live").problem == "")
    eventually(lambda: counter.ask_later("W1", 8) == 202)
    eventually(lambda: counter.seen("W1") == [7, 8])
    eventually(lambda: counter.seen("K1") == [1000, 1, 2])
    # the rest of the rejected ones came while there was room
    eventually(lambda: counter.trigger("live").waiting == 0)
    assert len(node.dead(function="counter")) + len(counter.seen("bad")) <= len(rejected)


def test_a_bad_quota_is_refused_before_anything_starts(machine: Machine) -> None:
    for quota in ("much", "-1", "0", "1.5.2GB"):
        done = machine.run("up", "--quota", quota)
        assert done.returncode == 2, quota
        assert "--quota" in done.stderr
        assert quota in done.stderr
        assert "Traceback" not in done.stderr
    assert machine.run("list").returncode == 1


@pytest.fixture
def small(counter: Counter) -> Iterator[Counter]:
    """The gateway's folder is a file system of 80 MB, of which 64 are to stay free."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = counter.machine.data / "gateway"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        text = f"a small file system cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    try:
        yield counter
    finally:
        (folder / "filler").unlink(missing_ok=True)
        counter.end()
        counter.machine.run("down")
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_under_the_inbox_loses_nothing_and_is_named(small: Counter) -> None:
    machine = small.machine
    small.deploy()
    small.publish("V1", number(0))
    eventually(lambda: small.seen("V1") == [0])
    filler = machine.data / "gateway" / "filler"
    fill(filler)
    small.publish("V1", number(1), number(2))
    eventually(lambda: "nothing is taken from the broker" in small.trigger("live").problem)
    page(machine, "counter", "free some space on the disk")
    assert small.ask("W1", number(1), **ASYNC)[0] == 503
    assert small.ask("W1", number(1))[0] == 200
    small.produce("K1", number(5))
    eventually(lambda: small.seen("K1") == [5])
    small.produce("K1", number(-1), number(6))  # cannot be buried now: its lane waits
    machine.fn("down")
    machine.fn("up")
    assert small.ask("W1", number(2))[0] == 200
    filler.unlink()
    eventually(lambda: small.seen("V1") == [0, 1, 2], 60)
    eventually(lambda: small.seen("K1") == [5, 6], 60)
    eventually(lambda: [each.key for each in client(machine).dead(function="counter")] == ["K1"])
    eventually(lambda: small.trigger("live").problem == "")


def test_a_damaged_inbox_is_named_http_is_served_and_what_brokers_keep_comes_once_it_is_moved_away(
    counter: Counter,
) -> None:
    machine = counter.machine
    counter.deploy()
    counter.publish("V1", number(1))
    eventually(lambda: counter.seen("V1") == [1])
    machine.fn("down")
    counter.inbox.write_bytes(b"SQLite format 3\x00" + b"\xff" * 20_000)
    for each in counter.inbox.parent.glob("inbox.db-*"):
        each.unlink()
    counter.publish("V1", number(2))
    up = machine.run("up")
    assert up.returncode == 0, up.stderr
    assert counter.ask("W1", number(1))[0] == 200
    described = machine.fn("describe", "counter")
    for said in (up.stderr, described, machine.run("list").stderr, machine.run("dlq", "list").stderr):
        assert str(counter.inbox) in said, said
        assert "the file is damaged: move it away or put it back from a backup" in said
    assert counter.ask("W1", number(1), **ASYNC)[0] == 503
    counter.inbox.rename(counter.inbox.with_name("damaged.db"))
    eventually(lambda: counter.seen("V1") == [1, 2], 60)
    eventually(lambda: counter.ask_later("W1", 2) == 202)
    eventually(lambda: counter.seen("W1") == [1, 2])
    eventually(lambda: not client(machine).function("counter").problems)


def test_an_inbox_that_is_removed_while_in_use_takes_nothing_more_and_says_so(counter: Counter) -> None:
    machine = counter.machine
    counter.deploy()
    counter.publish("V1", number(1))
    eventually(lambda: counter.seen("V1") == [1])
    for each in counter.inbox.parent.glob("inbox.db*"):
        each.unlink()
    counter.publish("V1", number(2))
    eventually(lambda: "was removed" in counter.trigger("live").problem)
    page(machine, "counter", "accept the loss, then restart the node")
    status, headers, _ = counter.ask("W1", number(1), **ASYNC)
    assert (status, headers["retry-after"]) == (503, "5")
    assert counter.ask("W1", number(1))[0] == 200
    machine.fn("down")
    machine.fn("up")
    eventually(lambda: counter.seen("V1") == [1, 2], 60)
    eventually(lambda: counter.trigger("live").problem == "")


@pytest.mark.slow
def test_a_gateway_that_is_killed_again_and_again_under_traffic_leaves_an_exact_state(counter: Counter) -> None:
    counter.deploy()
    vehicles = [f"V{n}" for n in range(5)]
    accepted: dict[str, list[int]] = {f"W{n}": [] for n in range(5)}
    asked: dict[str, set[int]] = {vehicle: set() for vehicle in accepted}
    count = 0
    for _ in range(4):
        victim = counter.gateway()
        batch = [number(count + n) for n in range(20)]
        for vehicle in vehicles:
            counter.publish(vehicle, *batch)
            counter.produce(f"K{vehicle}", *batch)
        victim.kill()
        for vehicle, taken in accepted.items():
            for n in range(3):
                asked[vehicle].add(count + n)
                if counter.ask_later(vehicle, count + n) == 202:
                    taken.append(count + n)
        count += 20
        eventually(lambda victim=victim: counter.gateways() not in ([], [victim]))
        eventually(lambda: client(counter.machine).node().gateway == "")
    wanted = {name: list(range(count)) for each in vehicles for name in (each, f"K{each}")}
    asked["W0"].add(count)
    eventually(lambda: counter.ask_later("W0", count) == 202)
    accepted["W0"].append(count)

    def exact() -> bool:
        """All that was accepted, in order, once; of the rest, what the gateway kept though its answer came too late."""
        found: dict[str, Any] = states(counter.machine, "counter")
        had = {vehicle: found.pop(vehicle, []) for vehicle in accepted}
        return found == wanted and all(
            [n for n in had[vehicle] if n in taken] == taken
            and len(had[vehicle]) == len(set(had[vehicle]) & asked[vehicle])
            for vehicle, taken in accepted.items()
        )

    eventually(exact)
    assert client(counter.machine).dead(function="counter") == []


def test_a_second_node_and_a_second_gateway_on_one_data_folder_are_refused(counter: Counter, tmp_path: Path) -> None:
    machine = counter.machine
    counter.deploy()
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    node = [sys.executable, "-m", "fleetfn_node", "--data", machine.data, "--run", run, "--port", "0"]
    gateway = [sys.executable, "-m", "fleetfn_gateway", "--data", machine.data / "gateway", "--socket", run / "g.sock"]
    for command in (node, gateway):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
        assert str(machine.data) in done.stderr, done.stderr
        assert "Hint: " in done.stderr
        assert "Traceback" not in done.stderr
    counter.publish("V1", number(1))
    eventually(lambda: counter.seen("V1") == [1])
