"""For tests of a front door: one with two functions, whose workers are in this process."""

import asyncio

from fleetfn_node.front_door import FrontDoor
from fleetfn_runtime.http_server import HttpSource
from fleetfn_spec.function import Function, Metadata, Spec, Trigger
from fleetfn_triggers.http import Http
from http_doubles import Client, FakeRoad, trigger


def function(name, *paths, methods=("POST",)):
    triggers = [Trigger(name=path.strip("/"), http=Http(path=path, methods=methods)) for path in paths]
    spec = Spec(handler="handler:f", triggers=triggers)
    return Function(apiVersion="fleetfn.dev/v1alpha1", kind="Function", metadata=Metadata(name=name), spec=spec)


class Worker:
    """A worker in this process: what is handed over reaches its HTTP source a turn of the loop later."""

    def __init__(self, door, *paths):
        self.road = FakeRoad()
        self.full = 0
        self.got = 0
        self.http = HttpSource("f", [trigger(path) for path in paths], self.road.take, hand_back=self._back)
        self._door = door
        self._loop = asyncio.get_running_loop()

    def hand_over(self, fd, head):
        if self.full:
            self.full -= 1
            raise BufferError("full")
        self.got += 1
        self._loop.call_soon(self.http.adopt, fd, head)

    def _back(self, fd, head):
        self._loop.call_soon(self._door.take_back, fd, head)


class House:
    """Functions that may sleep: `wakes` has those who asked for a worker, `awake` holds them until it is set; those in
    `held` until `let_go`.
    """

    def __init__(self):
        self.door = None
        self.workers = {}
        self.wakes = []
        self.awake = asyncio.Event()
        self.awake.set()
        self.held = set()
        self.refusal = None
        self._let_go = asyncio.Event()

    async def activate(self, name):
        self.wakes.append(name)
        await self.awake.wait()
        if name in self.held:
            await self._let_go.wait()
        if self.refusal is not None:
            raise self.refusal
        return self.workers[name]

    def let_go(self):
        self._let_go.set()

    async def open(self, **options):
        self.door = FrontDoor("127.0.0.1", 0, activate=self.activate, **options)
        await self.door.open()
        for name, path in (("one", "/x"), ("two", "/y")):
            self.door.serve(function(name, path))
            self.workers[name] = Worker(self.door, path)
        return self.door

    async def client(self):
        return await Client.connect(("127.0.0.1", self.door.port))

    async def close(self):
        await self.door.close()
        for worker in self.workers.values():
            worker.http.close()
