"""Connections change hands between a node and its workers, each a process, while clients keep them open."""

import asyncio
import gc
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import http_doubles
import pytest
from fleetfn_node.front_door import FrontDoor
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel import Connection, Drain, HandBack
from fleetfn_runtime.routes import Route, Routes
from http_doubles import Client, descriptors, request, until

pytestmark = pytest.mark.node

WORKER = Path(http_doubles.__file__).with_name("http_worker.py")
PATHS = {"one": "/x", "two": "/y"}


class Link:
    """A worker process and its channel."""

    def __init__(self, path, take_back, seconds):
        ours, theirs = channel_io.pair()
        arguments = [sys.executable, str(WORKER), str(theirs.fileno()), path, str(seconds)]
        self.process = subprocess.Popen(arguments, pass_fds=(theirs.fileno(),))
        theirs.close()
        self.ready = asyncio.Event()
        self.handed_back = 0
        self._channel = channel_io.node_end(ours)
        self._take_back = take_back
        self._listening = asyncio.create_task(self._listen())

    def hand_over(self, fd, head):
        self._channel.send(Connection(head), fd)

    async def drained(self):
        self._channel.send(Drain())
        await asyncio.wait_for(self._listening, 60)
        self._channel.close()
        assert await asyncio.to_thread(self.process.wait, 60) == 0

    async def _listen(self):
        while (received := await self._channel.receive()) is not None:
            message, fd = received
            if isinstance(message, HandBack):
                self.handed_back += 1
                self._take_back(fd, message.head)
            else:
                self.ready.set()


class House:
    """Two functions behind one door. `seconds`: how long a run takes."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.links = {}
        self.door = FrontDoor("127.0.0.1", 0, activate=self.activate)
        self.door.routes = Routes(Route(name, path, path, ("POST",)) for name, path in PATHS.items())
        self.handed_back = 0

    async def activate(self, name):
        return self.links[name]

    async def open(self):
        await self.door.open()
        for name in PATHS:
            await self.swap(name)

    async def swap(self, name):
        """A redeploy: the new worker is ready, then it has the requests, then the old one drains."""
        link = Link(PATHS[name], self.door.take_back, self.seconds)
        await asyncio.wait_for(link.ready.wait(), 60)
        old = self.links.get(name)
        self.links[name] = link
        if old is not None:
            await old.drained()
            self.handed_back += old.handed_back

    async def close(self):
        for link in self.links.values():
            await link.drained()
        await self.door.close()

    async def client(self):
        return await Client.connect(("127.0.0.1", self.door.port))


@pytest.fixture
async def house(request):
    gc.collect()  # what other tests left open
    before = descriptors()
    house = House(getattr(request, "param", 0.0))
    await house.open()
    yield house
    await house.close()
    await until(lambda: descriptors() <= before)


async def visit(house, share, answers, enough, *, paths):
    """At least `share` requests on one connection, until there are `enough`, some of them pipelined. Each is answered
    once, in order, with its body.
    """
    client = await house.client()
    chance = random.Random(share)
    number = 0
    while number < share or not enough.is_set():
        burst = chance.choice((1, 1, 1, 3))
        bodies = [b"%d" % (number + each) for each in range(burst)]
        client.send(b"".join(request(chance.choice(paths), body) for body in bodies))
        for body in bodies:
            answer = await client.answer()
            pid, _, got = answer.body.partition(b" ")
            assert (answer.status, got) == (200, body)
            answers[int(pid)] += 1
        number += burst
        await asyncio.sleep(chance.choice((0, 0, 0.002)))
    await client.close()


async def has_answered(house, name, answers):
    """The worker that has the function's requests now."""
    await until(lambda: answers[house.links[name].process.pid])


@pytest.mark.parametrize("house", [0.0, 0.02], indirect=True, ids=["quick runs", "slow runs"])
async def test_no_request_fails_while_workers_are_swapped(house):
    answers = Counter()
    enough = asyncio.Event()
    visits = [asyncio.create_task(visit(house, 125, answers, enough, paths=["/x"])) for _ in range(8)]
    await has_answered(house, "one", answers)
    for _ in range(3):
        await house.swap("one")
        await has_answered(house, "one", answers)
    enough.set()
    await asyncio.gather(*visits)
    assert sum(answers.values()) >= 1000
    assert len(answers) == 4
    assert house.handed_back >= 8


async def test_one_connection_is_for_two_functions_in_turn_while_both_are_swapped(house):
    answers = Counter()
    enough = asyncio.Event()
    visits = [asyncio.create_task(visit(house, 60, answers, enough, paths=["/x", "/y"])) for _ in range(6)]
    for name in PATHS:
        await has_answered(house, name, answers)
    for name in ("one", "two", "one", "two"):
        await house.swap(name)
        await has_answered(house, name, answers)
    enough.set()
    await asyncio.gather(*visits)
    assert sum(answers.values()) >= 360
    assert len(answers) == 6


async def test_idle_connections_come_back_when_a_worker_goes(house):
    clients = [await house.client() for _ in range(20)]
    for client in clients:
        assert (await client.ask(request("/x", b"a"))).status == 200
    first = house.links["one"].process.pid
    await house.swap("one")
    assert house.handed_back == 20
    for client in clients:
        answer = await client.ask(request("/x", b"b"))
        assert int(answer.body.split(b" ")[0]) != first
        await client.close()


async def test_a_body_larger_than_the_channels_packets_goes_through(house):
    client = await house.client()
    body = bytes(range(256)) * 4000
    answer = await client.ask(request("/x", body))
    assert answer.body.endswith(body)
    client.send(b"".join(request(path, body) for path in ("/x", "/y", "/x")))
    assert [(await client.answer()).body.endswith(body) for _ in range(3)] == [True] * 3
    await client.close()
