"""More than a worker's HTTP source takes: callers are refused at once, the slow make room, memory is bounded."""

import asyncio
import socket

import pytest
from fleetfn.http import Response
from fleetfn.invocation import Done
from fleetfn_runtime.http_protocol import Connections, Limits
from fleetfn_runtime.http_server import HttpSource
from http_doubles import Client, FakeRoad, ListeningSource, request, trigger, until

MEGABYTE = 1_000_000


@pytest.fixture
async def road():
    return FakeRoad()


@pytest.fixture
async def serve(road):
    """Makes a lone worker with such limits; its source and its address."""
    sources = []

    def make(**limits):
        source = ListeningSource("f", [trigger("/x")], road.take, **limits)
        sources.append(source)
        return source, source.listen()

    yield make
    for source in sources:
        source.close()


async def test_while_callers_do_not_read_their_replies_others_are_refused(serve, road):
    source, address = serve(most_unread=5 * MEGABYTE)
    road.outcome = lambda _: Done(Response(200, b"a" * 20 * MEGABYTE))
    lazy = socket.create_connection(address)
    lazy.send(request(body=b"a"))
    await until(lambda: source._connections.unsent > 5 * MEGABYTE)
    client = await Client.connect(address)
    answer = await client.ask(request(body=b"b"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert len(road.taken) == 1
    lazy.close()
    await until(lambda: source._connections.unsent == 0)
    road.outcome = lambda _: Done(Response(200, b"b"))
    assert (await client.ask(request(body=b"b"))).body == b"b"
    await client.close()


async def test_what_is_read_of_a_reply_counts_no_more(serve, road):
    source, address = serve()
    road.outcome = lambda _: Done(Response(200, b"a" * 20 * MEGABYTE))
    client = await Client.connect(address)
    assert len((await client.ask(request(body=b"a"))).body) == 20 * MEGABYTE
    assert source._connections.unsent == 0
    await client.close()


async def test_a_reader_that_is_always_a_bit_too_slow_is_cut_off(serve, road):
    source, address = serve(limits=Limits(write=0.4, pace=200 * MEGABYTE))
    road.outcome = lambda _: Done(Response(200, b"a" * 20 * MEGABYTE))
    slow = socket.create_connection(address)
    slow.send(request(body=b"a"))
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    read = 0
    async with asyncio.timeout(60):
        while source._connections.snapshot() or not read:
            try:
                data = await asyncio.wait_for(loop.sock_recv(slow, 100_000), 0.05)
            except (TimeoutError, ConnectionResetError):
                data = b""
            read += len(data)
            await asyncio.sleep(0.05)  # there is always something to read: only the pace tells
    assert 0 < read < 20 * MEGABYTE
    assert source._connections.unsent == 0
    slow.close()


async def test_who_reads_nothing_of_a_reply_holds_no_drain_up(serve, road):
    source, address = serve(limits=Limits(leaving=0.2, linger=0.1))
    assert source._connections.limits.write > 15
    road.outcome = lambda _: Done(Response(200, b"a" * 20 * MEGABYTE))
    lazy = socket.create_connection(address)
    lazy.send(request(body=b"a"))
    await until(lambda: source._connections.unsent)
    async with asyncio.timeout(15):
        await source.drain()
    lazy.close()


async def test_where_connections_run_short_those_go_that_have_waited_longest(serve):
    source, address = serve(most_open=2, limits=Limits(spare=0.1))
    first, second = await Client.connect(address), await Client.connect(address)
    first.send(b"POST /x HT")  # a head that never ends waits, too
    await until(lambda: len(source._connections) == 2)
    await asyncio.sleep(0.25)
    assert (await second.ask(request(body=b"a"))).status == 200
    late = await Client.connect(address)
    assert (await late.ask(request(body=b"b"))).body == b"b"
    assert await first.ended()
    assert (await second.ask(request(body=b"c"))).body == b"c"
    for client in (first, second, late):
        await client.close()


async def test_where_none_waits_more_connections_are_refused(serve, road):
    source, address = serve(most_open=2)
    road.holds = True
    busy = [await Client.connect(address) for _ in range(2)]
    for client in busy:
        client.send(request(body=b"a"))
    await until(lambda: source.in_flight == 2)
    late = await Client.connect(address)
    answer = await late.ask(request(body=b"b"))
    assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (429, "1", "close")
    road.release()
    assert [(await client.answer()).status for client in busy] == [200, 200]
    for client in (*busy, late):
        await client.close()


async def test_a_storm_of_connections_that_are_refused_ends_and_all_is_as_before(serve, road):
    source, address = serve(most_open=2, limits=Limits(linger=0.2))
    road.holds = True
    busy = await Client.connect(address)
    busy.send(request(body=b"a"))
    await until(lambda: source.in_flight == 1)
    storm = [await Client.connect(address) for _ in range(100)]
    assert await most(source, 30) <= 2 + 8 + 1
    road.release()
    assert (await busy.answer()).status == 200
    for client in storm:
        await client.close()
    await until(lambda: len(source._connections) <= 1)
    assert (await busy.ask(request(body=b"b"))).body == b"b"
    await busy.close()


async def most(source, times):
    """Connections there were at most, looked at so many times."""
    seen = 0
    for _ in range(times):
        seen = max(seen, len(source._connections))
        await asyncio.sleep(0.01)
    return seen


async def test_a_worker_of_a_node_gives_the_longest_idle_connection_back(road):
    got = []
    source = HttpSource(
        "f",
        [trigger("/x")],
        road.take,
        hand_back=lambda fd, head: got.append((fd, head)),
        most_open=1,
        limits=Limits(spare=0.1),
    )
    clients = []
    for body in (b"a", b"b"):
        ours, theirs = socket.socketpair()
        source.adopt(theirs.detach(), request(body=body))
        client = await Client.on(ours)
        clients.append(client)
        assert (await client.answer()).body == body
        await asyncio.sleep(0.25)
    assert [head for _, head in got] == [b""]
    assert len(source._connections) == 1
    for client in clients:
        await client.close()
    for fd, _ in got:
        socket.socket(fileno=fd).close()
    source.close()


async def test_heads_that_never_end_hold_no_more_than_is_kept(road):
    source = ListeningSource("f", [trigger("/x")], road.take)
    source._connections = Connections(most_kept=100_000)
    address = source.listen()
    clients = [await Client.connect(address) for _ in range(4)]
    for client in clients:
        client.send(b"POST /x HTTP/1.1\r\nhost: a\r\nlong: " + b"a" * 40_000)
        await client.writer.drain()
    await until(lambda: source._connections.kept > 80_000)
    await until(lambda: len(answered(clients)) >= 2)
    refused = answered(clients)
    assert len(refused) == 2
    assert [(await client.answer()).status for client in refused] == [503, 503]
    assert source._connections.kept <= 100_000
    for client in clients:
        await client.close()
    await until(lambda: source._connections.kept == 0)
    source.close()


def answered(clients):
    """To whom something has come."""
    return [client for client in clients if client.reader._buffer]  # looking must not read


async def test_requests_that_are_sent_ahead_are_kept_within_bounds(road):
    source = ListeningSource("f", [trigger("/x")], road.take)
    source._connections = Connections(most_kept=100_000)
    address = source.listen()
    road.holds = True
    clients = [await Client.connect(address) for _ in range(3)]
    for client in clients:
        client.send(request(body=b"a"))
    await until(lambda: source.in_flight == 3)
    for client in clients:
        client.send(request(body=b"b" * 1000) * 200)
    await until(lambda: source._connections.kept > 100_000)
    await asyncio.sleep(0.1)
    assert source._connections.kept <= 100_000 + 64 * 1024
    road.release()
    for client in clients:
        assert {(await client.answer()).status for _ in range(201)} == {200}
        await client.close()
    await until(lambda: source._connections.kept == 0)
    source.close()
