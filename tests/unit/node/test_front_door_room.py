"""A front door that is full: who is refused with which words, who makes room, what others notice of it."""

import asyncio
import logging
import socket

import pytest
from fleetfn_node.room import Refusal, Room
from fleetfn_runtime.http_protocol import Connections, Limits
from front_doors import House
from http_doubles import descriptors, request, until


@pytest.fixture
async def house():
    house = House()
    yield house
    await house.close()


@pytest.fixture
async def refused(house):
    """What callers were refused for."""
    return []


async def waiting_clients(house, path, count):
    clients = [await house.client() for _ in range(count)]
    for client in clients:
        client.send(request(path, b"a"))
    return clients


async def test_one_function_that_does_not_wake_leaves_room_for_others(house, refused):
    await house.open(most_open=8, refused=refused.append)
    house.held = {"one"}
    clients = await waiting_clients(house, "/x", 7)
    await until(lambda: house.door.room.waiting["one"] == 4)
    told = await answered(clients, 3)
    assert [(await client.answer()).status for client in told] == [429] * 3
    assert refused == ["waiting"] * 3
    other = await house.client()
    assert (await other.ask(request("/y", b"b"))).body == b"b"
    house.let_go()
    assert [(await client.answer()).status for client in clients if client not in told] == [200] * 4
    for client in (*clients, other):
        await client.close()


async def answered(clients, count):
    """Those that have their replies, once there are `count` of them."""

    def found():
        return [client for client in clients if client.reader._buffer]  # looking must not read

    await until(lambda: len(found()) >= count)
    return found()


async def test_a_storm_on_a_sleeping_function_is_answered_whole_and_wakes_it_for_each_that_may_wait(house):
    await house.open(most_waiting=50)
    house.held = {"one"}
    clients = await waiting_clients(house, "/x", 200)
    await until(lambda: house.door.room.waiting["one"] == 50)
    house.let_go()
    statuses = [(await client.answer()).status for client in clients]
    assert (statuses.count(200), statuses.count(429)) == (50, 150)
    assert len(house.wakes) == 50
    assert not house.door.room.waiting
    assert house.door._connections.kept == 0
    for client in clients:
        await client.close()


async def test_what_waits_holds_a_bounded_number_of_bytes(house, refused):
    await house.open(most_kept=100_000, refused=refused.append)
    house.held = {"one"}
    clients = [await house.client() for _ in range(3)]
    for client in clients:
        client.send(request("/x", b"a" * 45_000))
    await until(lambda: refused)
    late = await answered(clients, 1)
    assert len(late) == 1
    answer = await late[0].answer()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert refused == ["bytes"]
    assert house.door._connections.kept <= 100_000
    house.let_go()
    assert [(await client.answer()).status for client in clients if client not in late] == [200, 200]
    for client in clients:
        await client.close()


async def test_what_comes_while_a_request_waits_is_bounded_too(house):
    await house.open(most_kept=100_000)
    house.held = {"one"}
    clients = [await house.client() for _ in range(3)]
    for client in clients:
        client.send(request("/x", b"a" * 500_000)[:1000])
    await until(lambda: house.door.room.waiting["one"] == 3)
    for client in clients:
        client.send(request("/x", b"a" * 500_000)[1000:])
    await asyncio.sleep(0.1)
    assert house.door._connections.kept <= 100_000 + 64 * 1024
    house.let_go()
    assert [(await client.answer()).body for client in clients] == [b"a" * 500_000] * 3
    for client in clients:
        await client.close()


async def test_an_idle_connection_makes_room_for_a_new_one(house, refused):
    await house.open(most_open=4, limits=Limits(spare=0.1), refused=refused.append)
    idle = [await house.client() for _ in range(4)]
    await until(lambda: len(house.door._connections) == 4)
    await asyncio.sleep(0.25)
    late = await house.client()
    assert (await late.ask(request("/x", b"a"))).body == b"a"
    assert not refused
    await until(lambda: any(client.reader.at_eof() for client in idle))
    assert sum(client.reader.at_eof() for client in idle) == 1
    for client in (*idle, late):
        await client.close()


async def test_callers_that_are_refused_are_bounded_too(house, refused):
    before = descriptors()
    await house.open(most_open=2, limits=Limits(linger=0.3, spare=600.0), refused=refused.append)
    idle = [await house.client() for _ in range(2)]
    await until(lambda: len(house.door._connections) == 2)
    storm = [socket.create_connection(("127.0.0.1", house.door.port)) for _ in range(100)]
    ours = []
    for _ in range(30):
        ours.append(len(house.door._connections))
        await asyncio.sleep(0.01)
    assert max(ours) <= 2 + 8 + 1
    assert descriptors() - before < 2 * 2 + 100 + 40
    for sock in storm:
        sock.close()
    await until(lambda: len(house.door._connections) <= 2)
    assert (await idle[0].ask(request("/x", b"a"))).body == b"a"
    assert set(refused) == {"connections"}
    for client in idle:
        await client.close()


async def test_a_connection_that_comes_back_to_a_full_door_is_told_or_closed(house):
    await house.open(most_open=1)
    held = await house.client()
    await until(lambda: len(house.door._connections) == 1)
    idle, theirs = socket.socketpair()
    house.door.take_back(theirs.detach(), b"")
    assert idle.recv(1) == b""
    asks, theirs = socket.socketpair()
    house.door.take_back(theirs.detach(), request("/x", b"a"))
    assert asks.recv(100).startswith(b"HTTP/1.1 503 ")
    for each in (idle, asks):
        each.close()
    await held.close()


async def test_a_worker_that_does_not_read_is_asked_less_and_less_often(house):
    await house.open()
    house.workers["one"].full = 6
    client = await house.client()
    began = asyncio.get_running_loop().time()
    assert (await client.ask(request("/x", b"a"))).body == b"a"
    assert asyncio.get_running_loop().time() - began >= 0.02 + 0.04 + 0.08 + 0.16 + 0.32
    await client.close()


async def test_the_log_tells_of_refused_callers_once_a_minute(caplog):
    told = []
    room = Room(Connections(), most_waiting=1, most_open=10, refused=told.append)
    refusal = Refusal(503, "connections", "10 connections are open already")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            room.tell(refusal)
    assert told == ["connections"] * 3
    assert [record.message for record in caplog.records] == [
        "callers get 503: 10 connections are open already (said once a minute at most)"
    ]
