"""A machine is killed whole (kill -9 of node, gateway, parent, worker at once) at every gap of a message's way from an
MQTT broker to its output; nothing is lost, nothing counts twice, every vehicle's messages stay in order.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from bad_input import stands
from kafka_broker import eventually
from machine import Machine
from mqtt_broker import Mosquitto, fresh_topic
from mqtt_proxy import Direction, Proxy
from mqtt_talk import Publisher, Recorder
from running_node import alive

pytestmark = [pytest.mark.mqtt, pytest.mark.node, pytest.mark.slow]

HERE = Path(__file__).parent / "mqtt_crash"
VEHICLES, ROUNDS = 20, 2

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: chains}}
spec:
  handler: handler:add
  config: {{watch: {watch}}}
  triggers:
  - {{name: in, key: topic.vehicle, event: {{id: data.id}}, mqtt: {{topic: "{topic}/{{vehicle}}/in", qos: 1}}}}
  outputs:
  - {{name: out, mqtt: {{topic: "{topic}/{{key}}/out", qos: 1}}}}
  returns: out
  retry: {{attempts: 50, initial: 100ms, max: 1s}}
  scale: {{idle: {idle}}}
"""

ENVIRONMENT = """
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: local
  target: {{node: {{}}}}
  connections:
  - {{name: mqtt, mqtt: {{url: "mqtt://127.0.0.1:{port}"}}}}
"""

GAPS = {
    "received, not journaled": ("after", "to client", "PUBLISH"),
    "journaled, not acknowledged": ("before", "to broker", "PUBACK"),
    "acknowledged, not delivered": ("after", "to broker", "PUBACK"),
    "delivered, not done": ("before", "handler", "begin"),
    "saved, not published": ("before", "to broker", "PUBLISH"),
    "published, not told": ("after", "to client", "PUBACK"),
}
"""Gap -> what the proxy sees at its beginning: before or after it has passed on a packet."""


class Killer:
    """Kills all of the machine's processes at the armed gap, on the proxy's thread: between two packets."""

    def __init__(self, machine: Machine) -> None:
        self.killed = threading.Event()
        self._machine = machine
        self._armed: tuple[str, str, str] | None = None

    def arm(self, gap: str) -> None:
        self.killed.clear()
        self._armed = GAPS[gap]

    def before(self, direction: Direction, name: str, _packet: bytes) -> bool:
        return not self._kill("before", direction, name)

    def after(self, direction: Direction, name: str, _packet: bytes) -> None:
        self._kill("after", direction, name)

    def _kill(self, when: str, direction: str, name: str) -> bool:
        if self._armed != (when, direction, name):
            return False
        self._armed = None
        node = psutil.Process(json.loads((self._machine.data / "node.json").read_text())["pid"])
        everything = [node, *node.children(recursive=True)]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                process.kill()
        eventually(lambda: not any(alive(each) for each in everything))  # or the next one would find this one
        self.killed.set()
        return True


def test_kills_at_every_gap_lose_nothing_and_count_nothing_twice(machine: Machine, mosquitto: Mosquitto) -> None:
    killer = Killer(machine)
    proxy = Proxy(mosquitto.address, killer.before, killer.after)
    topic = fresh_topic("kills")
    folder = write_function(machine.folder, proxy, topic)
    machine.fn("up")
    machine.fn("deploy", str(folder))
    stands(machine, "chains", "in")
    expected: dict[str, list[str]] = defaultdict(list)
    with (
        Recorder(mosquitto.address, f"{topic}/+/out", machine.folder / "out.jsonl") as out,
        Publisher(mosquitto.address) as pen,
    ):

        def publish(each: int) -> None:
            for _ in range(each):
                for number in range(VEHICLES):
                    vehicle = f"V{number:02}"
                    id_ = f"{vehicle}/{len(expected[vehicle])}"
                    expected[vehicle].append(id_)
                    pen.publish(f"{topic}/{vehicle}/in", {"vehicle": vehicle, "id": id_})

        for gap in [*GAPS] * ROUNDS:
            killer.arm(gap)
            publish(2)
            assert killer.killed.wait(120), f"nothing was seen at the gap: {gap}"
            publish(1)  # while nobody is there
            machine.fn("up")
        publish(2)
        everything = {id_ for ids in expected.values() for id_ in ids}
        eventually(lambda: out.seen() >= everything, 120)
    assert machine.json("dlq", "list") == []
    machine.fn("down")
    proxy.close()
    verdict = check(machine, expected)
    assert verdict["wrong"] == []
    assert verdict["emits"] >= len(everything)


def write_function(base: Path, proxy: Proxy, topic: str, *, idle: str = "3s") -> Path:
    folder = base / "chains"
    folder.mkdir()
    shutil.copy(HERE / "handler.py", folder)
    (folder / "function.yaml").write_text(FUNCTION.format(watch=proxy.watch, topic=topic, idle=idle))
    (base / "environments.yaml").write_text(ENVIRONMENT.format(port=proxy.port))
    return folder


def check(machine: Machine, expected: dict[str, list[str]]) -> dict[str, list[str] | int]:
    truth = machine.folder / "expected.json"
    truth.write_text(json.dumps(expected))
    state = machine.data / "functions" / "chains" / "state.db"
    command = [sys.executable, str(HERE / "checker.py"), str(state), str(machine.folder / "out.jsonl"), str(truth)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))
