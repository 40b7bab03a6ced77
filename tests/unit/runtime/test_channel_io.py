"""Both ends of the channel between a node and its worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel import Connection, Drain, HandBack, Idle, Serve, Step, ToNode, ToWorker

Ends = tuple[channel_io.Channel[ToNode, ToWorker], channel_io.Channel[ToWorker, ToNode]]


@pytest.fixture
async def ends() -> Iterator[Ends]:
    one, other = channel_io.pair()
    node, worker = channel_io.node_end(one), channel_io.worker_end(other)
    yield node, worker
    node.close()
    worker.close()


async def test_carries_messages_both_ways_in_order(ends: Ends) -> None:
    node, worker = ends
    node.send(Serve())
    node.send(Drain("redeploy"))
    worker.send(Step("importing handler"))
    assert await worker.receive() == (Serve(), None)
    assert await worker.receive() == (Drain("redeploy"), None)
    assert await node.receive() == (Step("importing handler"), None)


async def test_carries_a_descriptor_with_the_bytes_already_read(ends: Ends) -> None:
    node, worker = ends
    reading, writing = os.pipe()
    node.send(Connection(b"GET / HTTP/1.1\r\n"), writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    message, fd = await worker.receive() or pytest.fail("no message")
    assert message == Connection(b"GET / HTTP/1.1\r\n")
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.write(fd, b"hello")
    os.close(fd)
    assert os.read(reading, 10) == b"hello"
    os.close(reading)


async def test_waits_for_a_message_and_ends_when_the_other_side_is_gone(ends: Ends) -> None:
    node, worker = ends
    waiting = asyncio.create_task(worker.receive())
    await asyncio.sleep(0)
    node.send(Serve())
    assert await waiting == (Serve(), None)
    waiting = asyncio.create_task(worker.receive())
    await asyncio.sleep(0)
    node.close()
    assert await waiting is None
    worker.send(Idle(1.0))
    assert worker.closed


async def test_queues_for_a_slow_reader_and_refuses_beyond_its_limit(ends: Ends) -> None:
    node, worker = ends
    sent = 0

    def fill() -> None:
        nonlocal sent
        while True:
            worker.send(HandBack(b"%d" % sent + b"x" * 1000))
            sent += 1

    with pytest.raises(BufferError):
        fill()
    assert sent > channel_io.QUEUE_LIMIT

    async def read() -> list[bytes]:
        got = [await node.receive() for _ in range(sent)]
        return [message.head.rstrip(b"x") for message, _ in filter(None, got) if isinstance(message, HandBack)]

    heads, _ = await asyncio.gather(read(), worker.flush())
    assert heads == [b"%d" % n for n in range(sent)]


async def test_refuses_a_message_larger_than_a_packet(ends: Ends) -> None:
    node, _ = ends
    with pytest.raises(ValueError, match="larger than the channel's"):
        node.send(Connection(b"x" * 100_000))


async def test_closes_descriptors_that_can_no_longer_be_sent(ends: Ends) -> None:
    node, worker = ends
    worker.close()
    reading, writing = os.pipe()
    node.send(Connection(b""), writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_a_message_that_cannot_be_read_leaves_no_descriptor_behind() -> None:
    one, other = channel_io.pair()
    node = channel_io.node_end(one)
    reading, writing = os.pipe()
    socket.send_fds(other, [b"\xc1"], [writing])
    os.close(writing)
    with pytest.raises(ValueError, match="malformed"):
        await node.receive()
    assert os.read(reading, 1) == b""  # nobody can write any more
    os.close(reading)
    other.close()
    node.close()
