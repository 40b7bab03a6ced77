"""Http outputs: what is sent, which answers are success, an outage or a refusal, and in which order events leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from fleetfn.cloudevents import http as codec
from fleetfn.errors import FleetError, OutputDown, OutputError, OutputRefused
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn_runtime.http_output import AT_ONCE, HttpPublisher
from fleetfn_triggers.http_output import HttpOutput
from fleetfn_triggers.secret import Secret
from http_receiver import Received, Receiver, receiving

TOKEN = "s3cr3t-4711"  # noqa: S105 - a test's


def resolve(reference: Secret) -> str:
    if reference.env != "TOKEN":
        raise FleetError(f"{reference}: the environment has no {reference.env}")
    return TOKEN


def emit(body: bytes | None = b'{"level":3}', *, key: str | None = "V1", output: str = "alerts", id: str = "1") -> Emit:  # noqa: A002 - as an event's
    event: Event[bytes | None] = Event(
        id=id, source="/functions/f", type="f.alerts", subject=key, datacontenttype="application/json", data=body
    )
    return Emit(output, key, event)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def publisher(receiver: Receiver) -> AsyncIterator[HttpPublisher]:
    made = HttpPublisher({"alerts": HttpOutput(url=receiver.url, timeout=60.0)}, resolve=resolve)
    yield made
    await made.close()


async def one(publisher: HttpPublisher, sent: Emit | None = None) -> OutputError | None:
    (result,) = await publisher.publish([sent or emit()])
    return result


async def test_an_event_becomes_a_binary_cloudevent(publisher: HttpPublisher, receiver: Receiver) -> None:
    sent = emit()
    publisher.check(sent)
    assert await one(publisher, sent) is None
    (request,) = receiver.received
    assert (request.method, request.path, request.body) == ("POST", "/in", b'{"level":3}')
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-length"] == "11"
    assert request.headers["ce-type"] == "f.alerts"
    known = {name: value for name, value in request.headers.items() if name != "user-agent"}
    assert codec.decode(known, request.body) == sent.event


async def test_an_event_without_data_is_sent_without_a_body(publisher: HttpPublisher, receiver: Receiver) -> None:
    assert await one(publisher, emit(None, key=None)) is None
    assert receiver.bodies == [b""]
    assert receiver.received[0].headers["content-length"] == "0"


async def test_method_and_headers_are_those_of_the_output(receiver: Receiver) -> None:
    output = HttpOutput(
        url=f"{receiver.url}?a=b", method="PUT", headers={"Authorization": Secret(env="TOKEN"), "x-fleet": "7"}
    )
    publisher = HttpPublisher({"alerts": output}, resolve=resolve)
    assert await one(publisher) is None
    (request,) = receiver.received
    assert (request.method, request.path) == ("PUT", "/in?a=b")
    assert (request.headers["authorization"], request.headers["x-fleet"]) == (TOKEN, "7")
    await publisher.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_is_success(publisher: HttpPublisher, receiver: Receiver, status: int) -> None:
    receiver.usual = (status, {}, b"")
    assert await one(publisher) is None


@pytest.mark.parametrize("status", [401, 407, 408, 425, 429, 500, 502, 503, 504])
async def test_what_may_change_is_an_outage(publisher: HttpPublisher, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {}, b"not\n now")]
    error = await one(publisher)
    assert isinstance(error, OutputDown)
    assert error.message == f"{receiver.url} answers {status}: not now"
    assert await one(publisher) is None


@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 413, 415, 422])
async def test_what_is_about_the_event_is_refused_for_good(
    publisher: HttpPublisher, receiver: Receiver, status: int
) -> None:
    receiver.usual = (status, {}, b'{"error": "no such vehicle"}')
    error = await one(publisher)
    assert isinstance(error, OutputRefused)
    assert error.message == f'output "alerts": {receiver.url} answers {status}: {{"error": "no such vehicle"}}'


async def test_redirects_are_not_followed(publisher: HttpPublisher, receiver: Receiver) -> None:
    receiver.usual = (307, {"location": "https://elsewhere.example/in?token=x"}, b"")
    error = await one(publisher)
    assert isinstance(error, OutputRefused)
    assert "answers 307, to https://elsewhere.example/in?..." in error.message
    assert error.hint == "redirects are not followed: write the URL they lead to"
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "after",
    [
        lambda: "30",
        lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True),
        lambda: "86400",
    ],
    ids=["seconds", "date", "a day"],
)
async def test_retry_after_is_kept_to_within_bounds(
    publisher: HttpPublisher, receiver: Receiver, after: Callable[[], str]
) -> None:
    receiver.answers = [(503, {"retry-after": after()}, b"")]
    assert isinstance(await one(publisher), OutputDown)
    error = await one(publisher)
    assert isinstance(error, OutputDown)
    assert "and asks to wait" in error.message
    assert len(receiver.received) == 1
    (until, _) = publisher._away_until["alerts"]
    assert 20 < until - time.monotonic() <= 60


@pytest.mark.parametrize("after", ["soon", "-5", "", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_retry_after_that_says_nothing_keeps_nobody_away(
    publisher: HttpPublisher, receiver: Receiver, after: str
) -> None:
    receiver.answers = [(503, {"retry-after": after}, b"")]
    assert isinstance(await one(publisher), OutputDown)
    assert await one(publisher) is None


async def test_nobody_there_is_an_outage(receiver: Receiver) -> None:
    publisher = HttpPublisher({"alerts": HttpOutput(url="http://127.0.0.1:1/in")}, resolve=resolve)
    error = await one(publisher)
    assert isinstance(error, OutputDown)
    assert error.message.startswith("http://127.0.0.1:1/in cannot be reached: ")
    await publisher.close()


async def test_no_answer_in_time_is_an_outage(receiver: Receiver) -> None:
    async def never(_: Received) -> None:
        await asyncio.Event().wait()

    receiver.before = never
    publisher = HttpPublisher({"alerts": HttpOutput(url=receiver.url, timeout=0.1)}, resolve=resolve)
    error = await one(publisher)
    assert isinstance(error, OutputDown)
    assert error.message == f"{receiver.url} has not answered within 0.1 s"
    await publisher.close()


async def test_who_waits_for_a_silent_output_does_not_find_out_one_by_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.http_output.SILENT", 60.0)

    async def never(_: Received) -> None:
        await asyncio.Event().wait()

    receiver.before = never
    publisher = HttpPublisher({"alerts": HttpOutput(url=receiver.url, timeout=0.2)}, resolve=resolve)
    results = await publisher.publish([emit(key=f"V{n}") for n in range(20 * AT_ONCE)])
    assert {type(each) for each in results} == {OutputDown}
    assert receiver.connections <= AT_ONCE  # whoever waits in vain has one of his own
    await publisher.close()


async def test_connections_are_kept_and_a_closed_one_costs_no_outage(
    publisher: HttpPublisher, receiver: Receiver
) -> None:
    for _ in range(3):
        assert await one(publisher) is None
    assert receiver.connections == 1
    receiver.answers = [None]
    assert await one(publisher, emit(b"again")) is None
    assert receiver.bodies[-2:] == [b"again", b"again"]


async def test_an_answer_without_end_is_not_read_to_its_end(publisher: HttpPublisher, receiver: Receiver) -> None:
    receiver.usual = (200, {}, b"x" * 5_000_000)
    for _ in range(2):
        assert await one(publisher) is None
    receiver.usual = (400, {}, b"y" * 5_000_000)
    error = await one(publisher)
    assert isinstance(error, OutputRefused)
    assert len(error.message) < 400


async def test_events_of_a_key_leave_in_order_over_many_calls(publisher: HttpPublisher, receiver: Receiver) -> None:
    async def unevenly(request: Received) -> None:
        await asyncio.sleep(0.001 * (int(request.body) % 3))

    receiver.before = unevenly
    calls = [[emit(b"%d" % (3 * n + i), key=f"V{n % 4}") for i in range(3)] for n in range(40)]
    results = await asyncio.gather(*(publisher.publish(call) for call in calls))
    assert results == [[None] * 3] * 40
    for key in range(4):
        found = [int(each.body) for each in receiver.received if each.headers["ce-subject"] == f"V{key}"]
        assert found == sorted(found)
        assert len(found) == 30
    assert not publisher._lanes._tails


async def test_keys_and_keyless_events_leave_side_by_side_within_bounds(
    publisher: HttpPublisher, receiver: Receiver
) -> None:
    many = asyncio.Event()

    async def until_many(_: Received) -> None:
        if receiver.most_at_once > 8:
            many.set()
        async with asyncio.timeout(30):
            await many.wait()

    receiver.before = until_many
    emits = [emit(key=f"V{n}") for n in range(30)] + [emit(key=None) for _ in range(30)]
    assert await publisher.publish(emits) == [None] * 60
    assert 8 < receiver.most_at_once <= AT_ONCE


async def test_after_an_outage_no_later_event_of_the_key_overtakes(
    publisher: HttpPublisher, receiver: Receiver
) -> None:
    receiver.answers = [(200, {}, b""), (503, {}, b"")]
    results = await publisher.publish([emit(b"%d" % n) for n in range(4)])
    assert [type(result) for result in results] == [type(None), OutputDown, OutputDown, OutputDown]
    assert receiver.bodies == [b"0", b"1"]


async def test_a_refusal_stops_no_other(publisher: HttpPublisher, receiver: Receiver) -> None:
    receiver.answers = [(200, {}, b""), (422, {}, b"")]
    results = await publisher.publish([emit(b"%d" % n) for n in range(3)])
    assert [type(result) for result in results] == [type(None), OutputRefused, type(None)]


async def test_a_caller_that_gave_up_holds_up_nobody(publisher: HttpPublisher, receiver: Receiver) -> None:
    gate = asyncio.Event()

    async def wait(_: Received) -> None:
        await gate.wait()

    receiver.before = wait
    given_up = asyncio.ensure_future(publisher.publish([emit(b"0")]))
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(publisher.publish([emit(b"1")]))
    await asyncio.sleep(0)
    given_up.cancel()
    gate.set()
    assert await waiting == [None]


@pytest.mark.parametrize(
    "broken",
    [
        Emit("nowhere", "V1", emit().event),
        Emit("alerts", "V1", Event(id="1", source="/s", type="t", headers=(("x", b"a\r\nb: c"),), data=b"")),
        Emit("alerts", "V1", Event(id="1", source="/s", type="t", headers=(("x y", b"a"),), data=b"")),
        Emit("alerts", "V1", Event(id="1", source="/s", type="t", datacontenttype="text/plain\r\nx: y", data=b"")),
    ],
    ids=["no output", "header value", "header name", "content type"],
)
async def test_what_can_never_be_sent_is_found_before(
    publisher: HttpPublisher, receiver: Receiver, broken: Emit
) -> None:
    with pytest.raises(OutputRefused):
        publisher.check(broken)
    assert isinstance(await one(publisher, broken), OutputRefused)
    assert receiver.received == []


async def test_secrets_are_looked_up_when_the_worker_starts_and_shown_nowhere(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    missing = HttpOutput(url=receiver.url, headers={"authorization": Secret(env="MISSING")})
    with pytest.raises(FleetError, match="the environment has no MISSING"):
        HttpPublisher({"alerts": missing}, resolve=resolve)
    broken = HttpOutput(url=receiver.url, headers={"authorization": Secret(env="TOKEN")})
    with pytest.raises(FleetError, match="header 'authorization' cannot be sent") as caught:
        HttpPublisher({"alerts": broken}, resolve=lambda _: f"{TOKEN}\n{TOKEN}")
    assert TOKEN not in str(caught.value)
    publisher = HttpPublisher({"alerts": broken}, resolve=resolve)
    receiver.usual = (500, {}, b"")
    with caplog.at_level("DEBUG"):
        assert TOKEN not in str(await one(publisher))
    assert TOKEN not in caplog.text
    await publisher.close()
