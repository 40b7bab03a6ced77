"""The worker's delivery socket: events by hand, pushed events, figures."""

import asyncio
import stat
from datetime import UTC, datetime

import msgspec
import pytest
from fleetfn import Tick
from fleetfn.event import Event
from fleetfn.http import Response
from fleetfn.invocation import Again, Done, Emit, Failure, Rejected, Result
from fleetfn.position import At
from fleetfn_runtime.deliver import DeliverServer
from fleetfn_runtime.load import LoadedTrigger
from fleetfn_runtime.push_source import PushSource
from fleetfn_runtime.runs import Route
from fleetfn_spec.control import InvokeReply, InvokeRequest, Refusal
from fleetfn_spec.function import Trigger
from fleetfn_triggers.cron import Cron
from fleetfn_triggers.http import Http
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.push import MSGPACK, OUTCOME, Pushed, Told
from fleetfn_triggers.trigger import EventFields, Reading
from http_doubles import Client, request


class _Handler:
    is_async = has_state = has_snapshot = False


def loaded(spec):
    reading = Reading(trigger=spec.name, function="f", key=spec.key_expression, event=spec.event)
    route = Route(spec.name, _Handler(), 0, timeout=1)
    return LoadedTrigger(spec, route, spec.kind.reader(spec.block, reading))


TRIGGERS = [
    loaded(Trigger(name="telemetry", key="data.vehicle", event=EventFields(id="data.id"), kafka=Kafka(topic="t"))),
    loaded(Trigger(name="records", kafka=Kafka(topic="t"))),
    loaded(Trigger(name="show", key="path.vehicle", http=Http(path="/battery/{vehicle}", methods=("GET",)))),
    loaded(Trigger(name="post", key=None, http=Http(path="/x"))),
    loaded(Trigger(name="live", key="topic.vehicle", mqtt=Mqtt(topic="vehicles/{vehicle}/battery"))),
    loaded(Trigger(name="deep", key="data.vehicle", mqtt=Mqtt(topic="plants/#"))),
    loaded(Trigger(name="nightly", cron=Cron(schedule="@daily", timezone="Europe/Berlin"))),
]


class Road:
    def __init__(self):
        self.taken = []
        self.result = Result(Done())
        self.pushes = PushSource(TRIGGERS, self.taken.extend)
        self.pushes.start()

    async def run_once(self, delivery):
        delivery.invocation = "i-1"
        self.taken.append(delivery)
        return self.result


@pytest.fixture
async def road():
    return Road()


@pytest.fixture
async def server(tmp_path, road):
    server = make(tmp_path / "d.sock", road)
    server.listen()
    yield server
    await server.drain()
    server.close()


def make(path, road):
    return DeliverServer(path, TRIGGERS, run_once=road.run_once, pushes=road.pushes, metrics=lambda: b"up 1\n")


@pytest.fixture
async def client(server):
    client = await Client.connect(str(server.path))
    yield client
    await client.close()


async def invoke(client, **fields):
    answer = await client.ask(request("/invoke", msgspec.json.encode(InvokeRequest(**fields))))
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=InvokeReply)


async def refused(client, **fields):
    answer = await client.ask(request("/invoke", msgspec.json.encode(InvokeRequest(**fields))))
    assert answer.status == 400
    return msgspec.json.decode(answer.body, type=Refusal)


async def test_only_this_user_reaches_it(server):
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


async def test_health_and_figures(client):
    assert (await client.ask(request("/healthz", method="GET"))).status == 200
    assert (await client.ask(request("/metrics", method="GET"))).body == b"up 1\n"
    assert (await client.ask(request("/nothing", method="GET"))).status == 400


async def test_bare_data_is_read_as_a_record_of_the_topic(client, road):
    reply = await invoke(client, event={"data": {"vehicle": "LFV1", "id": "7"}})
    assert (reply.outcome, reply.invocation) == ("done", "i-1")
    delivery = road.taken[0]
    assert (delivery.trigger, delivery.key, delivery.position) == ("telemetry", "LFV1", None)
    assert (delivery.event.id, delivery.event.data) == ("7", b'{"vehicle":"LFV1","id":"7"}')


async def test_each_invocation_is_an_event_of_its_own(client, road):
    for _ in range(2):
        await invoke(client, trigger="records", key="LFV1", event={"data": 1})
    assert [delivery.key for delivery in road.taken] == ["LFV1", "LFV1"]
    assert road.taken[0].event.id != road.taken[1].event.id


async def test_an_event_with_attributes_is_a_cloudevent_with_the_missing_ones_filled_in(client, road):
    await invoke(client, trigger="telemetry", event={"type": "reading", "data": {"vehicle": "LFV1"}})
    event = road.taken[0].event
    assert (event.type, event.source) == ("reading", "fn/invoke")
    assert event.time is not None


async def test_an_http_trigger_gets_a_request(client, road):
    road.result = Result(Done(Response(200, b'{"hottest":61}', {"content-type": "application/json"})))
    reply = await invoke(client, trigger="show", key="LFV 1", event={})
    assert reply.reply == {
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": {"hottest": 61},
    }
    seen = road.taken[0].request
    assert (seen.method, seen.path, seen.path_params) == ("GET", "/battery/LFV 1", {"vehicle": "LFV 1"})
    assert road.taken[0].key == "LFV 1"


async def test_an_http_trigger_gets_the_data_as_its_body(client, road):
    await invoke(client, trigger="post", event={"data": {"a": 1}})
    assert road.taken[0].request.body == b'{"a":1}'
    assert road.taken[0].event.datacontenttype == "application/json"
    await invoke(client, trigger="post", event={"id": "1", "data": {"a": 1}})
    assert road.taken[1].request.headers["ce-id"] == "1"
    assert road.taken[1].event.id == "1"


async def test_bytes_are_given_in_base64(client, road):
    await invoke(client, trigger="records", key="k", event={"data_base64": "aGVsbG8="})
    assert road.taken[0].event.data == b"hello"


async def test_an_mqtt_trigger_gets_a_message_on_the_topic_of_its_key(client, road):
    await invoke(client, trigger="live", key="LFV1", event={"data": {"soc": 61}})
    await invoke(client, trigger="live", topic="vehicles/LFV2/battery", event={"data": {"soc": 62}})
    await invoke(client, trigger="live", event={"subject": "vehicles/LFV3/battery", "type": "t", "data": {"soc": 63}})
    first, second, third = road.taken
    assert [delivery.key for delivery in road.taken] == ["LFV1", "LFV2", "LFV3"]
    assert (first.event.subject, first.event.data) == ("vehicles/LFV1/battery", b'{"soc":61}')
    assert first.event.datacontenttype == "application/json"
    assert first.event.id != second.event.id
    assert (third.event.type, third.event.source) == ("t", "fn/invoke")
    assert first.position is None


async def test_an_mqtt_trigger_whose_topic_is_open_needs_one(client, road):
    assert "plants/#" in (await refused(client, trigger="deep", event={"data": {"vehicle": "a"}})).message
    assert "w/1" in (await refused(client, trigger="live", topic="w/1", event={"data": 1})).message
    assert "'a/b'" in (await refused(client, trigger="live", key="a/b", event={"data": 1})).message
    await invoke(client, trigger="deep", topic="plants/1/x", event={"data": {"vehicle": "a"}})
    assert road.taken[0].key == "a"


async def test_a_clock_fires_for_the_time_named_or_now(client, road):
    await invoke(client, trigger="nightly", event={"time": "2026-03-01T03:30:00+01:00"})
    await invoke(client, trigger="nightly", event={})
    named, now = (msgspec.json.decode(delivery.event.data, type=Tick) for delivery in road.taken)
    assert named == Tick(at=datetime(2026, 3, 1, 2, 30, tzinfo=UTC), timezone="Europe/Berlin")
    assert abs((now.at - datetime.now(UTC)).total_seconds()) < 60
    assert road.taken[0].key == "cron:f/nightly"
    assert road.taken[0].event.id.startswith("f/nightly/2026-03-01T02:30:00Z/invoke-")


@pytest.mark.parametrize(
    ("event", "words"),
    [({"data": {}}, "Tick"), ({"time": "yesterday"}, "yesterday"), ({"time": "2026-03-01T02:30:00"}, "time zone")],
    ids=["data", "no time", "no zone"],
)
async def test_a_clock_takes_nothing_but_a_time(client, road, event, words):
    assert words in (await refused(client, trigger="nightly", event=event)).message
    assert not road.taken


async def test_what_was_emitted_is_shown(client, road):
    event = Event(id="1", source="f", type="alert", datacontenttype="application/json", data=b'{"level":3}')
    road.result = Result(Done(), emits=(Emit("alerts", "LFV1", event),))
    reply = await invoke(client, trigger="records", key="LFV1", event={"data": 1})
    assert reply.emits[0]["output"] == "alerts"
    assert reply.emits[0]["key"] == "LFV1"
    assert reply.emits[0]["event"]["data"] == {"level": 3}


@pytest.mark.parametrize(
    ("outcome", "word", "reason", "traceback"),
    [
        (Rejected("no such vehicle"), "reject", "no such vehicle", ""),
        (Again(after=3, reason="busy"), "retry", "busy", ""),
        (
            Again(failure=Failure("KeyError", "'a'", "handler.py:7", "Traceback")),
            "retry",
            "KeyError: 'a' (handler.py:7)",
            "Traceback",
        ),
    ],
)
async def test_how_it_ended(client, road, outcome, word, reason, traceback):
    road.result = Result(outcome)
    reply = await invoke(client, trigger="records", key="k", event={"data": 1})
    assert (reply.outcome, reply.reason, reply.traceback) == (word, reason, traceback)


async def test_what_cannot_be_invoked_is_said(client, road):
    assert "telemetry, records" in (await refused(client, trigger="nope", event={})).hint
    assert "{vehicle}" in (await refused(client, trigger="show", event={})).message
    assert "LFV2" in (await refused(client, key="LFV2", event={"data": {"vehicle": "LFV1"}})).message
    assert "CloudEvent" in (await refused(client, trigger="post", event={"specversion": "7", "data": 1})).message
    answer = await client.ask(request("/invoke", b"{"))
    assert answer.status == 400
    assert not road.taken


def pushed(*sequences, trigger="records"):
    event = Event(id="1", source="inbox", type="t", data=b"{}")
    return [Pushed(n, trigger, f"a{n}", event, At("inbox:1", 0, n), 2) for n in sequences]


async def chunk(client):
    """Of an answer; None: it has ended."""
    async with asyncio.timeout(30):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        data = (await client.reader.readexactly(size + 2))[:-2]
    return msgspec.msgpack.decode(data, type=list[Told]) if size else None


def push(client, rows):
    client.send(request("/deliver", msgspec.msgpack.encode(rows)))


async def test_a_push_is_answered_at_once_and_told_in_chunks_as_rows_are_settled(client, road):
    push(client, pushed(7, 8, 9))
    answer = await client.answer()
    assert (answer.status, answer.headers[OUTCOME], answer.headers["content-type"]) == (200, "3", MSGPACK)
    assert answer.headers["transfer-encoding"] == "chunked"
    first, second, third = road.taken
    assert (first.trigger, first.key, first.position, first.attempts) == ("records", "a7", At("inbox:1", 0, 7), 2)
    second.source.settle(second, Done())
    first.source.settle(first, Again(after=60))
    assert await chunk(client) == [Told(8, "done"), Told(7, "later")]
    third.source.settle(third, Rejected("no"))
    assert await chunk(client) == [Told(9, "dead")]
    assert await chunk(client) is None
    assert (await client.ask(request("/healthz", method="GET"))).status == 200


async def test_a_push_of_nothing_ends_at_once(client):
    push(client, [])
    assert (await client.answer()).headers[OUTCOME] == "0"
    assert await chunk(client) is None


async def test_a_row_of_an_unknown_trigger_is_lost_and_the_others_are_run(client, road):
    push(client, [*pushed(7, trigger="nope"), *pushed(8)])
    assert (await client.answer()).headers[OUTCOME] == "2"
    [told] = await chunk(client)
    assert (told.sequence, told.outcome) == (7, "lost")
    assert told.after > 0
    assert len(road.taken) == 1


async def test_what_is_told_reaches_a_gateway_that_reads_slowly(client, road):
    rows = pushed(*range(20_000))
    push(client, rows)
    await client.writer.drain()
    await client.answer()
    for delivery in road.taken:
        delivery.source.settle(delivery, Done())
        if delivery.position.offset % 100 == 0:
            await asyncio.sleep(0)
    told = []
    while (some := await chunk(client)) is not None:
        told.extend(some)
    assert [one.sequence for one in told] == list(range(20_000))


async def test_a_gateway_that_is_gone_is_told_nothing(server, road):
    client = await Client.connect(str(server.path))
    push(client, pushed(7))
    await client.answer()
    await client.close()
    [delivery] = road.taken
    assert delivery.source.owns(delivery)
    delivery.source.settle(delivery, Done())


async def test_a_push_that_cannot_be_read_carries_no_outcome(client, road):
    answer = await client.ask(request("/deliver", b"\xc1"))
    assert (answer.status, OUTCOME in answer.headers) == (400, False)
    assert not road.taken


async def test_a_client_that_reads_no_chunks_is_refused(client, road):
    body = msgspec.msgpack.encode(pushed(7))
    answer = await client.ask(request("/deliver", body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.status == 505
    assert not road.taken


async def test_draining_ends_answers_but_those_with_rows_under_way(server, client, road):
    other = await Client.connect(str(server.path))
    push(client, pushed(7))
    await client.answer()
    push(other, pushed(8))
    await other.answer()
    began, waiting = road.taken
    began.invocation = "i-1"
    road.pushes.stop()
    await server.drain()
    assert await chunk(other) == [Told(8, "lost")]
    assert await chunk(other) is None
    assert not waiting.source.owns(waiting)
    began.source.settle(began, Done())
    assert await chunk(client) == [Told(7, "done")]
    assert await chunk(client) is None
    assert await client.ended()
    assert await other.ended()
    await other.close()


async def test_draining_ends_connections_that_nothing_is_asked_on(server, client):
    await client.ask(request("/healthz", method="GET"))
    await server.drain()
    assert await client.ended()


async def test_what_is_pushed_while_it_drains_is_left_to_another_worker(server, client, road):
    road.pushes.stop()
    push(client, pushed(9))
    await client.answer()
    assert await chunk(client) == [Told(9, "lost")]
    assert not road.taken


async def test_a_stale_socket_is_replaced_and_removed_in_the_end(tmp_path, road):
    for _ in range(2):
        server = make(tmp_path / "d.sock", road)
        server.listen()
        (tmp_path / "d.sock").touch()
        await server.drain()
        server.close()
    assert not (tmp_path / "d.sock").exists()
