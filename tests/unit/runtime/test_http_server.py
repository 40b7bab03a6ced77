"""The worker's HTTP source, on real sockets, with a road that answers as told."""

import asyncio
import json
import os
import socket

import pytest
from fleetfn.http import Response
from fleetfn.invocation import Again, Done, Failure, Rejected
from fleetfn_runtime.http_protocol import Limits
from fleetfn_runtime.http_server import HttpSource
from http_doubles import Client, FakeRoad, ListeningSource, descriptors, request, trigger, until

QUICK = Limits(head=1.0, idle=1.2, body_pause=1.0, body=2.0, write=1.0, linger=1.0)


def triggers():
    return [
        trigger("/x", max_body=200_000),
        trigger("/battery/{vehicle}", methods=("GET",), key="path.vehicle"),
    ]


@pytest.fixture
async def road():
    return FakeRoad()


@pytest.fixture
async def lone(road):
    """A worker that listens by itself."""
    source = ListeningSource("f", triggers(), road.take)
    source.listen()
    yield source
    source.close()


@pytest.fixture
async def client(lone):
    client = await Client.connect(lone.address)
    yield client
    await client.close()


async def test_a_request_becomes_a_delivery_and_its_outcome_the_reply(client, road):
    answer = await client.ask(request("/x?a=1&a=2&b=", b"hello", headers="X-A: b\r\n"))
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["fn-invocation"] == "i-1"
    seen = road.taken[0].request
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/x", {"a": ["1", "2"], "b": [""]}, b"hello")
    assert seen.headers["x-a"] == "b"


async def test_parts_of_the_path_are_keys(client, road):
    answer = await client.ask(request("/battery/LFV%201", method="GET"))
    assert answer.body == b"/battery/LFV 1"
    assert road.taken[0].key == "LFV 1"
    assert road.taken[0].request.path_params == {"vehicle": "LFV 1"}


async def test_a_connection_serves_one_request_after_the_other(client, road):
    for number in range(20):
        assert (await client.ask(request(body=b"%d" % number))).body == b"%d" % number
    assert len(road.taken) == 20


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(client, road):
    road.holds = True
    client.send(b"".join(request(body=b"%d" % number) for number in range(50)))
    await until(lambda: road.taken)
    assert len(road.taken) == 1
    road.release()
    assert [(await client.answer()).body for _ in range(50)] == [b"%d" % number for number in range(50)]


async def test_a_request_may_arrive_byte_by_byte(client):
    for byte in request(body=b"hello") + b"\r\n" + request(body=b"again"):
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer()).body == b"hello"
    assert (await client.answer()).body == b"again"


async def test_chunked_bodies(client):
    chunked = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    client.send(chunked + request(body=b"next"))
    assert (await client.answer()).body == b"hello"
    assert (await client.answer()).body == b"next"


async def test_a_client_that_expects_100_is_told_to_continue(client):
    client.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
    assert (await client.answer()).status == 100
    assert (await client.ask(b"hello")).body == b"hello"


async def test_a_client_that_expects_100_is_refused_before_it_sends(client):
    client.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\nexpect: 100-continue\r\n\r\n")
    assert (await client.answer()).status == 413
    assert await client.ended()


async def test_http_1_0_closes_unless_asked_to_keep(lone):
    client = await Client.connect(lone.address)
    answer = await client.ask(b"POST /x HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na")
    assert answer.headers["connection"] == "keep-alive"
    answer = await client.ask(b"POST /x HTTP/1.0\r\ncontent-length: 1\r\n\r\nb")
    assert (answer.body, answer.headers["connection"]) == (b"b", "close")
    assert await client.ended()
    await client.close()


async def test_head_gets_the_head_of_get(client):
    client.send(request("/battery/a", method="HEAD") + request("/battery/b", method="GET"))
    answer = await client.answer(bodiless=True)
    assert (answer.status, answer.headers["content-length"]) == (200, "10")
    assert (await client.answer()).body == b"/battery/b"


async def test_unknown_paths_and_methods_leave_the_connection_usable(client):
    answer = await client.ask(request("/nothing", b"{}"))
    assert answer.status == 404
    assert json.loads(answer.body).keys() == {"error", "hint"}
    answer = await client.ask(request("/x", method="GET"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await client.ask(request(body=b"hello"))).body == b"hello"


@pytest.mark.parametrize("size", [200_001, 10 * 1024 * 1024])
async def test_a_body_over_the_limit_gets_413_and_the_whole_reply(lone, size):
    client = await Client.connect(lone.address)
    client.send(request(body=b"a" * size))
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert "200000 bytes" in json.loads(answer.body)["error"]
    await client.close()
    await until(lambda: lone.held == 0)


async def test_a_chunked_body_over_the_limit_gets_413(client):
    client.send(b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(4):
        client.send(b"%x\r\n" % 100_000 + b"a" * 100_000 + b"\r\n")
    assert (await client.answer()).status == 413


async def test_large_bodies_up_to_the_limit_come_whole(client):
    body = os.urandom(200_000)
    assert (await client.ask(request(body=body))).body == body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x00\xf0", 400),
        (b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n", 400),
        (b"GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"POST /x?" + b"a&" * 2000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000, 431),
    ],
)
async def test_broken_requests_get_a_clear_answer_and_the_connection_ends(client, raw, status, road):
    client.send(raw)
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert json.loads(answer.body)["error"]
    assert await client.ended()
    assert not road.taken


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Done(None), 204),
        (Rejected("no"), 422),
        (Rejected("no JSON", status=400), 400),
        (Again(after=3.0), 503),
        (Again(failure=Failure("ValueError", "secret")), 500),
        (Again(timed_out=True), 504),
        (Done(Response(200, b"", {"x": "a\r\nb: c"})), 500),
        (Done(Response(7, b"")), 500),
    ],
)
async def test_outcomes_have_their_status(client, road, outcome, status):
    road.outcome = lambda _: outcome
    answer = await client.ask(request(body=b"{}"))
    assert (answer.status, answer.headers["fn-invocation"]) == (status, "i-1")
    assert b"secret" not in answer.body
    road.outcome = lambda _: Done(Response(200, b"fine"))
    assert (await client.ask(request(body=b"{}"))).body == b"fine"


async def test_the_key_is_asked_of_every_request(road):
    source = ListeningSource("f", triggers(), road.take, key=b"sesame")
    client = await Client.connect(source.listen())
    good = "Authorization: Bearer sesame\r\n"
    assert (await client.ask(request(headers=good, body=b"a"))).status == 200
    for bad in ("", "Authorization: Bearer open\r\n", "Authorization: Basic sesame\r\n", "Authorization: Bearer\r\n"):
        answer = await client.ask(request(headers=bad, body=b"a"))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await client.ask(request("/nothing", headers=""))).status == 401
    assert (await client.ask(request(headers=good, body=b"a"))).status == 200
    assert len(road.taken) == 2
    await client.close()
    source.close()


async def test_paused_triggers_get_503(lone, client, road):
    lone.pause("/x")
    answer = await client.ask(request(body=b"a"))
    assert answer.status == 503
    assert "retry-after" in answer.headers
    lone.resume("/x")
    assert (await client.ask(request(body=b"a"))).status == 200


async def test_too_many_in_flight_get_429(road):
    source = ListeningSource("f", triggers(), road.take, most_in_flight=2)
    address = source.listen()
    clients = [await Client.connect(address) for _ in range(3)]
    road.holds = True
    for client in clients[:2]:
        client.send(request(body=b"a"))
    await until(lambda: source.in_flight == 2)
    answer = await clients[2].ask(request(body=b"a"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    road.release()
    assert [(await client.answer()).status for client in clients[:2]] == [200, 200]
    assert (await clients[2].ask(request(body=b"a"))).status == 200
    for client in clients:
        await client.close()
    source.close()


async def test_bodies_that_would_not_fit_get_429(road):
    source = ListeningSource("f", triggers(), road.take, most_held=1000)
    address = source.listen()
    first, second = await Client.connect(address), await Client.connect(address)
    first.send(request(body=b"a" * 800)[:-1])
    await until(lambda: source.held == 800)
    assert (await second.ask(request(body=b"b" * 300))).status == 429
    first.send(b"a")
    assert (await first.answer()).status == 200
    await until(lambda: source.held == 0)
    assert (await second.ask(request(body=b"b" * 300))).status == 200
    await first.close()
    await second.close()
    source.close()


async def test_a_client_that_goes_leaves_the_run_to_its_end(lone, road):
    road.holds = True
    client = await Client.connect(lone.address)
    client.send(request(body=b"a"))
    await until(lambda: road.taken)
    client.writer.transport.abort()
    await client.writer.wait_closed()
    assert lone.in_flight == 1
    road.release()
    assert (lone.in_flight, lone.held) == (0, 0)
    await until(lambda: len(lone._connections) == 0)


async def test_a_client_that_only_ends_its_side_gets_its_replies(lone):
    client = await Client.connect(lone.address)
    client.send(request(body=b"a") + request(body=b"b"))
    client.writer.write_eof()
    assert [(await client.answer()).body for _ in range(2)] == [b"a", b"b"]
    assert await client.ended()
    await client.close()


async def test_a_reply_larger_than_the_sockets_buffers_comes_whole(lone, client, road):
    body = os.urandom(8 * 1024 * 1024)
    road.outcome = lambda _: Done(Response(200, body))
    client.send(request(body=b"a") * 2)
    assert (await client.answer()).body == body
    assert (await client.answer()).body == body


async def test_the_slow_are_cut_off(road):
    source = ListeningSource("f", triggers(), road.take, limits=QUICK)
    address = source.listen()
    slow_head, slow_body, idle = [await Client.connect(address) for _ in range(3)]
    slow_head.send(b"POST /x HT")
    slow_body.send(request(body=b"hello")[:-1])
    assert (await idle.ask(request(body=b"a"))).status == 200
    assert (await slow_head.answer()).status == 408
    assert (await slow_body.answer()).status == 408
    for client in (slow_head, slow_body, idle):
        assert await client.ended()
        await client.close()
    await until(lambda: len(source._connections) == 0)
    assert source.held == 0
    source.close()


async def test_a_body_that_trickles_is_cut_off_too(road):
    source = ListeningSource("f", triggers(), road.take, limits=QUICK)
    client = await Client.connect(source.listen())
    client.send(request(body=b"a" * 1000)[:-1000])

    async def trickle():
        while True:
            client.send(b"a")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    assert (await client.answer()).status == 408
    trickling.cancel()
    await client.close()
    source.close()


async def test_a_client_that_does_not_read_its_reply_is_cut_off(road):
    source = ListeningSource("f", triggers(), road.take, limits=QUICK)
    address = source.listen()
    road.outcome = lambda _: Done(Response(200, b"a" * 50_000_000))
    sock = socket.create_connection(address)
    sock.send(request(body=b"a"))
    await until(lambda: road.taken)
    await until(lambda: len(source._connections) == 0)
    sock.close()
    source.close()


# Changing hands


class Node:
    """The other side of hand_back: keeps what it gets."""

    def __init__(self):
        self.got = []
        self.full = 0

    def hand_back(self, fd, head):
        if self.full:
            self.full -= 1
            raise BufferError("full")
        self.got.append((socket.socket(fileno=fd), head))

    def close(self):
        for sock, _ in self.got:
            sock.close()


@pytest.fixture
async def node():
    node = Node()
    yield node
    node.close()


@pytest.fixture
async def worker(road, node):
    source = HttpSource("f", triggers(), road.take, hand_back=node.hand_back)
    yield source
    source.close()


async def adopted(worker, head=b""):
    ours, theirs = socket.socketpair()
    client = await Client.on(ours)
    worker.adopt(theirs.detach(), head)
    return client


async def test_a_connection_is_adopted_with_what_was_read_of_it(worker):
    client = await adopted(worker, request(body=b"hello")[:-2])
    client.send(b"lo" + request(body=b"again"))
    assert (await client.answer()).body == b"hello"
    assert (await client.answer()).body == b"again"
    await client.close()


async def test_the_next_request_for_somebody_else_is_handed_back_with_all_its_bytes(worker, node):
    other = request("/other", b"body")
    client = await adopted(worker, request(body=b"a") + other + request(body=b"b"))
    assert (await client.answer()).body == b"a"
    await until(lambda: node.got)
    assert node.got[0][1] == other + request(body=b"b")
    node.got[0][0].send(b"still open")
    assert await client.reader.readexactly(10) == b"still open"
    await client.close()


async def test_the_request_that_the_node_handed_over_is_answered_here(worker, node):
    client = await adopted(worker, request("/gone"))
    assert (await client.answer()).status == 404
    assert not node.got
    await client.close()


async def test_draining_hands_idle_connections_back_at_once_and_busy_ones_after_their_reply(worker, node, road):
    idle, begun, busy = [await adopted(worker) for _ in range(3)]
    assert (await idle.ask(request(body=b"a"))).status == 200
    begun.send(b"POST /x HT")
    road.holds = True
    busy.send(request(body=b"b"))
    await until(lambda: len(road.taken) == 2)
    await asyncio.sleep(0.02)
    draining = asyncio.create_task(worker.drain())
    await until(lambda: len(node.got) == 2)
    assert sorted(head for _, head in node.got) == [b"", b"POST /x HT"]
    busy.send(request(body=b"c"))
    assert not draining.done()
    road.release()
    assert (await busy.answer()).body == b"b"
    await draining
    assert len(node.got) == 3
    left = node.got[2][1] or node.got[2][0].recv(1000)
    assert left == request(body=b"c")
    for client in (idle, begun, busy):
        await client.close()


async def test_a_body_on_its_way_is_awaited_while_draining(worker, node):
    client = await adopted(worker, request(body=b"hello")[:-1])
    await asyncio.sleep(0.02)
    draining = asyncio.create_task(worker.drain())
    await asyncio.sleep(0.02)
    client.send(b"o")
    assert (await client.answer()).body == b"hello"
    await draining
    assert len(node.got) == 1
    await client.close()


async def test_what_is_adopted_while_draining_goes_back_unread(worker, node):
    await worker.drain()
    client = await adopted(worker, request(body=b"a"))
    assert [head for _, head in node.got] == [request(body=b"a")]
    await client.close()


async def test_a_node_that_is_busy_is_offered_the_connection_again(worker, node):
    node.full = 2
    client = await adopted(worker)
    await worker.drain()
    assert (len(node.got), node.full) == (1, 0)
    await client.close()


async def test_more_idle_connections_than_may_stay_go_back(road, node):
    source = HttpSource("f", triggers(), road.take, hand_back=node.hand_back, most_idle=2)
    clients = [await adopted(source) for _ in range(4)]
    for client in clients:
        assert (await client.ask(request(body=b"a"))).status == 200
    assert len(node.got) == 2
    assert len(source._connections) == 2
    for client in clients:
        await client.close()
    source.close()


async def test_a_lone_worker_drains_by_closing_after_the_reply(lone, road):
    idle, busy = await Client.connect(lone.address), await Client.connect(lone.address)
    assert (await idle.ask(request(body=b"a"))).status == 200
    road.holds = True
    busy.send(request(body=b"b"))
    await until(lambda: len(road.taken) == 2)
    draining = asyncio.create_task(lone.drain())
    assert await idle.ended()
    road.release()
    answer = await busy.answer()
    assert (answer.body, answer.headers["connection"]) == (b"b", "close")
    await busy.close()
    await idle.close()
    await draining


async def test_no_descriptor_is_left(road, node):
    before = descriptors()
    source = HttpSource("f", triggers(), road.take, hand_back=node.hand_back)
    for raw in (request(body=b"a"), b"nonsense\r\n\r\n", request("/other", method="GET"), b"POST /x", b""):
        client = await adopted(source, raw)
        if raw and raw != b"POST /x":
            await client.answer()
        await client.close()
    clients = [await adopted(source) for _ in range(5)]
    await source.drain()
    node.close()
    for client in clients:
        await client.close()
    await until(lambda: descriptors() <= before)
