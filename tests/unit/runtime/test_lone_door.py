"""The one port of a worker that runs by itself: who is answered by whom, from its start to its end."""

import asyncio

import pytest
from fleetfn.errors import FleetError
from fleetfn_runtime import lone_door
from fleetfn_runtime.http_server import HttpSource
from fleetfn_runtime.lone_door import Door
from http_doubles import Client, FakeRoad, request, trigger, until


class Front:
    """A door with a function behind it."""

    def __init__(self, *, serves=True, key=None, most_open=lone_door.OPEN):
        self.door = Door(serves=serves, metrics=self.metrics, key=key, most_open=most_open)
        self.road = FakeRoad()
        triggers = [trigger("/x"), trigger("/{a}/{b}", methods=("GET",))] if serves else []
        self.source = HttpSource("f", triggers, self.road.take, key=key, hand_back=self.door.take_back)
        self.door.hand_over = self.source.adopt
        host, port = self.door.listen("127.0.0.1", 0).removeprefix("http://").split(":")
        self.address = host, int(port)

    async def metrics(self):
        return b"fleetfn_in_flight 0\n"

    async def ask(self, raw):
        client = await Client.connect(self.address)
        try:
            return await client.ask(raw)
        finally:
            await client.close()

    async def get(self, path, **more):
        return await self.ask(request(path, method="GET", **more))


@pytest.fixture
async def fronts():
    made = []

    def make(state=lone_door.READY, **more):
        made.append(Front(**more))
        made[-1].door.state = state
        return made[-1]

    yield make
    for each in made:
        each.source.close()
        each.door.close()


async def test_while_it_starts_it_is_alive_and_not_ready(fronts):
    front = fronts(lone_door.STARTING)
    front.door.step = "importing the handler"
    assert (await front.get("/-/healthz")).status == 200
    ready = await front.get("/-/readyz")
    assert (ready.status, ready.body) == (503, b'{"status":"starting","step":"importing the handler"}')
    asked = await front.ask(request(body=b"hello"))
    assert (asked.status, asked.headers["retry-after"]) == (503, "1")
    assert (await front.get("/-/metrics")).status == 503
    assert front.road.taken == []


async def test_when_it_is_ready_requests_reach_the_function_on_one_connection_with_health(fronts):
    front = fronts()
    client = await Client.connect(front.address)
    for _ in range(2):
        assert (await client.ask(request(body=b"hello"))).body == b"hello"
        assert (await client.ask(request("/-/readyz", method="GET"))).body == b'{"status":"ready"}'
        assert (await client.ask(request("/-/metrics", method="GET"))).body == b"fleetfn_in_flight 0\n"
        assert (await client.ask(request("/nowhere"))).status == 404
    await client.close()
    assert len(front.road.taken) == 2


async def test_paths_below_the_dash_are_never_the_functions(fronts):
    front = fronts()
    assert (await front.get("/-/other")).status == 404
    assert (await front.get("/a/b")).status == 200
    assert (await front.ask(request("/-/healthz", b"x"))).status == 405
    assert len(front.road.taken) == 1


async def test_a_function_without_http_triggers_has_health_alone(fronts):
    front = fronts(serves=False)
    assert (await front.get("/-/readyz")).status == 200
    assert (await front.get("/x")).status == 404


async def test_health_needs_no_key_and_figures_do(fronts):
    front = fronts(key=b"secret")
    assert (await front.get("/-/healthz")).status == 200
    assert (await front.get("/-/readyz")).status == 200
    assert (await front.get("/-/metrics")).status == 401
    assert (await front.get("/-/metrics", headers="authorization: Bearer secret\r\n")).status == 200
    assert (await front.ask(request(body=b"hello"))).status == 401
    assert (await fronts(serves=False, key=b"secret").get("/x")).status == 401


async def test_while_it_drains_what_runs_is_answered_and_nothing_is_begun(fronts):
    front = fronts()
    running, idle = await Client.connect(front.address), await Client.connect(front.address)
    assert (await idle.ask(request(body=b"before"))).status == 200
    front.road.holds = True
    running.send(request(body=b"hello"))
    await until(lambda: len(front.road.taken) == 2)
    front.door.state = lone_door.DRAINING
    draining = asyncio.create_task(front.source.drain())
    assert (await front.get("/-/healthz")).status == 200
    assert (await front.get("/-/readyz")).body == b'{"status":"draining"}'
    assert (await front.ask(request(body=b"late"))).status == 503
    assert await idle.ended()
    front.road.release()
    assert (await running.answer()).body == b"hello"
    await draining
    await running.close()
    await idle.close()


async def test_beyond_its_connections_newcomers_are_told(fronts):
    front = fronts(most_open=1)
    first = await Client.connect(front.address)
    assert (await first.ask(request("/-/healthz", method="GET"))).status == 200
    second = await Client.connect(front.address)
    assert (await second.answer()).status == 429
    await first.close()
    await second.close()


async def test_a_port_that_is_taken_is_told(fronts):
    front = fronts()
    with pytest.raises(FleetError, match=f"port {front.address[1]} on 127.0.0.1 is in use"):
        Door(serves=False, metrics=front.metrics).listen(*front.address)
