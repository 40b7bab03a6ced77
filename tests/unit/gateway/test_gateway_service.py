"""The gateway's calls, as its ASGI application answers them over the real queue."""

import time
from typing import ClassVar

import msgspec
import pytest
from fleetfn.position import At
from fleetfn_gateway import gateway as gateway_module
from fleetfn_gateway import registry
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.owner import Nobody
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.service import Service
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Fired, FireRequest, GatewayStatus, Redrive
from fleetfn_triggers.inbox import Claim, Claimed, Letter, Offer, Row, Which
from gateway_doubles import arrival, cron, function, http, until

QUOTA = 2**30
FOR_EVER = 1e10
PLACE = {"function": "f", "trigger": "t", "key": "k", "event": arrival(1).event}
OFFER = Offer(**PLACE, position=At("kafka:x:", 0, 5), attempts=1, due=None, epoch=1)


def letter(number, **more):
    fields = {**PLACE, "attempts": 5, "revision": "abc123", "reason": "attempts", "detail": "no", "failure": None}
    return Letter(**{**fields, "created": 1000.0 + number, "position": At("kafka:x:", 0, number), **more})


class FakeClock:
    problem = ""
    next_fire = 2000.0
    last_fire = 1000.0
    left_out = 3
    ended: ClassVar = []

    def __init__(self, *_): ...

    async def start(self): ...

    async def close(self, *, forget=False):
        self.ended.append("forgotten" if forget else "closed")

    async def fire(self, at=None):
        return Fired(sequence=7, id="fire", at=1.5 if at is None else at)


class Caller:
    def __init__(self, gateway):
        self.gateway = gateway
        self._service = Service(gateway)

    async def call(self, method, path, body=b"", *, blocks=None):
        """(status, body)"""
        path, _, query = path.partition("?")
        blocks = iter([body] if blocks is None else blocks)
        sent = []

        async def receive():
            block = next(blocks, None)
            if block is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": block, "more_body": block != body}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
        await self._service(scope, receive, send)
        return (sent[0]["status"], sent[1]["body"]) if sent else None

    async def inbox(self, name, value, kind):
        status, body = await self.call("POST", f"/v1/{name}", msgspec.msgpack.encode(value))
        assert status == 200, body
        return msgspec.msgpack.decode(body, type=kind)

    async def json(self, method, path, value=None, kind=None):
        status, body = await self.call(method, path, b"" if value is None else registry.encode(value))
        assert status < 300, body
        return msgspec.json.decode(body, type=kind) if kind is not None else body

    async def refusal(self, method, path, body=b""):
        """(status, message)"""
        status, said = await self.call(method, path, body)
        assert status >= 400
        return status, msgspec.json.decode(said, type=Refusal).message

    async def dead(self, query=""):
        found = await self.json("GET", f"/v1/dlq?{query}", kind=dict)
        return msgspec.convert(found["rows"], list[Row]), found["after"]


def gateway_of(queue, data, retention=3600.0):
    return Gateway(queue, Nobody(), data=data, retention=retention, factories={"cron": FakeClock})


@pytest.fixture
async def queue(tmp_path):
    queue = await Queue.open(tmp_path / "inbox.db", quota=QUOTA)
    yield queue
    await queue.close()


@pytest.fixture
async def caller(queue, tmp_path):
    gateway = gateway_of(queue, tmp_path, retention=FOR_EVER)
    await gateway.open()
    yield Caller(gateway)
    await gateway.close(0)


async def test_a_workers_calls_reach_the_inbox(caller, queue):
    assert await caller.inbox("put", [arrival(1), arrival(2)], list[int]) == [1, 2]
    assert (await queue.get(1)).event == arrival(1).event
    claim = Claim(function="f", trigger="t", stream="kafka:x:", partitions={0: 5})
    assert await caller.inbox("claim", claim, Claimed) == Claimed(epochs={0: 1}, held=frozenset())
    assert await caller.inbox("offer", [OFFER], list[str]) == ["free"]
    assert await caller.inbox("bury", [letter(9)], list[int]) == [3]
    passed = {"function": "f", "trigger": "t", "stream": "kafka:x:", "offsets": {0: 6}}
    assert await caller.call("POST", "/v1/passed", msgspec.msgpack.encode(passed)) == (204, b"")


async def test_functions_are_told_changed_and_forgotten(caller):
    assert await caller.call("PUT", "/v1/functions", registry.encode([function(), function(name="g")])) == (204, b"")
    assert await caller.call("PUT", "/v1/functions/h", registry.encode(function(name="h"))) == (204, b"")
    status = await caller.json("GET", "/v1/gateway", kind=GatewayStatus)
    assert set(status.functions) == {"f", "g", "h"}
    assert await caller.call("DELETE", "/v1/functions/g?rows=keep") == (204, b"")
    assert await caller.call("PUT", "/v1/functions", registry.encode([function()])) == (204, b"")
    status = await caller.json("GET", "/v1/gateway", kind=GatewayStatus)
    assert set(status.functions) == {"f"}


async def test_functions_are_there_after_a_restart(caller, queue, tmp_path):
    told = function(cron(), http(), paused=("nightly",))
    await caller.json("PUT", "/v1/functions/f", told)
    await caller.gateway.close(0)
    again = gateway_of(queue, tmp_path)
    await again.open()
    assert set(again.status().functions) == {"f"}
    assert again._registry.functions == {"f": told}
    await again.close(0)


async def test_a_file_whose_functions_cannot_be_read_keeps_its_rows(queue, tmp_path):
    await queue.put([arrival(1)], notes={"gateway/functions": b"[{]"})
    gateway = gateway_of(queue, tmp_path)
    await gateway.open()
    assert gateway.status().functions["f"]["t"].waiting == 1
    await gateway.replace([function()])
    assert gateway.status().functions["f"]["t"].problem != ""
    await gateway.close(0)


async def test_a_functions_sources_are_let_go_only_when_it_is_deleted(caller, monkeypatch):
    monkeypatch.setattr(FakeClock, "ended", [])
    await caller.json("PUT", "/v1/functions/f", function(cron()))
    await caller.json("PUT", "/v1/functions", [])
    await caller.json("PUT", "/v1/functions", [function(cron())])
    await caller.json("DELETE", "/v1/functions/f")
    assert FakeClock.ended == ["closed", "closed", "forgotten"]


@pytest.mark.parametrize(("rows", "waiting", "dead"), [("keep", 1, 1), ("drop", 0, 0)])
async def test_rows_of_a_deleted_function_are_kept_or_dropped(caller, queue, rows, waiting, dead):
    await caller.json("PUT", "/v1/functions/f", function())
    await queue.put([arrival(1)])
    await queue.bury([letter(1)])
    await caller.json("DELETE", f"/v1/functions/f?rows={rows}")
    counts = queue.counts().get("f", {}).get("t")
    assert (0 if counts is None else counts.waiting, 0 if counts is None else counts.dead) == (waiting, dead)


async def test_letters_that_nobody_would_run_are_not_redriven(caller, queue):
    await queue.bury([letter(1)])
    redrive = registry.encode(Redrive(which=Which()))
    status, body = await caller.call("POST", "/v1/dlq/redrive", redrive)
    refusal = msgspec.json.decode(body, type=Refusal)
    assert (status, refusal.message) == (
        400,
        "nothing is redriven: function 'f' is not deployed, so nobody would run its dead letters",
    )
    assert refusal.hint.startswith("deploy it first, or discard them")
    assert await caller.json("POST", "/v1/dlq/redrive", Redrive(which=Which(), dry_run=True), dict) == {"redriven": 1}
    await caller.json("PUT", "/v1/functions/f", function(http("u")))
    status, body = await caller.call("POST", "/v1/dlq/redrive", redrive)
    assert status == 400
    assert "has no trigger 't' any more" in msgspec.json.decode(body, type=Refusal).message
    other = Which(function="f", trigger="u")
    assert await caller.json("POST", "/v1/dlq/redrive", Redrive(which=other), dict) == {"redriven": 0}
    await caller.json("PUT", "/v1/functions/f", function())
    assert await caller.json("POST", "/v1/dlq/redrive", Redrive(which=Which()), dict) == {"redriven": 1}


async def test_rows_of_a_trigger_that_is_gone_are_kept_and_told(caller, queue):
    await caller.json("PUT", "/v1/functions/f", function(http("t"), http("u")))
    await queue.put([arrival(1)])
    await caller.json("PUT", "/v1/functions/f", function(http("u")))
    status = await caller.json("GET", "/v1/gateway", kind=GatewayStatus)
    assert status.functions["f"]["t"].waiting == 1
    assert "no such trigger any more" in status.functions["f"]["t"].problem


async def test_the_status_tells_of_the_inbox_and_of_clocks(caller, queue, tmp_path):
    await caller.json("PUT", "/v1/functions/f", function(cron(), http()))
    await queue.put([arrival(1)])
    status = await caller.json("GET", "/v1/gateway", kind=GatewayStatus)
    assert (status.data, status.quota, status.accepting, status.problem) == (str(tmp_path), QUOTA, True, "")
    assert status.bytes > 0
    clock = status.functions["f"]["nightly"]
    assert (clock.next_fire, clock.last_fire, clock.waiting) == (2000.0, 1000.0, 0)
    assert status.functions["f"]["t"].waiting == 1


async def test_a_clock_is_fired_by_hand(caller):
    await caller.json("PUT", "/v1/functions/f", function(cron(), http()))
    request = FireRequest(trigger="nightly", at=12.0)
    assert await caller.json("POST", "/v1/functions/f/fire", request, Fired) == Fired(sequence=7, id="fire", at=12.0)
    assert await caller.refusal("POST", "/v1/functions/g/fire", b'{"trigger":"nightly"}') == (
        404,
        "there is no function 'g'",
    )
    assert (await caller.refusal("POST", "/v1/functions/f/fire", b'{"trigger":"x"}'))[0] == 404
    assert await caller.refusal("POST", "/v1/functions/f/fire", b'{"trigger":"t"}') == (
        400,
        "trigger 't' is of kind http: cron triggers alone are fired",
    )


async def test_dead_letters_are_listed_by_page_and_by_choice(caller, queue):
    await queue.bury([letter(number, key=f"k{number % 2}") for number in range(5)])
    rows, after = await caller.dead("limit=2")
    assert [row.created for row in rows] == [1000.0, 1001.0]
    rows, after = await caller.dead(f"limit=100&after={after}")
    assert ([row.created for row in rows], after) == ([1002.0, 1003.0, 1004.0], None)
    assert len((await caller.dead("key=k1"))[0]) == 2
    assert len((await caller.dead("before=1001.5&function=f&trigger=t&reason=attempts"))[0]) == 2
    assert (await caller.dead("function=other"))[0] == []


async def test_one_row_is_shown_whole(caller, queue):
    (sequence,) = await queue.bury([letter(1)])
    row = await caller.json("GET", f"/v1/dlq/{sequence}", kind=Row)
    assert (row.event, row.position, row.status) == (PLACE["event"], At("kafka:x:", 0, 1), "dead")
    assert (await caller.refusal("GET", "/v1/dlq/99"))[0] == 404
    assert (await caller.refusal("GET", f"/v1/dlq/{10**30}"))[0] == 404
    assert (await caller.refusal("GET", "/v1/dlq/x"))[0] == 404


async def test_dead_letters_are_redriven_and_discarded(caller, queue):
    await caller.json("PUT", "/v1/functions/f", function())
    await queue.bury([letter(number, key=f"k{number}") for number in range(5)])
    some = Which(sequences=(1, 2))
    assert await caller.json("POST", "/v1/dlq/redrive", Redrive(which=some, dry_run=True), dict) == {"redriven": 2}
    assert queue.counts()["f"]["t"].dead == 5
    assert await caller.json("POST", "/v1/dlq/redrive", Redrive(which=some), dict) == {"redriven": 2}
    assert await caller.json("POST", "/v1/dlq/discard", Which(key="k3"), dict) == {"discarded": 1}
    counts = queue.counts()["f"]["t"]
    assert (counts.waiting, counts.dead) == (2, 2)


async def test_a_redrive_with_a_rate_goes_on_by_itself(caller, queue):
    await caller.json("PUT", "/v1/functions/f", function())
    await queue.bury([letter(number, key=f"k{number}") for number in range(30)])
    asked = Redrive(which=Which(function="f"), rate=30)
    assert await caller.json("POST", "/v1/dlq/redrive", asked, dict) == {"redriven": 30}
    assert queue.counts()["f"]["t"].dead > 0
    await until(lambda: queue.counts()["f"]["t"].waiting == 30)


async def test_dead_letters_that_are_too_old_are_dropped(queue, tmp_path, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.ages.STEADY", 0.0)
    now = time.time()
    await queue.bury([letter(1, created=now - 7200), letter(2, created=now)])
    gateway = gateway_of(queue, tmp_path, retention=3600.0)
    await gateway.open()
    await until(lambda: queue.counts()["f"]["t"].dead == 1)
    await gateway.close(0)


async def test_no_dead_letter_is_too_old_until_the_clock_was_steady(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(gateway_module, "_HOUSE", 0.01)
    passed, looks = 0.0, 0

    def even():
        nonlocal looks
        looks += 1
        return passed

    await queue.bury([letter(1, created=time.time() - 7200)])
    times = {"clock": lambda: 1.8e9 + passed, "monotonic": even}
    gateway = Gateway(queue, Nobody(), data=tmp_path, retention=3600.0, factories={}, **times)
    await gateway.open()
    await until(lambda: looks > 4)
    assert queue.counts()["f"]["t"].dead == 1
    passed = 3600.0
    await until(lambda: not queue.counts())
    await gateway.close(0)


async def test_a_defect_does_not_end_housekeeping(queue, tmp_path, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.ages.STEADY", 0.0)
    monkeypatch.setattr(gateway_module, "_HOUSE", 0.01)
    await queue.bury([letter(1, created=time.time() - 7200)])
    gateway = Gateway(FailsOnce(queue), Nobody(), data=tmp_path, retention=3600.0, factories={})
    await gateway.open()
    await until(lambda: not queue.counts())
    await gateway.close(0)


class FailsOnce:
    """A queue whose first look for old letters finds a defect."""

    def __init__(self, queue):
        self._queue = queue
        self._failed = False

    def __getattr__(self, name):
        return getattr(self._queue, name)

    async def expire(self, older_than):
        if not self._failed:
            self._failed = True
            raise RuntimeError("a defect")
        return await self._queue.expire(older_than)


async def test_metrics_name_function_and_trigger(caller, queue):
    await caller.json("PUT", "/v1/functions/f", function(cron()))
    await queue.put([arrival(1), arrival(2)])
    await queue.bury([letter(1)])
    text = (await caller.json("GET", "/metrics")).decode()
    assert 'fleetfn_gateway_waiting{function="f",trigger="t"} 2' in text
    assert 'fleetfn_gateway_dead{function="f",trigger="t"} 1' in text
    assert 'fleetfn_gateway_fires_left_out_total{function="f",trigger="nightly"} 3' in text
    assert "fleetfn_gateway_arrivals_total 2" in text
    assert f"fleetfn_gateway_inbox_quota_bytes {QUOTA}" in text


async def test_a_full_inbox_answers_507_and_says_so(tmp_path):
    queue = await Queue.open(tmp_path / "full.db", quota=1)
    gateway = gateway_of(queue, tmp_path)
    await gateway.open()
    caller = Caller(gateway)
    status, said = await caller.refusal("POST", "/v1/put", msgspec.msgpack.encode([arrival(1)]))
    assert (status, "over its quota" in said) == (507, True)
    offer = msgspec.structs.replace(OFFER, epoch=0, due=2e9)
    assert (await caller.refusal("POST", "/v1/offer", msgspec.msgpack.encode([offer])))[0] == 507
    await caller.json("PUT", "/v1/functions/f", function(http(), paused=("t",)))  # functions change all the same
    told = await caller.json("GET", "/v1/gateway", kind=GatewayStatus)
    assert not told.accepting
    assert b"fleetfn_gateway_arrivals_refused_total 1" in await caller.json("GET", "/metrics")
    assert "over its quota" in told.problem
    await gateway.close(0)
    await queue.close()


async def test_an_inbox_that_is_gone_answers_503(caller, tmp_path):
    for path in tmp_path.glob("inbox.db*"):
        path.unlink()
    status, said = await caller.refusal("POST", "/v1/put", msgspec.msgpack.encode([arrival(1)]))
    assert (status, "removed or replaced" in said) == (503, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/put", b"", 400),
        ("POST", "/v1/put", b"\xc1\xff rubbish", 400),
        ("POST", "/v1/put", msgspec.msgpack.encode({"not": "a list"}), 400),
        ("POST", "/v1/put", b"\x91" * 100_000, 400),
        ("POST", "/v1/claim", b"\x80", 400),
        ("PUT", "/v1/functions", b"{}", 400),
        ("PUT", "/v1/functions/f", b"[" * 100_000, 400),
        ("PUT", "/v1/functions/f", b"\xff\xfe", 400),
        ("PUT", "/v1/functions/other", registry.encode(function()), 400),
        ("DELETE", "/v1/functions/f?rows=some", b"", 400),
        ("GET", "/v1/dlq?limit=many", b"", 400),
        ("GET", "/v1/dlq?after=-1", b"", 400),
        ("GET", "/v1/dlq?before=nan", b"", 400),
        ("POST", "/v1/dlq/redrive", b'{"which":{},"rate":0}', 400),
        ("POST", "/v1/dlq/redrive", b'{"which":{},"rate":-1}', 400),
        ("POST", "/v1/dlq/discard", b"[]", 400),
        ("POST", "/v1/functions/f/fire", b"{}", 400),
        ("GET", "/", b"", 404),
        ("GET", "/v1/put", b"", 404),
        ("PATCH", "/v1/functions/f", b"", 404),
        ("POST", "/v1/dlq/7/again", b"", 404),
    ],
)
async def test_what_cannot_be_read_is_refused(caller, queue, method, path, body, status):
    assert (await caller.refusal(method, path, body))[0] == status
    assert queue.counts() == {}


async def test_a_body_without_end_is_refused(caller, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.service.BODY_LIMIT", 1000)
    status, _ = await caller.call("POST", "/v1/put", blocks=(b"x" * 100 for _ in range(100)))
    assert status == 413


async def test_a_caller_that_leaves_amid_its_request_changes_nothing(caller, queue):
    body = msgspec.msgpack.encode([arrival(1)])
    assert await caller.call("POST", "/v1/put", body, blocks=[body[:10]]) is None
    assert queue.counts() == {}
