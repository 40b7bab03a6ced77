"""Requests to functions that sleep: what wakes, what does not, and how they come to a pod."""

import asyncio
import contextlib
import json
import socket

import pytest
from fleetfn_gateway.cluster import forwarding, http_routes
from fleetfn_gateway.cluster.activator import Activator
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.http_routes import Absent
from fleetfn_gateway.cluster.kube_objects import Condition, Meta, Pod, PodStatus
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.cluster.ports import Ports
from fleetfn_gateway.dispatch import Load
from free_ports import free_ports
from gateway_doubles import function, until

LIMIT = 60


class Notes:
    def __init__(self):
        self.kept = {}

    def note(self, name):
        return self.kept.get(name)

    async def put(self, _, *, notes):
        self.kept.update(notes)


class Worker:
    """A pod's HTTP port: notes each request as it came, answers as it is told."""

    def __init__(self):
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.requests = []
        self.serve = self._read_and_answer
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _accepted(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.serve(reader, writer)
        writer.close()

    async def _read_and_answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        lower = head.lower()
        if b"content-length: " in lower:
            body = await reader.readexactly(int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]))
        elif b"chunked" in lower:
            body = await reader.readuntil(b"0\r\n\r\n")
        self.requests.append((head, body))
        writer.write(self.answer)
        await writer.drain()


def pod():
    conditions = [Condition(type="Ready", status="True")]
    labels = {"fleetfn.dev/function": "f"}
    return Pod(metadata=Meta(name="f-1", labels=labels), status=PodStatus(pod_ip="127.0.0.1", conditions=conditions))


HTTP = (
    {"name": "show", "http": {"path": "/battery/{vehicle}", "methods": ["GET", "POST"]}},
    {"name": "all", "http": {"path": "/battery/all", "methods": ["PUT"]}},
)


class Place:
    def __init__(self, worker, notes, first, *, functions=None, **limits):
        self.functions = functions or {"f": function(*HTTP)}
        self.pods = Pods(lambda _: None)
        self.demand = Demand(self.pods, lambda _: Load())
        self.activator = Activator(
            lambda: self.functions,
            self.pods,
            self.demand,
            Ports(notes, first, first + 9),
            lambda _: "KEDA does not listen",
            host="127.0.0.1",
            http_port=worker.port,
            **limits,
        )

    async def wake(self):
        await self.pods.replace([pod()])

    async def sleep(self):
        await self.pods.replace([])

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.activator.port("f"))

    async def ask(self, request, *, body=b"", headers=""):
        reader, writer = await self.open()
        try:
            writer.write(f"{request} HTTP/1.1\r\nhost: anybody.example\r\n{headers}\r\n".encode() + body)
            return await asyncio.wait_for(reader.read(), LIMIT)
        finally:
            writer.close()


@pytest.fixture
async def worker():
    async with Worker() as worker:
        yield worker


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def first():
    return free_ports(10)


@pytest.fixture
async def start(worker, notes, first):
    async with contextlib.AsyncExitStack() as stack:

        async def start(**limits):
            place = Place(worker, notes, first, **limits)
            await place.activator.change()
            stack.push_async_callback(place.activator.close)
            return place

        yield start


@pytest.fixture
async def place(start):
    return await start()


def status(answer):
    return int(answer.split(b" ")[1])


def said(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_a_request_waits_for_a_pod_and_is_carried_on(place, worker):
    asking = asyncio.create_task(place.ask("GET /battery/v1?full=1", headers="x-trace: 7\r\n"))
    await until(lambda: place.demand.requests["f"] == 1)
    assert place.demand.wanted("f")
    assert place.demand.amount("f") == 1
    await place.wake()
    answer = await asking
    assert answer.endswith(b"\r\n\r\nok")
    assert b"connection: close" in answer.lower()
    head, _ = worker.requests[0]
    assert head.startswith(b"GET /battery/v1?full=1 HTTP/1.1\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"host: anybody.example" in lines
    assert b"x-trace: 7" in lines
    assert b"via: 1.1 fleetfn-gateway" in lines
    assert place.demand.requests["f"] == 0


async def test_while_it_is_awake_nothing_is_held(place, worker):
    await place.wake()
    assert status(await place.ask("GET /whatever/it/is")) == 200  # the worker knows best
    assert place.activator.held["f"] == 0


async def test_headers_about_a_connection_are_not_carried_on(place, worker):
    await place.wake()
    worker.answer = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, x-own\r\nx-own: 1\r\nx-for-all: 2\r\n\r\nok"
    )
    answer = await place.ask(
        "GET /battery/v1", headers="connection: keep-alive, x-hop\r\nx-hop: 1\r\nte: trailers\r\nupgrade: h2c\r\n"
    )
    head = worker.requests[0][0].lower()
    assert not any(name in head for name in (b"x-hop", b"te: ", b"upgrade", b"keep-alive"))
    assert b"x-own" not in answer
    assert b"x-for-all: 2" in answer


async def test_bodies_are_carried_both_ways_as_they_come(place, worker):
    first, second = asyncio.Event(), asyncio.Event()
    got = []

    async def serve(reader, writer):
        got.append(await reader.readuntil(b"\r\n\r\n"))
        got.append(await reader.readuntil(b"one\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nuno\r\n")
        first.set()
        got.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(b"3\r\ndue\r\n0\r\n\r\n")
        second.set()

    worker.serve = serve
    await place.wake()
    reader, writer = await place.open()
    writer.write(b"POST /battery/v1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
    await asyncio.wait_for(first.wait(), LIMIT)
    assert b"uno" in await asyncio.wait_for(reader.readuntil(b"uno\r\n"), LIMIT)
    writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), LIMIT)).endswith(b"due\r\n0\r\n\r\n")
    writer.close()


async def test_a_large_body_is_not_kept_here(start, worker):
    place = await start()
    size = 8 * 1024 * 1024
    reader, writer = await place.open()
    writer.write(b"POST /battery/v1 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)

    async def send():
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()

    sending = asyncio.create_task(send())
    await until(lambda: place.activator.kept > 0)
    held = []
    for _ in range(50):
        await asyncio.sleep(0.002)
        held.append(place.activator.kept)
    assert max(held) < 200_000
    assert not sending.done()
    await place.wake()
    assert status(await asyncio.wait_for(reader.read(), LIMIT)) == 200
    await sending
    assert len(worker.requests[0][1]) == size
    writer.close()


async def test_a_client_that_waits_for_100_continue_gets_it_once_there_is_a_pod(place, worker):
    reader, writer = await place.open()
    writer.write(b"POST /battery/v1 HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    await until(lambda: place.demand.requests["f"] == 1)
    await place.wake()
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)).startswith(b"HTTP/1.1 100 ")
    writer.write(b"abc")
    assert status(await asyncio.wait_for(reader.read(), LIMIT)) == 200
    assert worker.requests[0][1] == b"abc"
    assert b"expect" not in worker.requests[0][0].lower()
    writer.close()


async def test_an_answer_before_the_whole_request_arrives(place, worker):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    worker.serve = serve
    await place.wake()
    answer = await place.ask("POST /battery/v1", headers="content-length: 5000000\r\n", body=b"x" * 300_000)
    assert status(answer) == 413


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ("GET /nothing/there", 404, "no function is served at /nothing/there"),
        ("GET /-/metrics", 404, "no function is served at /-/metrics"),
        ("DELETE /battery/v1", 405, "/battery/v1 does not take DELETE"),
    ],
)
async def test_what_is_for_no_trigger_wakes_nobody(place, request_, code, words):
    answer = await place.ask(request_)
    assert (status(answer), said(answer)["error"]) == (code, words)
    assert not place.demand.wanted("f")


async def test_allowed_methods_are_named(place):
    answer = await place.ask("DELETE /battery/v1")
    assert b"allow: GET, HEAD, POST" in answer


async def test_health_is_answered_without_waking(place):
    assert status(await place.ask("GET /-/healthz")) == 200
    assert not place.demand.wanted("f")


async def test_a_paused_trigger_wakes_nobody_but_for_answers_later(place, worker):
    place.functions["f"] = function(*HTTP, paused=("show",))
    answer = await place.ask("GET /battery/v1")
    assert (status(answer), said(answer)["error"]) == (503, "trigger show of f is paused")
    assert b"retry-after: 30" in answer
    assert not place.demand.wanted("f")
    asking = asyncio.create_task(place.ask("GET /battery/v1", headers="Prefer: respond-async\r\n"))
    await until(lambda: place.demand.requests["f"] == 1)
    await place.wake()
    assert status(await asking) == 200


async def test_who_waits_too_long_is_told_why(start):
    place = await start(wake_limit=0.1)
    answer = await place.ask("GET /battery/v1")
    assert status(answer) == 504
    assert b"retry-after: 1" in answer
    assert said(answer) == {"error": "no worker of f was ready within 0.1 s", "hint": "KEDA does not listen"}
    assert place.demand.requests["f"] == 0
    assert place.activator.kept == 0


async def test_more_than_may_wait_are_refused(start):
    place = await start(most_waiting=1)
    waiting = asyncio.create_task(place.ask("GET /battery/v1"))
    await until(lambda: place.demand.requests["f"] == 1)
    answer = await place.ask("GET /battery/v2")
    assert status(answer) == 429
    assert place.activator.refused["f", "waiting"] == 1
    await place.wake()
    assert status(await waiting) == 200


async def test_more_bytes_than_may_be_kept_are_refused(start):
    place = await start(most_kept=100)
    answer = await place.ask("GET /battery/v1", headers=f"x-long: {'x' * 200}\r\n")
    assert status(answer) == 503
    assert place.activator.refused["f", "bytes"] == 1


async def test_more_connections_than_may_be_open_are_refused(start):
    place = await start(most_open=1)
    _, writer = await place.open()
    writer.write(b"GET /battery/v1 HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: place.demand.requests["f"] == 1)
    reader, other = await place.open()
    assert status(await asyncio.wait_for(reader.read(), LIMIT)) == 503
    other.close()
    writer.close()


async def test_a_client_that_leaves_is_waited_for_no_longer(place):
    _, writer = await place.open()
    writer.write(b"GET /battery/v1 HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: place.demand.requests["f"] == 1)
    writer.close()
    await until(lambda: place.demand.requests["f"] == 0)
    assert place.activator.kept == 0


async def test_a_pod_that_cannot_be_reached_is_tried_again(place, worker, monkeypatch):
    real, calls = forwarding.connect, []

    async def connect(address, port):
        calls.append(address)
        if len(calls) < 3:
            raise forwarding.NotReachedError("refused")
        return await real(address, port)

    monkeypatch.setattr(forwarding, "connect", connect)
    await place.wake()
    assert status(await place.ask("GET /battery/v1")) == 200
    assert len(worker.requests) == 1


async def test_what_was_sent_is_not_sent_to_another(place, worker):
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    worker.serve = serve
    await place.wake()
    answer = await place.ask("GET /battery/v1")
    assert status(answer) == 502
    assert "ended the connection before it had answered" in said(answer)["error"]
    assert len(asked) == 1


async def test_an_answer_that_breaks_off_is_seen_to_have_no_end(place, worker):
    worker.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
    await place.wake()
    answer = await place.ask("GET /battery/v1")
    assert answer.endswith(b"\r\n\r\nhalf")
    assert b"content-length: 10" in answer


async def test_what_is_no_http_is_refused(place):
    reader, writer = await place.open()
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert status(await asyncio.wait_for(reader.read(), LIMIT)) == 400
    writer.close()


async def test_answers_to_head_have_no_body(place, worker):
    assert (await place.ask("HEAD /nothing")).endswith(b"\r\n\r\n")
    await place.wake()
    worker.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    answer = await place.ask("HEAD /battery/v1")
    assert b"content-length: 2" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_ports_stay_with_their_functions(start, first):
    place = await start()
    assert place.activator.port("f") == first
    place.functions["a"] = function(*HTTP, name="a")
    await place.activator.change()
    assert (place.activator.port("f"), place.activator.port("a")) == (first, first + 1)
    del place.functions["f"]
    await place.activator.change()
    assert (place.activator.port("f"), place.activator.port("a")) == (None, first + 1)
    await place.activator.close()
    kafka = function({"name": "k", "kafka": {"topic": "t"}}, name="b")
    again = await start(functions={"a": function(*HTTP, name="a"), "b": kafka})
    assert (again.activator.port("a"), again.activator.port("b")) == (first + 1, None)


async def test_a_port_that_is_taken_is_passed_over(start, first):
    with socket.create_server(("127.0.0.1", first)):
        place = await start()
        assert place.activator.port("f") == first + 1


@pytest.mark.parametrize(
    ("method", "target", "found"),
    [
        ("GET", "/battery/v1", "show"),
        ("HEAD", "/battery/v1", "show"),
        ("GET", "/battery/v%2F1?x=/y/z", "show"),
        ("PUT", "/battery/all", "all"),
        ("GET", "/battery/all", "show"),
        ("GET", "http://somebody.example/battery/v1", "show"),
        ("PUT", "/battery/v1", Absent("/battery/v1", ("GET", "HEAD", "POST"))),
        ("GET", "/battery/", Absent("/battery/")),
        ("GET", "/battery/v1/", Absent("/battery/v1/")),
        ("OPTIONS", "*", Absent("*")),
    ],
)
def test_which_trigger_a_request_is_for(method, target, found):
    result = http_routes.find(function(*HTTP).function, method, target)
    assert (result if isinstance(result, Absent) else result.name) == found
