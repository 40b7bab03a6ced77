"""Items that `fn send` gives a gateway: where they go, and what is told of them meanwhile."""

import asyncio

import msgspec
import pytest
from fleetfn.errors import FleetError
from fleetfn_gateway.cluster.send_calls import SendCalls
from fleetfn_spec.control import SendLine
from fleetfn_triggers.mqtt_connection import MqttConnection
from gateway_doubles import cron, function, mqtt

SHOW = {"name": "show", "key": "path.vehicle", "http": {"path": "/battery/{vehicle}", "methods": ["PUT"]}}


class Worker:
    """What sends to Kafka."""

    async def send(self, name, trigger, kafka, items, progress):
        progress.count(len([each async for each in items]) - 1)
        raise FleetError(f"{name} {trigger.name} {kafka.topic}: the last one was not taken")


@pytest.fixture(autouse=True)
def _nothing_told_meanwhile(monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.sending._TELL_EVERY", 600.0)


@pytest.fixture
async def server():
    """A function's way in: notes requests, answers each."""

    async def accepted(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        server.requests.append((head.split(b" HTTP")[0], await reader.readexactly(size)))
        writer.write(b"HTTP/1.1 202 Accepted\r\nx-own: 1\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthere")
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    server.requests = []
    server.port = server.sockets[0].getsockname()[1]
    yield server
    server.close()


async def sent(made, *bodies, port=None):
    """Lines that are told, of a request's body in these blocks; None: its sender leaves."""
    messages = [
        {"type": "http.disconnect"} if body is None else {"type": "http.request", "body": body, "more_body": True}
        for body in bodies
    ]
    blocks = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])
    told = []

    async def receive():
        return next(blocks)

    async def send(message):
        told.append(message)

    calls = SendCalls(lambda _: port, "127.0.0.1", Worker())
    await calls.answer(made, made.function.spec.triggers[0], receive, send)
    assert told[0]["status"] == 200
    assert told[-1] == {"type": "http.response.body", "body": b""}
    return [msgspec.json.decode(each["body"], type=SendLine) for each in told[1:-1]]


async def test_requests_go_by_the_way_that_wakes(server):
    items = b'{"key": "v/1", "data": {"a": 1}}\n\n{"key": "v2", "ba'
    [line] = await sent(function(SHOW), items, b'se64": "aGk="}\n', port=server.port)
    assert server.requests == [(b"PUT /battery/v%2F1", b'{"a":1}'), (b"PUT /battery/v2", b"hi")]
    assert (line.sent, line.finished) == (2, True)
    assert (line.reply["status"], line.reply["headers"]["x-own"], line.reply["body"]) == (202, "1", "there")


@pytest.mark.parametrize(
    ("made", "body", "words"),
    [
        (function(SHOW), b'{"key": "v1"}\n', "the gateway has no port for requests to 'f'"),
        (function(cron()), b"{}\n", "'nightly' is a clock"),
        (function(mqtt()), b"{}\n", "'live' has no connection in environment 'test'"),
    ],
    ids=["no-port", "clock", "no-connection"],
)
async def test_what_cannot_be_sent_is_refused_in_words(made, body, words):
    [line] = await sent(made, body)
    assert words in line.refusal.message


async def test_kafka_is_a_workers_business_and_what_was_sent_before_a_refusal_is_told():
    [line] = await sent(function({"name": "k", "kafka": {"topic": "t"}}), b"{}\n{}\n{}\n")
    assert (line.sent, line.refusal.message) == (2, "f k t: the last one was not taken")


async def test_items_that_cannot_be_read_end_the_sending(server):
    [line] = await sent(function(SHOW), b'{"key": "v1", "data": 1}\n{"ke\n', port=server.port)
    assert "an item cannot be read" in line.refusal.message
    assert len(server.requests) == 1
    [line] = await sent(function(SHOW), None, port=server.port)
    assert "left before" in line.refusal.message


async def test_a_broker_that_is_away_is_told():
    made = function(mqtt(), mqtt={"mqtt": MqttConnection(url="mqtt://127.0.0.1:21399")})
    [line] = await sent(made, b'{"topic": "vehicles/v1/battery", "data": 1}\n')
    assert "127.0.0.1:21399" in line.refusal.message


async def test_a_function_that_does_not_answer_is_told():
    [line] = await sent(function(SHOW), b'{"key": "v1"}\n', port=21398)
    assert "PUT /battery/v1 of f got no answer" in line.refusal.message
