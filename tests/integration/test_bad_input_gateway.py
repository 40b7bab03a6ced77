"""A gateway that is asked nonsense, started wrongly, that hangs, or is away while people and workers need it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from bad_input import client, connections, place, states, trigger
from kafka_broker import create_topic, eventually, fresh_name, produce
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.kafka]

CODE = """
from dataclasses import dataclass

from fleetfn import Context, Reject, Retry, State


def count(n: int, seen: State[list[int]], ctx: Context) -> list[int]:
    if n < 0:
        raise Reject(f"{n} is negative")
    if n >= 1000 and ctx.attempt == 1:
        raise Retry(after="3s")
    seen.value.append(n)
    return seen.value
"""

SPEC = """
handler: handler:count
scale: {{idle: 60s}}
triggers:
- {{name: stream, kafka: {{topic: {topic}}}}}
- {{name: ask, key: path.vehicle, http: {{path: "/{name}/{{vehicle}}"}}}}
"""


class Node:
    def __init__(self, machine: Machine, kafka: str) -> None:
        self.machine = machine
        self.kafka = kafka
        connections(machine.folder, f'{{name: kafka, kafka: {{brokers: ["{kafka}"]}}}}')

    def deploy(self, name: str) -> str:
        """Its topic."""
        topic = fresh_name(name)
        create_topic(self.kafka, topic)
        folder = write_function(self.machine.folder / name, CODE, SPEC.format(topic=topic, name=name), name=name)
        self.machine.fn("deploy", str(folder), "--env", "bench")
        return topic

    def produce(self, topic: str, vehicle: str, *numbers: int) -> None:
        produce(self.kafka, topic, [(vehicle, str(n).encode()) for n in numbers])

    def seen(self, name: str, vehicle: str) -> Any:
        return states(self.machine, name).get(vehicle, [])

    @property
    def socket(self) -> Path:
        return place(self.machine).socket.with_name("gateway.sock")

    def gateway(self) -> psutil.Process:
        (found,) = self.machine._below("fleetfn_gateway")
        return found

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """The gateway says nothing meanwhile."""
        process = self.gateway()
        process.suspend()
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, kafka: str) -> Iterator[Node]:
    machine = Machine(tmp_path_factory.mktemp("gateway"))
    machine.fn("up")
    yield Node(machine, kafka)
    machine.run("down")


def ask(path: Path, method: str, target: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, Any]:
    head = f"{method} {target} HTTP/1.1\r\nhost: g\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    answer = raw(path, head.encode() + b"connection: close\r\n\r\n" + body)
    line, _, rest = answer.partition(b"\r\n")
    said = rest.partition(b"\r\n\r\n")[2]
    return int(line.split()[1]), json.loads(said) if said[:1] in (b"{", b"[") else said


def raw(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(30)
        wire.connect(str(path))
        with contextlib.suppress(OSError):  # it may have answered before it has read all
            wire.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while block := wire.recv(65536):
                answer += block
        return answer


PACK = "application/msgpack"
NONSENSE = {
    "no path": ("GET", "/v1/nothing", b"", 404),
    "no method": ("PATCH", "/v1/dlq", b"", 404),
    "put of no msgpack": ("POST", "/v1/put", b"\xff\xff\xff", 400),
    "put of something else": ("POST", "/v1/put", msgspec.msgpack.encode([{"a": 1}]), 400),
    "put of JSON": ("POST", "/v1/put", b"[]", 400),
    "offer without position": ("POST", "/v1/offer", msgspec.msgpack.encode([{"function": "f"}]), 400),
    "a function cut short": ("PUT", "/v1/functions/f", b'{"function": {', 400),
    "functions that are none": ("PUT", "/v1/functions", b"[1]", 400),
    "fire of nobody": ("POST", "/v1/functions/nobody/fire", b'{"trigger": "t"}', 404),
    "fire without trigger": ("POST", "/v1/functions/nobody/fire", b"{}", 400),
    "a row that is no number": ("GET", "/v1/dlq/first", b"", 404),
    "a row that is not there": ("GET", "/v1/dlq/999999999999999999999999", b"", 404),
    "a limit that is none": ("GET", "/v1/dlq?limit=many", b"", 400),
    "a time that is none": ("GET", "/v1/dlq?before=nan", b"", 400),
    "redrive of nothing said": ("POST", "/v1/dlq/redrive", b"{}", 400),
    "redrive at no rate": ("POST", "/v1/dlq/redrive", b'{"which": {}, "rate": -1}', 400),
    "discard of JSON that never ends": ("POST", "/v1/dlq/discard", b"[" * 100_000, 400),
    "rows that are neither": ("DELETE", "/v1/functions/nobody?rows=burn", b"", 400),
}


@pytest.mark.parametrize(("method", "target", "body", "status"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_in_words_and_the_gateway_goes_on(
    node: Node, method: str, target: str, body: bytes, status: int
) -> None:
    before = node.gateway().pid
    found, said = ask(node.socket, method, target, body, PACK if "put" in target or "offer" in target else "")
    assert found == status, said
    assert said["message"]
    assert "Traceback" not in json.dumps(said)
    assert ask(node.socket, "GET", "/healthz")[0] == 200
    assert node.gateway().pid == before


def test_what_is_no_http_is_hung_up_on(node: Node) -> None:
    for request in (b"\x00\xff\x16\x03\x01" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        assert b" 200 " not in raw(node.socket, request).partition(b"\r\n")[0]
    for request in (b"POST /v1/put HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\nshort",):
        with socket.socket(socket.AF_UNIX) as wire:  # a caller that dies in the middle
            wire.connect(str(node.socket))
            wire.sendall(request)
    assert ask(node.socket, "GET", "/healthz")[0] == 200


def test_the_gateways_socket_is_its_users_alone(node: Node) -> None:
    assert node.socket.stat().st_mode & 0o077 == 0 or node.socket.parent.stat().st_mode & 0o077 == 0
    folder = node.machine.data / "gateway"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(each.stat().st_mode & 0o077 == 0 for each in folder.glob("inbox.db*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"--quota": "lots"}, "'lots' is no number of bytes"),
        ({"--dead-letters": "soon"}, "soon"),
        ({"--data": "{file}/below"}, "{file}"),
        ({"--socket": "{folder}/" + "s" * 120}, "at most 108 bytes"),
        ({"--socket": "{folder}/nowhere/g.sock"}, "nowhere"),
    ],
    ids=["quota", "retention", "a file for a folder", "too long a path", "no such folder"],
)
def test_a_gateway_that_is_started_wrongly_says_what_is_wrong(
    tmp_path: Path, arguments: dict[str, str], said: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        given = {"--data": str(tmp_path / "data"), "--socket": f"{folder}/g.sock"} | arguments
        words = [part.format(file=file, folder=folder) for pair in given.items() for part in pair]
        command = [sys.executable, "-m", "fleetfn_gateway", *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode in (1, 2)
    assert said.format(file=file, folder=folder) in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_while_the_gateway_hangs_events_that_need_it_wait_and_others_run(node: Node) -> None:
    topic = node.deploy("hung")
    node.produce(topic, "V0", 1)
    eventually(lambda: node.seen("hung", "V0") == [1])
    with node.hung():
        node.produce(topic, "V1", 1, 1000, 2)
        node.produce(topic, "V2", 1, -1, 2)
        node.produce(topic, "V3", 1, 2)
        eventually(lambda: node.seen("hung", "V3") == [1, 2])
        eventually(lambda: node.seen("hung", "V1")[:1] == [1])  # each vehicle goes at its own pace
        eventually(lambda: node.seen("hung", "V2") == [1])
        page = node.machine.fn("describe", "hung")
        assert "the gateway does not tell" in page
        listed = node.machine.run("list")
        assert listed.returncode == 0
        assert "hung" in listed.stdout
        assert node.seen("hung", "V1") in ([1], [1, 1000], [1, 1000, 2])  # a retry that is due waits for nobody
        assert node.seen("hung", "V2") == [1]
    eventually(lambda: node.seen("hung", "V1") == [1, 1000, 2])
    eventually(lambda: node.seen("hung", "V2") == [1, 2])
    eventually(lambda: [each.key for each in client(node.machine).dead(function="hung")] == ["V2"])
    eventually(lambda: not client(node.machine).function("hung").problems)


def test_commands_that_need_the_gateway_say_so_while_it_is_away_and_nothing_is_half_done(node: Node) -> None:
    """A file stands where its folder was: it cannot come back by itself."""
    machine = node.machine
    topic = node.deploy("away")
    node.produce(topic, "V1", -1)
    eventually(lambda: client(machine).dead(function="away"))
    folder = machine.data / "gateway"
    aside = folder.with_name("aside")
    process = node.gateway()
    process.suspend()
    folder.rename(aside)
    folder.touch()
    process.kill()
    try:
        eventually(lambda: str(folder) in client(machine).node().gateway)
        for arguments in (["dlq", "redrive", "--all"], ["delete", "away", "--yes"]):
            done = machine.run(*arguments)
            assert done.returncode == 1, done.stdout
            assert "the gateway" in done.stderr
            assert str(folder) in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        assert [each.name for each in client(machine).functions() if each.name == "away"] == ["away"]
        assert machine.run("pause", "away").returncode == 0
        assert machine.run("resume", "away").returncode == 0
        assert machine.run("invoke", "away", "--key", "V9", "--data", "5").returncode == 0
        assert node.seen("away", "V9") == [5]
    finally:
        folder.unlink()
        aside.rename(folder)
    eventually(lambda: client(machine).node().gateway == "", 180)  # the longer it was away, the later its next start
    eventually(lambda: trigger(machine, "away", "stream").dead == 1)
    node.produce(topic, "V1", 1)
    eventually(lambda: node.seen("away", "V1") == [1])
    machine.fn("delete", "away", "--yes")
