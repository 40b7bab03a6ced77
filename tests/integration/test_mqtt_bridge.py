"""The bridge against brokers: what is journaled, what is acknowledged, and what comes again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from fleetfn.errors import FleetError, StoreError
from fleetfn_gateway import mqtt_bridge
from fleetfn_gateway.mqtt_session import Session
from fleetfn_plumbing.mqtt_packets import Packet, Publish
from fleetfn_triggers.inbox import Arrival
from kafka_doubles import until
from mqtt_broker import Sent, publish
from mqtt_doubles import Bench

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@pytest.fixture
async def bench(mqtt_broker: str) -> AsyncIterator[Bench]:
    made = Bench(mqtt_broker)
    yield made
    await made.close()


async def send(bench: Bench, *messages: Sent | tuple[str, str], version: str = "5", qos: int = 1) -> None:
    """(rest of the topic, payload), in order."""
    whole = []
    for each in messages:
        sent = each if isinstance(each, Sent) else Sent(each[0], each[1].encode(), qos)
        whole.append(sent._replace(topic=f"{bench.topic}/{sent.topic}"))
    await asyncio.to_thread(publish, bench.address, whole, version)


async def numbered(bench: Bench, count: int, *, qos: int = 1, start: int = 0) -> list[bytes]:
    numbers = [str(n) for n in range(start, start + count)]
    await send(bench, *((f"v{int(n) % 3}/battery", n) for n in numbers), qos=qos)
    return [n.encode() for n in numbers]


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_become_rows_in_order_by_the_key_of_their_topic(bench: Bench, qos: int, version: str) -> None:
    bench.connection["version"] = version
    bridge = await bench.start(qos=qos)
    assert bridge.problem == ""
    sent = await numbered(bench, 300, qos=qos)
    await until(lambda: len(bench.rows) == 300)
    assert bench.data() == sent
    assert bench.rows[4].key == "v1"
    event = bench.rows[4].event
    assert (event.type, event.subject) == ("mqtt.message", f"{bench.topic}/v1/battery")
    assert len({row.event.id for row in bench.rows}) == 300


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_is_published_while_nobody_runs_is_there_afterwards(bench: Bench, qos: int, version: str) -> None:
    bench.connection["version"] = version
    await (await bench.start(qos=qos)).close()
    sent = await numbered(bench, 200, qos=qos)
    assert bench.rows == []
    await bench.start(qos=qos)
    await until(lambda: len(bench.rows) == 200)
    assert bench.data() == sent


async def test_what_was_acknowledged_does_not_come_again(bench: Bench) -> None:
    bridge = await bench.start()
    await numbered(bench, 50)
    await until(lambda: len(bench.rows) == 50)
    await bridge.close()
    await bench.start()
    await numbered(bench, 1, start=50)
    await until(lambda: len(bench.rows) == 51)
    assert bench.data() == [str(n).encode() for n in range(51)]


async def test_the_note_is_empty_once_the_broker_has_read_all_acknowledgements(bench: Bench) -> None:
    await bench.start()
    await numbered(bench, 50)
    await until(lambda: len(bench.rows) == 50 and not bench.noted())


@VERSIONS
async def test_an_inbox_that_takes_nothing_stops_the_acknowledgements_and_loses_nothing(
    bench: Bench, version: str
) -> None:
    bench.connection["version"] = version
    bridge = await bench.start(inflight=20)
    bench.inbox.refusal = StoreError("the disk is full")
    sent = await numbered(bench, 100)
    await until(lambda: bridge.problem)
    assert re.match(r"nothing is taken from the broker since \d\d:\d\d:\d\d UTC: ", bridge.problem)
    assert "the disk is full" in bridge.problem
    assert bench.rows == []
    bench.inbox.refusal = None
    await until(lambda: len(bench.rows) == 100)
    assert bench.data() == sent
    await until(lambda: bridge.problem == "")


async def test_what_was_not_journaled_when_the_bridge_ended_comes_to_the_next_one(bench: Bench) -> None:
    bridge = await bench.start()
    bench.inbox.refusal = StoreError("the disk is full")
    sent = await numbered(bench, 30)
    await until(lambda: bridge.problem)
    await bridge.close()
    bench.inbox.refusal = None
    await bench.start()
    await until(lambda: len(bench.rows) == 30)
    assert bench.data() == sent


async def test_the_broker_sends_no_more_than_receive_maximum_ahead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first is acknowledged: from then on Mosquitto before 2.0.13 sends more (its ChangeLog, #2306)."""
    came: list[Packet] = []
    received, put = Session._received, bench.inbox.put
    let = asyncio.Event()

    def seen(session: Session, packets: list[Packet]) -> None:
        came.extend(each for each in packets if isinstance(each, Publish))
        received(session, packets)

    async def held(arrivals: Sequence[Arrival], **more: Any) -> list[int]:
        if arrivals:
            await let.wait()
        return await put(arrivals, **more)

    monkeypatch.setattr(Session, "_received", seen)
    monkeypatch.setattr(bench.inbox, "put", held)
    await bench.start(inflight=7)
    try:
        sent = await numbered(bench, 60)
        await until(lambda: len(came) >= 7)
        assert len(came) == 7
    finally:
        let.set()
    await until(lambda: len(bench.rows) == 60)
    assert bench.data() == sent


async def test_cloudevents_keep_their_attributes(bench: Bench) -> None:
    await bench.start(key="subject")
    attributes = [("specversion", "1.0"), ("id", "e1"), ("source", "/car"), ("type", "hot"), ("subject", "v9")]
    structured = b'{"specversion":"1.0","id":"e2","source":"/car","type":"hot","subject":"v8","data":{"t":61}}'
    await send(
        bench,
        Sent("v1/battery", b'{"t":60}', user=[*attributes, ("trace-id", "x")], content_type="application/json"),
        Sent("v1/battery", structured, content_type="application/cloudevents+json"),
    )
    await send(bench, Sent("v1/battery", structured), version="3.1.1")
    await until(lambda: len(bench.rows) == 3)
    first, second, third = (row.event for row in bench.rows)
    assert [row.key for row in bench.rows] == ["v9", "v8", "v8"]
    assert (first.id, first.source, first.type, first.data) == ("e1", "/car", "hot", b'{"t":60}')
    assert dict(first.headers) == {"trace-id": b"x", "mqtt-topic": f"{bench.topic}/v1/battery".encode()}
    assert (second.id, second.data) == (third.id, third.data) == ("e2", b'{"t":61}')


async def test_what_cannot_be_read_is_a_dead_letter_with_the_key_of_its_topic(bench: Bench) -> None:
    await bench.start()
    await send(bench, Sent("v1/battery", b"{", user=[("specversion", "0.3")]), ("v1/battery", "{}"))
    await until(lambda: len(bench.rows) == 2)
    dead, fine = bench.rows
    assert (dead.status, dead.key, dead.reason) == ("dead", "v1", "unreadable")
    assert "specversion" in dead.detail
    assert (fine.status, fine.key) == ("waiting", "v1")


@pytest.mark.parametrize(
    ("policy", "first", "again"),
    [("ignore", [], []), ("new", [b"old"], []), ("always", [b"old"], [b"old"])],
)
@VERSIONS
async def test_retained_messages(
    bench: Bench, policy: str, first: list[bytes], again: list[bytes], version: str
) -> None:
    bench.connection["version"] = version
    await send(bench, Sent("v1/battery", b"old", retain=True))
    bridge = await bench.start(retained=policy)
    await send(bench, ("v1/battery", "live"))
    await until(lambda: b"live" in bench.data())
    assert bench.data() == [*first, b"live"]
    if first:
        assert ("mqtt-retained", b"true") in bench.rows[0].event.headers
    await bridge.close()
    await bench.start(retained=policy)
    await send(bench, ("v1/battery", "later"))
    await until(lambda: b"later" in bench.data())
    assert bench.data() == [*first, b"live", *again, b"later"]
    await send(bench, Sent("v1/battery", b"", retain=True))


async def test_members_of_a_shared_subscription_get_each_message_once(bench: Bench) -> None:
    other = Bench(bench.address)
    other.topic = bench.topic
    try:
        await bench.start(share="group", key=None)
        # another place is another client of the same group
        await other.start(share="group", key=None, place=f"{bench.topic}-2")
        sent = await numbered(bench, 40)
        await until(lambda: len(bench.rows) + len(other.rows) == 40)
        assert sorted([*bench.data(), *other.data()], key=lambda data: int(data or b"")) == sent
        assert bench.rows
        assert other.rows
    finally:
        await other.close()


async def test_an_edited_topic_ends_the_old_subscription(bench: Bench) -> None:
    await (await bench.start("{vehicle}/battery")).close()
    await send(bench, ("v1/battery", "old"))
    bridge = await bench.start("{vehicle}/doors")
    await until(lambda: len(bench.rows) == 1)
    await send(bench, ("v1/battery", "late"), ("v1/doors", "new"))
    await until(lambda: len(bench.rows) == 2)
    assert bench.data() == [b"old", b"new"]
    assert bridge.problem == ""
    assert bench.rows[0].status == "dead"  # its topic has no {vehicle} in the new template
    assert "topic.vehicle is missing" in bench.rows[0].detail


@VERSIONS
async def test_forgetting_ends_the_session_and_the_note(bench: Bench, version: str) -> None:
    bench.connection["version"] = version
    bridge = await bench.start()
    await bridge.close(forget=True)
    assert bench.inbox.note("mqtt/battery/live/session") is None
    await send(bench, ("v1/battery", "nobody wants it"))
    await bench.start()
    await send(bench, ("v1/battery", "wanted"))
    await until(lambda: bench.rows)
    assert bench.data() == [b"wanted"]


async def test_forgetting_while_the_broker_is_away_fails_and_can_be_repeated(bench: Bench) -> None:
    await (await bench.start()).close()
    bench.connection["url"] = "mqtt://127.0.0.1:1"
    with pytest.raises(FleetError, match="may still be at the broker"):
        await bench.bridge().close(forget=True)
    del bench.connection["url"]
    assert bench.inbox.note("mqtt/battery/live/session") is not None
    await bench.bridge().close(forget=True)
    assert bench.inbox.note("mqtt/battery/live/session") is None


@VERSIONS
async def test_forgetting_while_not_connected_ends_the_session_too(bench: Bench, version: str) -> None:
    bench.connection["version"] = version
    await (await bench.start()).close()
    await send(bench, ("v1/battery", "nobody wants it"))
    await bench.bridge().close(forget=True)
    await bench.start()
    await send(bench, ("v1/battery", "wanted"))
    await until(lambda: bench.rows)
    assert bench.data() == [b"wanted"]


async def test_two_bridges_of_one_client_id_back_off_and_say_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_bridge, "CONTESTED_FIRST", 0.2)
    first = await bench.start()
    second = await bench.start()
    for each in (first, second):
        await until(lambda: "is a copy of this node's data folder in use elsewhere?" in each.problem)  # noqa: B023
        assert f"/{bench.topic}/battery/live" in each.problem


async def test_more_than_the_limit_is_a_dead_letter_with_mqtt_3(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_bridge, "PACKET_LIMIT", 1000)
    bench.connection["version"] = "3.1.1"
    await bench.start()
    await send(bench, ("v1/battery", "x" * 200_000), ("v1/battery", "fine"))
    await until(lambda: len(bench.rows) == 2)
    dead, fine = bench.rows
    assert (dead.status, dead.key, dead.event.data) == ("dead", "v1", None)
    assert "the longest that is taken has 1000" in dead.detail
    assert fine.event.data == b"fine"


async def test_a_broker_that_is_not_there_is_told_with_since_when(unused_tcp_port: int) -> None:
    bench = Bench(f"127.0.0.1:{unused_tcp_port}")
    bridge = await bench.start()
    assert f"MQTT broker 127.0.0.1:{unused_tcp_port} cannot be reached: connection refused" in bridge.problem
    assert re.search(r"\(since \d\d:\d\d:\d\d UTC\)$", bridge.problem)
    await bridge.close()
