"""Items for a Kafka trigger go to a worker in batches: it is woken for each, nothing goes twice or is gone unsaid."""

import asyncio

import msgspec
import pytest
from fleetfn.errors import FleetError
from fleetfn_gateway.cluster import sending_kafka
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.cluster.sending_kafka import KafkaSends
from fleetfn_gateway.dispatch import Load
from fleetfn_gateway.sending import Progress
from fleetfn_plumbing.http_client import NotAskedError, Reply, UnreachableError
from fleetfn_spec.control import Refusal, SendItem
from fleetfn_spec.gateway import SendRecords, SendReply
from gateway_doubles import function, until

KAFKA = {"name": "k", "key": "data.vehicle", "kafka": {"topic": "t"}}


class Place:
    """A pod that writes what it is sent. `replies`: what it says instead, one by one; `gate`: it waits for that."""

    def __init__(self, wake_limit=5.0):
        self.pods = Pods(lambda _: None)
        self.demand = Demand(self.pods, lambda _: Load())
        self.sends = KafkaSends(self.pods, self.demand, lambda *_: self, lambda _: "it is stuck", wake_limit)
        self.written, self.batches, self.replies, self.lines = [], [], [], []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lag = 3

    def wake(self):
        self.pods._pods["f-1"] = Seen("f-1", "f", "abc", "10.0.0.1", True, False, "")
        self.pods.update("f")

    def fall_asleep(self):
        self.pods._forget("f-1")

    async def request(self, method, path, body, **_):
        assert (method, path) == ("POST", "/send")
        asked = msgspec.msgpack.decode(body, type=SendRecords)
        if asked.lag:
            return self._json(SendReply(written=0, lag=self.lag))
        self.batches.append(len(asked.records))
        await self.gate.wait()
        reply = self.replies.pop(0) if self.replies else SendReply(written=len(asked.records))
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Refusal):
            return self._json(reply, 400)
        self.written += asked.records[: reply.written]
        return self._json(reply)

    async def close(self):
        pass

    def _json(self, value, status=200):
        return Reply(status, {}, msgspec.json.encode(value))

    async def send(self, items):
        self.progress = Progress(self.lines.append)
        trigger = function(KAFKA).function.spec.triggers[0]
        return await self.sends.send("f", trigger, trigger.kafka, items, self.progress)


async def several(count, after=None):
    for each in range(count):
        if each == 1 and after is not None:
            await after()
        yield SendItem(data={"vehicle": f"v{each}"})


async def test_items_get_their_keys_and_go_while_others_come():
    place = Place()
    place.wake()
    line = await place.send(several(50))
    assert [each.key for each in place.written] == [f"v{each}" for each in range(50)]
    assert (line.sent, line.lag, line.finished) == (50, 3, True)
    assert len(place.batches) < 5


async def test_who_sleeps_is_wanted_and_woken_again_between_items():
    place = Place()

    async def pause():
        await until(lambda: place.written)
        await until(lambda: not place.demand.held["f"])
        place.fall_asleep()

    sending = asyncio.create_task(place.send(several(3, pause)))
    await until(lambda: place.demand.held["f"])
    assert place.batches == []
    place.wake()
    await until(lambda: place.written and place.demand.held["f"] and not place.pods.ready("f"))
    place.wake()
    assert (await sending).sent == 3
    assert [each.key for each in place.written] == ["v0", "v1", "v2"]


async def test_no_more_is_read_than_a_batch_while_one_is_on_its_way(monkeypatch):
    monkeypatch.setattr(sending_kafka, "BATCH", 1000)
    place = Place()
    place.wake()
    place.gate.clear()
    read = []

    async def items():
        for each in range(100):
            read.append(each)
            yield SendItem(data={"vehicle": f"v{each}"})

    sending = asyncio.create_task(place.send(items()))
    await until(lambda: place.batches)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(read) < 20
    place.gate.set()
    assert (await sending).sent == 100


async def test_a_pod_that_takes_no_connection_was_not_asked_so_another_one_is(monkeypatch):
    monkeypatch.setattr(sending_kafka, "_AGAIN", 0.01)
    place = Place()
    place.wake()
    place.replies = [NotAskedError("nobody listens")]
    assert (await place.send(several(2))).sent == 2
    assert len(place.written) == 2


@pytest.mark.parametrize(
    ("reply", "sent", "words"),
    [
        (SendReply(written=1, refusal=Refusal("the broker did not take a record: too large", "h")), 1, "too large"),
        (Refusal("POST /send is not served here", ""), 0, "not served here"),
        (UnreachableError("it ended early"), 0, "pod f-1 did not tell what became of the 2 items after the first 0"),
    ],
    ids=["not-taken", "older-worker", "gone"],
)
async def test_what_was_not_taken_ends_the_sending_and_is_told(reply, sent, words):
    place = Place()
    place.wake()
    place.replies = [reply]
    with pytest.raises(FleetError, match=words) as caught:
        await place.send(several(2))
    assert place.progress.sent == sent
    assert caught.value.hint


async def test_no_pod_is_told_with_its_reason():
    place = Place(wake_limit=0.02)
    with pytest.raises(FleetError, match=r"within 0\.02 s: it is stuck"):
        await place.send(several(1))


async def test_items_before_a_broken_one_are_sent():
    place = Place()
    place.wake()

    async def items():
        yield SendItem(data={"vehicle": "v0"})
        yield SendItem(base64="?")

    with pytest.raises(FleetError, match="base64 does not decode"):
        await place.send(items())
    assert [each.key for each in place.written] == ["v0"]


async def test_nobody_is_woken_to_send_nothing_nor_to_count():
    place = Place()
    line = await place.send(several(0))
    assert (line.sent, line.lag, line.finished) == (0, None, True)
