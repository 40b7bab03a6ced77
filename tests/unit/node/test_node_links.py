"""A worker's channel as the node hears it; the other end is the test's."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time

import pytest
from fleetfn_node import links
from fleetfn_node.links import WorkerFailedError, WorkerLink
from fleetfn_node.processes import Process
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel import (
    Connection,
    Drain,
    Failed,
    HandBack,
    Idle,
    Inherit,
    Leaving,
    Ready,
    Report,
    Share,
    Stats,
    Step,
)
from fleetfn_spec.control import Counters


class Heard:
    def __init__(self):
        self.all = []
        self.ended = asyncio.Event()

    def step(self, text):
        self.all.append(("step", text))

    def handed_back(self, fd, head):
        os.close(fd)
        self.all.append(("handed back", head))

    def stats(self, _link, stats):
        self.all.append(("stats", stats.counters.done))

    def idle(self, _link, seconds):
        self.all.append(("idle", seconds))

    def leaving(self, _link, reason):
        self.all.append(("leaving", reason))

    def gone(self, _link, status):
        self.all.append(("gone", status))
        self.ended.set()


def reader():
    code = "import sys; sys.exit(len(sys.stdin.read()))"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


@pytest.fixture
async def world():
    """(link, the worker's end, what was heard, a process that ends when its stdin does)."""
    ours, theirs = channel_io.pair()
    popen = reader()
    heard = Heard()
    link = WorkerLink("hello", "abc", Process(popen.pid, popen.poll), channel_io.node_end(ours), heard)
    worker = channel_io.worker_end(theirs)
    yield link, worker, heard, popen
    worker.close()
    popen.stdin.close()
    await asyncio.wait_for(heard.ended.wait(), 30)
    popen.wait()


async def test_what_a_worker_says_reaches_the_listener_in_order(world):
    link, worker, heard, _ = world
    pipe = os.pipe()
    worker.send(Step("importing"))
    worker.send(Ready(7, "/run/deliver-7.sock"))
    worker.send(Stats(counters=Counters(done=2), in_flight=1, problems=(("telemetry", "unreachable"),)))
    worker.send(HandBack(b"GET / "), pipe[0])
    worker.send(Idle(3.0))
    worker.send(Leaving("SIGTERM"))
    await link.ready
    worker.close()
    world[3].stdin.write(b"xy")
    world[3].stdin.close()
    await link.gone()
    os.close(pipe[1])
    assert heard.all == [
        ("step", "importing"),
        ("stats", 2),
        ("handed back", b"GET / "),
        ("idle", 3.0),
        ("leaving", "SIGTERM"),
        ("gone", 2),
    ]
    assert (link.deliver, link.in_flight, link.worked, link.draining) == ("/run/deliver-7.sock", 1, True, True)
    assert link.problems == (("telemetry", "unreachable"),)


async def test_who_looks_sees_the_figures_of_now(world, monkeypatch):
    monkeypatch.setattr(links, "_REPORT_LIMIT", 60)
    link, worker, heard, _ = world
    await asyncio.wait_for(link.refresh(), 30)  # of a worker on its way there are none
    worker.send(Ready(7, "/run/deliver-7.sock"))
    await link.ready
    looking = asyncio.create_task(link.refresh())
    assert await asyncio.wait_for(worker.receive(), 30) == (Report(), None)
    assert not looking.done()
    worker.send(Stats(counters=Counters(done=5), in_flight=0))
    await asyncio.wait_for(looking, 30)
    assert heard.all == [("stats", 5)]


async def test_who_looks_does_not_wait_for_a_worker_that_is_held_or_gone(world, monkeypatch):
    link, worker, _, _ = world
    worker.send(Ready(7, "/run/deliver-7.sock"))
    await link.ready
    monkeypatch.setattr(links, "_REPORT_LIMIT", 0.01)
    await asyncio.wait_for(link.refresh(), 30)
    monkeypatch.setattr(links, "_REPORT_LIMIT", 60)
    looking = asyncio.create_task(link.refresh())
    worker.close()
    await asyncio.wait_for(looking, 30)


async def test_a_worker_that_fails_says_why(world):
    link, worker, _, _ = world
    worker.send(Failed("no module named 'nunpy'", "install it", "handler.py:1", "Traceback ..."))
    with pytest.raises(WorkerFailedError, match="nunpy") as failed:
        await link.ready
    assert (failed.value.hint, failed.value.place) == ("install it", "handler.py:1")
    assert not link.is_ready


async def test_a_worker_that_dies_before_it_is_ready_is_a_failure(world):
    link, worker, _, popen = world
    worker.close()
    popen.kill()
    with pytest.raises(WorkerFailedError, match="killed by signal 9 before it was ready"):
        await link.ready


async def test_connections_are_handed_over_and_the_descriptor_is_the_workers(world):
    link, worker, _, _ = world
    read, write = os.pipe()
    link.hand_over(read, b"GET / ")
    message, fd = await worker.receive()
    assert message == Connection(b"GET / ")
    os.write(write, b"x")
    assert os.read(fd, 1) == b"x"
    os.close(fd)
    os.close(write)


async def test_a_connection_for_a_worker_that_is_gone_stays_with_the_caller(world):
    link, worker, _, _ = world
    worker.close()
    read, write = os.pipe()
    with pytest.raises(BufferError, match="is gone"):
        link.hand_over(read, b"GET / ")
    os.close(read)
    os.close(write)


async def test_drain_is_said_once(world):
    link, worker, _, _ = world
    link.drain("idle")
    link.drain("again")
    link.serve()
    assert (await worker.receive())[0] == Drain("idle")
    assert type((await worker.receive())[0]).__name__ == "Serve"


async def test_a_worker_that_closes_its_channel_and_does_not_end_is_replaced_then_killed(world, monkeypatch):
    monkeypatch.setattr(links, "_END_SOON", 0.02)
    monkeypatch.setattr(links, "_END_LIMIT", 0.02)
    link, worker, heard, _ = world
    worker.close()
    await link.gone()
    assert heard.all == [("leaving", "it closed its channel"), ("gone", -9)]


async def test_a_worker_that_does_not_read_is_handed_no_connection(world):
    link, worker, _, _ = world
    kept = []

    def hand_over():
        ours, theirs = socket.socketpair()
        kept.append((ours, theirs.fileno()))
        link.hand_over(theirs.detach(), b"GET / " + b"a" * 10_000)

    while link._channel.waiting <= links._MOST_QUEUED:
        hand_over()
    with pytest.raises(BufferError, match="does not read its channel"):
        hand_over()
    assert link._channel.waiting == links._MOST_QUEUED + 1
    for _ in kept[:-1]:
        _, fd = await worker.receive()
        os.close(fd)
    link.hand_over(kept[-1][1], b"GET / ")  # it stayed ours
    _, fd = await worker.receive()
    os.close(fd)
    for ours, _ in kept:
        ours.close()


async def test_without_a_free_descriptor_a_connection_stays_where_it_is(world):
    link = world[0]
    read, write = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(read)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # descriptors are below this number
    try:
        with pytest.raises(BufferError, match="no descriptor is left"):
            link.hand_over(read, b"GET / ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.close(read)
    os.close(write)


async def test_a_worker_is_as_busy_as_it_says_and_with_what_it_was_given_since(world, monkeypatch):
    link, worker, _, _ = world

    def hand_over():
        connection, other = socket.socketpair()
        other.close()
        link.hand_over(connection.detach(), b"GET / ")

    hand_over()
    hand_over()
    assert link.busy == 2
    worker.send(Stats(counters=Counters(done=1), in_flight=9, requests=5, lag=70, lagging=2))
    worker.send(Ready(7, "/run/deliver-7.sock"))
    await link.ready
    assert (link.busy, link.lag, link.lagging, link.done) == (5, 70, 2, 1)
    hand_over()
    assert link.busy == 6
    later = time.monotonic() + 3
    monkeypatch.setattr(links.time, "monotonic", lambda: later)
    assert link.busy == 5


async def test_it_is_told_with_whom_it_shares_and_who_is_gone(world):
    link, worker, *_ = world
    link.share((0, 2))
    link.inherit(1)
    assert [(await worker.receive())[0] for _ in range(2)] == [Share((0, 2)), Inherit(1)]
