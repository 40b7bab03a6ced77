"""The front door: heads are read, functions woken, connections handed over and taken back."""

import asyncio
import json
import os
import socket

import pytest
from fleetfn.errors import UsageError
from fleetfn_node.activation import Unavailable
from fleetfn_node.front_door import FrontDoor
from fleetfn_runtime.http_protocol import Limits
from front_doors import House, Worker, function
from http_doubles import descriptors, request, until


@pytest.fixture
async def house():
    house = House()
    yield house
    await house.close()


@pytest.fixture
async def client(house):
    await house.open()
    client = await house.client()
    yield client
    await client.close()


async def test_a_request_reaches_its_function_and_the_next_one_stays_there(house, client):
    assert (await client.ask(request("/x", b"a"))).body == b"a"
    assert (await client.ask(request("/x", b"b"))).body == b"b"
    assert house.workers["one"].got == 1
    assert len(house.door._connections) == 0


async def test_one_connection_serves_two_functions_in_turn(house, client):
    for number in range(10):
        assert (await client.ask(request("/xy"[:2] if number % 2 else "/y", b"%d" % number))).body == b"%d" % number
    assert house.workers["one"].got == house.workers["two"].got == 5


async def test_pipelined_requests_across_two_functions_are_answered_in_order(client):
    client.send(b"".join(request(f"/{'xy'[number % 2]}", b"%d" % number) for number in range(40)))
    assert [(await client.answer()).body for _ in range(40)] == [b"%d" % number for number in range(40)]


async def test_a_function_that_is_awake_gets_its_connection_at_once(house):
    await house.open(awake=lambda name: house.workers[name] if name == "one" else None)
    client = await house.client()
    assert (await client.ask(request("/x", b"a"))).body == b"a"
    assert not house.wakes
    assert (await client.ask(request("/y", b"b"))).body == b"b"
    assert house.wakes == ["two"]
    house.workers["one"].full = 1
    assert (await client.ask(request("/x", b"c"))).body == b"c"
    assert house.wakes == ["two", "one"]
    await client.close()


async def test_unknown_paths_and_methods_wake_nobody(house, client):
    answer = await client.ask(request("/nothing", b"{}"))
    assert answer.status == 404
    assert json.loads(answer.body).keys() == {"error", "hint"}
    answer = await client.ask(request("/x", method="GET"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await client.ask(request("/-/other", method="GET"))).status == 404
    assert not house.wakes
    assert (await client.ask(request("/x", b"a"))).body == b"a"


async def test_the_key_is_asked_before_anything_wakes(house):
    await house.open(key=b"sesame", metrics=None)
    client = await house.client()
    assert (await client.ask(request("/x", b"a"))).status == 401
    assert (await client.ask(request("/nothing", b"a"))).status == 401
    assert not house.wakes
    assert (await client.ask(request("/-/healthz", method="GET"))).body == b'{"status":"ok"}'
    assert (await client.ask(request("/x", b"a", headers="authorization: bearer sesame\r\n"))).status == 200
    await client.close()


async def test_the_nodes_figures(house):
    async def measure():
        return b"fleetfn_up 1\n"

    await house.open(metrics=measure)
    client = await house.client()
    answer = await client.ask(request("/-/metrics", method="GET"))
    assert (answer.status, answer.body) == (200, b"fleetfn_up 1\n")
    assert (await client.ask(request("/-/metrics"))).status == 405
    assert (await client.ask(request("/x", b"a"))).status == 200
    await client.close()


async def test_figures_that_fail_are_a_500_and_the_door_goes_on(house, caplog):
    async def measure():
        raise RuntimeError("secret")

    await house.open(metrics=measure)
    client = await house.client()
    answer = await client.ask(request("/-/metrics", method="GET"))
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert (await client.ask(request("/x", b"a"))).status == 200
    await client.close()


async def test_requests_wait_while_a_function_wakes(house, client):
    house.awake.clear()
    client.send(request("/x", b"a") + request("/x", b"b"))
    await until(lambda: house.wakes)
    house.awake.set()
    assert [(await client.answer()).body for _ in range(2)] == [b"a", b"b"]


async def test_a_function_that_does_not_wake_in_time_is_a_504(house):
    await house.open(wake_limit=0.05)
    house.awake.clear()
    client = await house.client()
    assert (await client.ask(request("/x", b"a"))).status == 504
    house.awake.set()
    assert (await client.ask(request("/x", b"a"))).status == 200
    await client.close()


async def test_a_function_that_cannot_wake_says_why(house, client):
    house.refusal = Unavailable("one backs off: it died", hint="deploy a revision that works", retry_after=2.2)
    answer = await client.ask(request("/x", b"a"))
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert json.loads(answer.body) == {"error": "one backs off: it died", "hint": "deploy a revision that works"}


async def test_a_broken_body_does_not_keep_a_refusal_from_its_caller(house, client):
    house.refusal = Unavailable("one backs off")
    chunked = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n"
    answer = await client.ask(chunked)
    assert (answer.status, answer.headers["connection"]) == (503, "close")


async def test_only_so_many_wait_for_one_function(house):
    await house.open(most_waiting=2)
    house.awake.clear()
    clients = [await house.client() for _ in range(3)]
    for client in clients[:2]:
        client.send(request("/x", b"a"))
    await until(lambda: house.door.room.waiting["one"] == 2)
    answer = await clients[2].ask(request("/x", b"a"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    house.awake.set()
    assert [(await client.answer()).status for client in clients[:2]] == [200, 200]
    assert not house.door.room.waiting
    for client in clients:
        await client.close()


async def test_only_so_many_connections_are_open(house):
    await house.open(most_open=2)
    idle = [await house.client() for _ in range(2)]
    await until(lambda: len(house.door._connections) == 2)
    late = await house.client()
    answer = await late.ask(request("/x", b"a"))
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert (await idle[0].ask(request("/x", b"a"))).status == 200
    for client in (*idle, late):
        await client.close()


async def test_a_client_that_goes_while_its_function_wakes_is_forgotten(house, client):
    house.awake.clear()
    gone = await house.client()
    gone.send(request("/x", b"a"))
    await until(lambda: house.wakes)
    gone.writer.transport.abort()
    house.awake.set()
    await until(lambda: not house.door.room.waiting)
    assert (await client.ask(request("/x", b"b"))).body == b"b"


async def test_paused_triggers_wake_nobody(house, client):
    house.door.pause("one", ["x"])
    answer = await client.ask(request("/x", b"a"))
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
    assert not house.wakes
    house.door.pause("one", [])
    assert (await client.ask(request("/x", b"a"))).status == 200


async def test_a_request_that_can_wait_is_taken_for_a_paused_trigger(house, client):
    house.door.pause("one", ["x"])
    await client.ask(request("/x", b"a", headers="Prefer: respond-async\r\n"))
    assert house.wakes == ["one"]


async def test_a_worker_that_does_not_keep_up_is_offered_the_connection_again(house, client):
    house.workers["one"].full = 2
    assert (await client.ask(request("/x", b"a"))).body == b"a"


async def test_a_client_that_expects_100_hears_it_from_the_worker(client):
    client.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
    assert (await client.answer()).status == 100
    assert (await client.ask(b"hello")).body == b"hello"


async def test_large_bodies_go_through(client):
    body = os.urandom(1_000_000)
    assert (await client.ask(request("/x", body))).body == body


async def test_a_drained_worker_gives_its_connections_to_the_next_one(house, client):
    assert (await client.ask(request("/x", b"a"))).body == b"a"
    old = house.workers["one"]
    house.workers["one"] = Worker(house.door, "/x")
    await old.http.drain()
    assert (await client.ask(request("/x", b"b"))).body == b"b"
    assert house.workers["one"].got == 1


async def test_slow_heads_and_idle_connections_are_cut_off(house):
    await house.open(limits=Limits(head=0.1, idle=2.0))
    slow, idle = await house.client(), await house.client()
    slow.send(b"POST /x")
    assert (await slow.answer()).status == 408
    assert await slow.ended()
    assert await idle.ended()
    await slow.close()
    await idle.close()


async def test_a_refused_body_that_is_still_coming_does_not_lose_the_reply(house, client):
    client.send(request("/nothing", b"a" * 3_000_000))
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")


async def test_a_port_in_use_is_named_with_the_next_step(house, client):
    other = FrontDoor("127.0.0.1", house.door.port, activate=house.activate)
    with pytest.raises(UsageError) as error:
        await other.open()
    assert str(house.door.port) in error.value.message
    assert "--port" in error.value.hint


async def test_routes_of_other_functions_are_not_taken(house, client):
    found = house.door.conflicts(function("three", "/x", "/z"))
    assert found == ["trigger x: POST /x is served by one (trigger x)"]
    assert house.door.conflicts(function("one", "/x")) == []
    house.door.remove("one")
    assert house.door.conflicts(function("three", "/x")) == []
    assert (await client.ask(request("/x", b"a"))).status == 404


async def test_no_descriptor_is_left(house):
    before = descriptors()
    await house.open()
    for path in ("/x", "/y", "/nothing"):
        client = await house.client()
        await client.ask(request(path, b"a"))
        await client.ask(request("/x", b"a"))
        await client.close()
    asleep = socket.create_connection(("127.0.0.1", house.door.port))
    await asyncio.sleep(0.01)
    await house.close()
    asleep.close()
    await until(lambda: descriptors() <= before)


async def test_closing_ends_what_waits_and_what_comes_back_later(house, client):
    house.awake.clear()
    client.send(request("/x", b"a"))
    await until(lambda: house.door.room.waiting)
    late = await house.client()
    late.send(request("/x", b"b"))
    await house.door.close()
    assert await client.ended()
    assert await late.ended()
    await late.close()
    ours, theirs = socket.socketpair()
    house.door.take_back(theirs.detach(), request("/x", b"a"))
    assert ours.recv(1) == b""
    ours.close()
