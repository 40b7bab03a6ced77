"""The worker's client of its gateway: what is grouped, in which order, and what its failures become."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.position import At
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_runtime import gateway_inbox
from fleetfn_runtime.gateway_inbox import GatewayInbox
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Passed
from fleetfn_triggers.inbox import Arrival, Claim, Claimed, Letter, Offer
from http_doubles import until

EVENT = Event(id="1", source="/test", type="t", data=b"{}")
TYPES = {"/v1/put": list[Arrival], "/v1/offer": list[Offer], "/v1/bury": list[Letter]}


def arrival(n):
    return Arrival(function="f", trigger="t", key=f"car{n}", event=EVENT)


def offer(n):
    return Offer(
        function="f", trigger="t", key="car", event=EVENT, position=At("kafka:t:1", 0, n), attempts=1, due=None
    )


def letter(n, detail="no"):
    return Letter(
        function="f",
        trigger="t",
        key="car",
        event=EVENT,
        position=At("kafka:t:1", 0, n),
        attempts=1,
        revision="r",
        reason="rejected",
        detail=detail,
        failure=None,
        created=1.0,
    )


class FakeGateway:
    """Keeps what it is asked. `answer(path, items)` gives (status, body); it is held while `held` is set."""

    def __init__(self, path):
        self.path = path
        self.asked = []
        self.connections = 0
        self.answer = lambda _, items: (200, msgspec.msgpack.encode(list(range(len(items)))))
        self.going = asyncio.Event()
        self.going.set()
        self._writers = []

    async def start(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def close(self):
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                length = next(int(line.split(": ")[1]) for line in head if line.startswith("content-length"))
                body = await reader.readexactly(length)
                path = head[0].split(" ")[1]
                items = msgspec.msgpack.decode(body, type=TYPES.get(path, object))
                self.asked.append((path, items))
                await self.going.wait()
                status, body = self.answer(path, items)
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def refuse(self, status, message="no room", hint="make some"):
        self.answer = lambda *_: (status, msgspec.json.encode(Refusal(message, hint)))

    def sizes(self, path):
        return [len(items) for asked, items in self.asked if asked == path]


@pytest.fixture
def socket():
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        yield Path(folder) / "gateway.sock"


@pytest.fixture
async def gateway(socket):
    gateway = await FakeGateway(str(socket)).start()
    yield gateway
    gateway.going.set()
    await gateway.close()


@pytest.fixture
async def inbox(socket):
    inbox = GatewayInbox(UnixClient(socket), limit=60)
    yield inbox
    await inbox.close()


async def test_nothing_is_opened_before_it_is_asked(inbox, gateway):
    await asyncio.sleep(0)
    assert not gateway.connections
    assert await inbox.put([arrival(0), arrival(1)]) == [0, 1]
    assert gateway.connections == 1
    assert await inbox.put([]) == []
    assert len(gateway.asked) == 1


async def test_calls_of_one_turn_share_a_request_and_get_their_own_results(inbox, gateway):
    calls = [inbox.put([arrival(0)]), inbox.put([arrival(1), arrival(2)]), inbox.put([arrival(3)])]
    assert await asyncio.gather(*calls) == [[0], [1, 2], [3]]
    assert [(path, [one.key for one in items]) for path, items in gateway.asked] == [
        ("/v1/put", ["car0", "car1", "car2", "car3"])
    ]


async def test_what_comes_while_a_request_is_on_its_way_goes_into_the_next_one(inbox, gateway):
    gateway.going.clear()
    first = asyncio.create_task(inbox.bury([letter(0)]))
    await until(lambda: gateway.asked)
    later = [asyncio.create_task(inbox.bury([letter(n)])) for n in range(1, 4)]
    await asyncio.sleep(0.02)
    assert gateway.sizes("/v1/bury") == [1]
    gateway.going.set()
    await asyncio.gather(first, *later)
    assert gateway.sizes("/v1/bury") == [1, 3]
    assert [one.position.offset for _, items in gateway.asked for one in items] == [0, 1, 2, 3]


async def test_kinds_do_not_wait_for_each_other(inbox, gateway):
    gateway.answer = lambda path, items: (
        200,
        msgspec.msgpack.encode(["free"] * len(items) if path == "/v1/offer" else [1] * len(items)),
    )
    gateway.going.clear()
    calls = [asyncio.create_task(call) for call in (inbox.bury([letter(0)]), inbox.offer([offer(1)]))]
    await until(lambda: len(gateway.asked) == 2)
    gateway.going.set()
    assert await asyncio.gather(*calls) == [[1], ["free"]]


async def test_requests_are_bounded(inbox, gateway, monkeypatch):
    monkeypatch.setattr(gateway_inbox, "BATCH", 4)
    await asyncio.gather(*(inbox.put([arrival(n)] * size) for n, size in enumerate([3, 1, 1, 9, 2])))
    assert gateway.sizes("/v1/put") == [4, 1, 9, 2]


async def test_claims_and_commits(inbox, gateway):
    claimed = Claimed(epochs={0: 7}, held=frozenset({"car"}))
    gateway.answer = lambda path, _: (200, msgspec.msgpack.encode(claimed)) if path == "/v1/claim" else (204, b"")
    claim = Claim(function="f", trigger="t", stream="kafka:t:1", partitions={0: None, 1: 5})
    assert await inbox.claim(claim) == claimed
    await inbox.passed("f", "t", "kafka:t:1", {0: 9})
    (_, first), (_, second) = gateway.asked
    assert msgspec.convert(first, Claim, strict=False) == claim
    said = Passed(function="f", trigger="t", stream="kafka:t:1", offsets={0: 9})
    assert msgspec.convert(second, Passed, strict=False) == said


async def test_a_refusal_keeps_its_words(inbox, gateway):
    gateway.refuse(507)
    with pytest.raises(StoreError) as caught:
        await inbox.put([arrival(0)])
    assert (caught.value.message, caught.value.hint) == ("no room", "make some")


async def test_one_that_cannot_be_taken_keeps_no_other(inbox, gateway):
    def answer(_, items):
        if any(one.key == "car1" for one in items):
            return 400, msgspec.json.encode(Refusal("bad car"))
        return 200, msgspec.msgpack.encode([5] * len(items))

    gateway.answer = answer
    results = await asyncio.gather(*(inbox.put([arrival(n)]) for n in range(3)), return_exceptions=True)
    assert results[0] == results[2] == [5]
    assert isinstance(results[1], StoreError)


async def test_a_gateway_that_is_full_is_asked_once_for_all(inbox, gateway):
    gateway.refuse(507)
    results = await asyncio.gather(*(inbox.put([arrival(n)]) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert len(gateway.asked) == 1


async def test_nobody_there_is_an_error_until_somebody_is(inbox, socket):
    with pytest.raises(StoreError, match="does not answer"):
        await inbox.put([arrival(0)])
    gateway = await FakeGateway(str(socket)).start()
    assert await inbox.put([arrival(0)]) == [0]
    await gateway.close()


async def test_an_answer_that_does_not_come_is_an_error(socket, gateway):
    inbox = GatewayInbox(UnixClient(socket), limit=0.05)
    gateway.going.clear()
    with pytest.raises(StoreError, match="did not answer"):
        await inbox.put([arrival(0)])
    gateway.going.set()
    inbox._limit = 60
    assert await inbox.put([arrival(0)]) == [0]
    await inbox.close()


@pytest.mark.parametrize("body", [b"\xc1", msgspec.msgpack.encode([1, 2])], ids=["no msgpack", "too many"])
async def test_an_answer_that_makes_no_sense_is_an_error(inbox, gateway, body):
    gateway.answer = lambda *_: (200, body)
    with pytest.raises(StoreError):
        await inbox.put([arrival(0)])


async def test_a_letter_survives_text_that_cannot_be_encoded(inbox, gateway):
    assert await inbox.bury([letter(0, detail="bad \udcff name")]) == [0]
    [(_, [kept])] = gateway.asked
    assert kept.detail == "bad ? name"
    assert kept == letter(0, detail="bad ? name")


async def test_who_waits_when_it_is_closed_is_told(inbox, gateway):
    gateway.going.clear()
    waiting = [asyncio.create_task(inbox.put([arrival(0)]))]
    await until(lambda: gateway.asked)
    waiting.append(asyncio.create_task(inbox.put([arrival(1)])))
    await asyncio.sleep(0)
    await inbox.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
