"""Slow ones beside others: an output that hangs for one vehicle, a follower of a log who reads nothing, a burst of
messages, a restart of the broker of many sessions, many calls of the control API at once.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from fleetfn_spec.control import InvokeRequest
from fleetfn_spec.environments import Connection, Environment
from fleetfn_triggers.mqtt_connection import MqttConnection
from mqtt_broker import Sent, publish
from running_node import RunningNode, wait_for, write_function
from storms import Watched, ask, request
from threaded_server import ThreadedServer

pytestmark = [pytest.mark.node, pytest.mark.slow]

HANDLER = """
import time
from pathlib import Path

from fleetfn import Request, State
from msgspec import Struct


class Count(Struct):
    n: int = 0


def forward(request: Request) -> str:
    return request.path


def talk(request: Request) -> None:
    for _ in range(10):
        print("x" * 50_000)


def echo(message: dict) -> dict:
    return message


def count(message: bytes, state: State[Count]) -> None:
    while not Path(GO).exists():
        time.sleep(0.01)
    time.sleep(0.01)
    state.value.n += 1
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path).start()
    yield node
    node.close()


def go(node):
    """The file without which `count` waits."""
    return node.data.parent / "go"


def deploy(node, name, spec, environment=None):
    code = f"GO = {str(go(node))!r}\n{HANDLER}"
    folder = write_function(node.data.parent / name, code, spec, name=name)
    _, last = node.deploy(folder) if environment is None else node.deploy(folder, environment)
    assert last.revision is not None, last


class Desk(ThreadedServer):
    """Takes events, those of V0 not before `go`."""

    daemon_threads = True

    def __init__(self):
        self.go = threading.Event()
        self.hangs = threading.Event()
        self.taken = Counter()
        super().__init__(("127.0.0.1", 0), Taking)


class Taking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        vehicle = self.rfile.read(int(self.headers["content-length"])).decode().strip('"').rpartition("/")[2]
        if vehicle == "V0":
            self.server.hangs.set()
            self.server.go.wait(120)
        self.server.taken[vehicle] += 1
        self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def desk():
    with Desk() as desk:
        threading.Thread(target=desk.serve_forever, daemon=True).start()
        yield desk
        desk.go.set()
        desk.shutdown()


async def test_an_output_that_hangs_for_one_vehicle_keeps_no_other_waiting(node, desk):
    deploy(
        node,
        "forward",
        f"""
handler: handler:forward
triggers:
- {{name: in, key: path.vehicle, http: {{path: "/in/{{vehicle}}"}}}}
outputs:
- {{name: desk, http: {{url: "http://127.0.0.1:{desk.server_port}/", timeout: 120}}}}
returns: desk
""",
    )
    hanging = asyncio.create_task(ask(node.port, request("/in/V0"), limit=180))
    assert await asyncio.to_thread(desk.hangs.wait, 60)  # from here on nothing that runs is published together with it
    others = await asyncio.gather(*(ask(node.port, request(f"/in/V{1 + n % 50}")) for n in range(200)))
    assert others == [200] * 200
    assert not hanging.done()
    assert desk.taken.total() == 200
    desk.go.set()
    assert await hanging == 200
    assert desk.taken["V0"] == 1


async def test_who_follows_a_log_and_reads_nothing_fills_no_memory(node):
    deploy(node, "talk", 'handler: handler:talk\ntriggers:\n- {name: in, http: {path: "/talk"}}\n')
    watched = Watched(node.process.pid)
    with socket.socket(socket.AF_UNIX) as follower:
        follower.connect(str(node.run / "control.sock"))
        follower.sendall(b"GET /v1/functions/talk/logs?follow=true HTTP/1.1\r\nhost: x\r\nfleetfn-api: 1.0\r\n\r\n")
        for _ in range(60):  # 30 MB
            assert await ask(node.port, request("/talk")) == 204
            watched.look()
        assert node.client.node().url
    assert watched.most < 15


def test_many_calls_of_the_control_api_at_once_are_answered(node):
    deploy(node, "echo", 'handler: handler:echo\ntriggers:\n- {name: in, http: {path: "/echo"}}\n')
    watched = Watched(node.process.pid)
    asked = InvokeRequest(event={"data": {"n": 1}})
    calls = [node.client.functions, partial(node.client.function, "echo"), partial(node.client.invoke, "echo", asked)]
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda number: calls[number % 3](), range(300)))
    assert len(answers) == 300
    assert [answer.reply["body"] for answer in answers[2::3]] == [{"n": 1}] * 100
    assert watched.look() < 40


def counting(node, topics, environment=None):
    triggers = "".join(
        f'- {{name: t{number}, key: topic.vehicle, mqtt: {{topic: "{topic}/{{vehicle}}"}}}}\n'
        for number, topic in enumerate(topics)
    )
    spec = f"handler: handler:count\ntriggers:\n{triggers}scale: {{idle: 1s, concurrency: 4}}\n"
    deploy(node, "count", spec, environment)


def counts(node):
    found = node.client.states("count").keys
    return {key: node.client.state("count", key).value["n"] for key in found}


def test_a_burst_of_messages_waits_in_the_inbox_and_each_is_counted_once(node):
    counting(node, ["burst"])
    node.asleep("count")
    (gateway,) = node.gateways()
    watched = Watched(gateway)
    sent = [Sent(f"burst/V{number % 20}", json.dumps({"filler": "x" * 5000}).encode()) for number in range(2000)]
    publish(node.client.node().embedded_mqtt, sent)

    def waiting():
        watched.look()
        return node.status("count").triggers[0].waiting

    wait_for(lambda: waiting() > 1000, 60, "what waits")
    go(node).touch()

    def all_done():
        watched.look()
        return node.status("count").counters.done >= len(sent)

    wait_for(all_done, 180, "the count of all")
    assert counts(node) == {f"V{number}": 100 for number in range(20)}
    assert watched.most < 100


@pytest.mark.mqtt
def test_a_broker_that_restarts_has_its_fifty_sessions_back_and_nothing_is_lost(node, own_mosquitto):
    topics = [f"many-{number}" for number in range(50)]
    mqtt = Connection(name="mqtt", mqtt=MqttConnection(url=f"mqtt://{own_mosquitto.address}"))
    go(node).touch()
    counting(node, topics, Environment(name="local", connections=[mqtt]))
    wait_for(lambda: not any(each.problem for each in node.status("count").triggers), what="all sessions")
    publish(own_mosquitto.address, [Sent(f"{topic}/V1", b"1") for topic in topics])
    own_mosquitto.kill()
    own_mosquitto.start()
    publish(own_mosquitto.address, [Sent(f"{topic}/V1", b"2") for topic in topics])
    wait_for(lambda: counts(node) == {"V1": 100}, 120, "all of them")
    wait_for(lambda: not any(each.problem for each in node.status("count").triggers), 60, "all sessions again")
