"""A function as its node hosts it: its workers are the test's."""

import asyncio

import msgspec
from fleetfn_node.hosting import Hosted
from fleetfn_node.metering import NodeMetrics
from fleetfn_node.revisions import Deploy, Head, Revision, Revisions
from fleetfn_spec.environments import LOCAL
from road_doubles import until
from worker_process import function


class StartingLink:
    """A worker that is never ready."""

    def __init__(self):
        self.ready = asyncio.get_running_loop().create_future()
        self.paused = []

    def pause(self, triggers):
        self.paused += triggers

    def kill(self): ...


class SlowWorkers:
    """Whoever starts one waits for `going`."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.going = asyncio.Event()
        self.link = StartingLink()

    async def start(self, *_, slot, proven):
        assert (slot, proven) == (0, False)
        self.asked.set()
        await self.going.wait()
        return self.link


async def test_a_pause_while_a_worker_is_being_started_reaches_it(tmp_path):
    workers = SlowWorkers()
    head = Head(history=[Deploy(number=1, digest="a" * 64, environment=LOCAL, at=0.0)])
    hosted = Hosted(
        Revisions(tmp_path),
        head,
        Revision(digest="a" * 64, function=function(), created=0.0),
        workers=workers,
        watch=None,
        take_back=None,
        metrics=NodeMetrics(),
    )
    hosted.activation.wake()
    await workers.asked.wait()
    hosted.pause(msgspec.structs.replace(head, paused=["add"]))
    workers.going.set()
    await until(lambda: workers.link.paused == ["add"])
    workers.link.ready.cancel()
