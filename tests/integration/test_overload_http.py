"""More callers than a node can take: each gets its reply or a refusal, memory and descriptors are bounded, and when it
is over all is as before.
"""

import asyncio
import contextlib
import socket
import time

import pytest
from running_node import RunningNode, wait_for, write_function
from storms import Watched, allow_descriptors, ask, request, storm

pytestmark = [pytest.mark.node, pytest.mark.slow]

STORM = 2000
MEGABYTES = 64
"""That a node may grow by in a storm: about 30 kB of Python and asyncio per connection, and room to spare."""

LOW = 200
"""Descriptors of a node that runs short of them."""

HANDLER = """
from fleetfn import Request, Response


def short(request: Request) -> str:
    return "done"


def long(request: Request) -> Response:
    return Response(200, b"x" * 8_000_000)
"""


def spec(path, handler="short", idle="1s"):
    return f"""
handler: handler:{handler}
triggers:
- {{name: in, http: {{path: "{path}"}}}}
scale: {{idle: {idle}}}
"""


@contextlib.contextmanager
def running(tmp_path, functions, **options):
    node = RunningNode(tmp_path, **options)
    try:
        node.start()
        for name, text in functions.items():
            _, last = node.deploy(write_function(tmp_path / name, HANDLER, text, name=name))
            assert last.revision is not None, last
        yield node
    finally:
        node.close()


@pytest.fixture(autouse=True)
def _descriptors():
    if not allow_descriptors(STORM + 500):
        pytest.skip("this machine allows a process too few descriptors to make a storm of connections")


def done(node, name):
    return node.status(name).counters.done


async def test_a_storm_on_a_sleeping_function_wakes_it_once_and_is_answered_whole(tmp_path):
    with running(tmp_path, {"stormy": spec("/stormy"), "calm": spec("/calm")}) as node:
        node.asleep("stormy")
        node.asleep("calm")
        before, woken = done(node, "stormy"), node.status("stormy").counters.cold_starts
        watched = Watched(node.process.pid)
        descriptors = watched.descriptors
        raw = request("/stormy", b"a" * 1000)
        storming = asyncio.create_task(storm(node.port, raw, STORM, limit=300))
        calm = []
        while not storming.done():
            calm.append(await ask(node.port, request("/calm")))
            watched.look()
            await asyncio.sleep(0.02)
        ended = storming.result()
        assert ended.total() == STORM
        assert set(ended) <= {200, 429, 503}, ended
        assert ended[200] >= STORM // 4, ended
        assert set(calm) == {200}
        await asyncio.to_thread(wait_for, lambda: done(node, "stormy") - before == ended[200], 60, "the count of runs")
        assert node.status("stormy").counters.cold_starts == woken + 1
        assert watched.most < MEGABYTES
        await asyncio.to_thread(wait_for, lambda: watched.descriptors <= descriptors + 20, 60, "closed connections")
        assert await ask(node.port, raw) == 200
        node.asleep("stormy")


async def test_where_descriptors_are_few_idle_connections_go_and_others_are_served(tmp_path):
    few = ("sh", "-c", f'ulimit -n {LOW}; exec "$@"', "sh")
    functions = {"awake": spec("/awake", idle="60s"), "sleepy": spec("/sleepy")}
    with running(tmp_path, functions, launcher=few) as node:
        node.asleep("sleepy")
        kept = node.connection()
        kept.request("POST", "/awake")
        assert kept.getresponse().read() == b"done"
        watched = Watched(node.process.pid)
        crowd = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(4 * LOW)]
        began, used = time.monotonic(), watched.processor()
        refused = set()
        while time.monotonic() - began < 3:
            kept.request("POST", "/awake")  # a worker has it: the crowd is none of its business
            assert kept.getresponse().read() == b"done"
            refused.add(await ask(node.port, request("/awake"), limit=60))
            assert node.client.node().url  # `fn` is not kept out
            assert watched.descriptors <= LOW
            await asyncio.sleep(0.1)
        assert watched.processor() - used < (time.monotonic() - began) * 2 / 3, "accepting spins"
        assert refused <= {200, 503}, refused
        status = 0
        while status != 200 and time.monotonic() - began < 60:  # idle ones go: a sleeping function can be woken
            status = await ask(node.port, request("/sleepy"), limit=60)
        assert status == 200
        for each in crowd:
            each.close()
        await asyncio.to_thread(
            wait_for, lambda: node.http("POST", "/sleepy")[0] == node.http("POST", "/awake")[0] == 200, 60, "recovery"
        )
        kept.close()


async def test_callers_that_do_not_read_their_replies_fill_no_memory(tmp_path):
    with running(tmp_path, {"wordy": spec("/wordy", "long", idle="60s"), "calm": spec("/calm")}) as node:
        assert await ask(node.port, request("/wordy")) == 200
        (worker,) = node.status("wordy").workers
        watched = Watched(worker.pid)
        lazy = []
        statuses = []
        for _ in range(60):  # 480 MB of replies
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", node.port))
            sock.sendall(request("/wordy"))
            statuses.append(int(sock.recv(12)[9:]))
            lazy.append(sock)
            watched.look()
        assert set(statuses) == {200, 429}, statuses
        assert watched.most < 64 * 1.05 + 40  # replies that wait, and what it takes to make one
        assert await ask(node.port, request("/calm")) == 200
        for each in lazy:
            each.close()
        await asyncio.to_thread(wait_for, lambda: node.http("POST", "/wordy")[0] == 200, 60, "recovery")
