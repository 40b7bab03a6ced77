"""Many MQTT sessions at once, and brokers that send faster than the inbox takes: loads are spread and bounded."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
import virtual_time
from fleetfn.errors import StoreError
from fleetfn_gateway import mqtt_bridge
from fleetfn_gateway.mqtt_bridge import MqttBridge
from fleetfn_gateway.mqtt_room import Room
from fleetfn_gateway.mqtt_session import Journal, Session
from fleetfn_plumbing.mqtt_access import MqttError
from fleetfn_plumbing.mqtt_packets import PUBACK, SUBACK, Answer, ConnAck, Packet, Publish, Subscribe
from fleetfn_triggers.inbox import Arrival
from mqtt_doubles import function, trigger

SESSIONS = 50
AWAY = 60.0
"""Seconds that the broker is gone."""


class FakeLink:
    """A connection to a broker that grants what is asked."""

    def __init__(self) -> None:
        self.accepted = ConnAck(session_present=True, reason=0)
        self.ended: asyncio.Future[MqttError] = asyncio.get_running_loop().create_future()
        self.paused = False
        self.written = 0
        self._receive: Callable[[list[Packet]], None]

    def listen(self, receive: Callable[[list[Packet]], None]) -> None:
        self._receive = receive

    def come(self, *packets: Packet) -> None:
        self._receive(list(packets))

    def send(self, packet: Packet) -> None:
        if isinstance(packet, Subscribe):
            asyncio.get_running_loop().call_soon(self.come, Answer(SUBACK, packet.packet_id, (1,)))

    def write(self, data: bytes) -> None:
        self.written += data.count(bytes([PUBACK << 4]))

    def ping(self, answered: Any = None) -> None: ...

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def close(self, *_: object) -> None:
        if not self.ended.done():
            self.ended.set_result(MqttError("closed by us"))


class Broker:
    """When it was tried and by whom; `up`: it takes connections."""

    def __init__(self) -> None:
        self.up = True
        self.tried: list[float] = []
        self.links: list[FakeLink] = []

    async def connect(self, *_: object, **__: object) -> FakeLink:
        self.tried.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)
        if not self.up:
            raise MqttError("MQTT broker b cannot be reached: connection refused")
        self.links.append(FakeLink())
        return self.links[-1]

    def stop(self) -> None:
        self.up = False
        links, self.links = self.links, []
        for link in links:
            link.ended.set_result(MqttError("closed the connection"))

    def most(self, window: float, since: float) -> int:
        """Tries in any such number of seconds, from `since` on."""
        tried = sorted(each for each in self.tried if each >= since)
        return max(bisect_left(tried, each + window) - place for place, each in enumerate(tried))


def test_after_a_restart_of_its_broker_sessions_come_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    monkeypatch.setattr(mqtt_bridge.mqtt_link, "connect", broker.connect)
    random.seed(11)

    async def main(loop: virtual_time.VirtualLoop) -> None:
        monkeypatch.setattr(mqtt_bridge, "time", virtual_time.LoopTime(loop))
        bridges = [bridge(number) for number in range(SESSIONS)]
        await asyncio.gather(*(each.start() for each in bridges))
        await asyncio.sleep(mqtt_bridge.STABLE + 1)
        assert len(broker.links) == SESSIONS

        broker.stop()
        gone = loop.time()
        await asyncio.sleep(AWAY)
        assert broker.most(0.02, gone) <= SESSIONS // 2  # the first try is soon, and not all at once
        assert broker.most(1.0, gone + 20) <= SESSIONS // 3  # by then each waits for 7 to 15 s

        broker.up, back = True, loop.time()
        await asyncio.sleep(mqtt_bridge.LONGEST + 0.1)
        assert len(broker.links) == SESSIONS
        assert broker.most(1.0, back) <= SESSIONS // 3
        assert [each.problem for each in bridges] == [""] * SESSIONS
        for each in bridges:
            await each.close()

    virtual_time.run(main)


def bridge(number: int) -> MqttBridge:
    inbox = Inbox()
    made = trigger(f"t{number}/{{vehicle}}/battery")
    return MqttBridge(function("b:1883", made, place=f"n{number}"), made, inbox, inbox)  # type: ignore[arg-type]  # what is asked of it is there


class Inbox:
    """Takes what comes unless it is `full`, and counts."""

    def __init__(self) -> None:
        self.taken = 0
        self.full = False

    def note(self, _: str) -> None:
        return None

    async def put(self, arrivals: list[Arrival], **_: object) -> list[int]:
        if self.full:
            raise StoreError("full")
        await asyncio.sleep(0)
        self.taken += len(arrivals)
        return [0] * len(arrivals)


def test_sessions_share_what_all_may_hold() -> None:
    room = Room(1000, 400)
    assert room.share == 400
    for _ in range(4):
        room.enter()
    assert room.share == 250
    room.leave()
    room.leave()
    assert room.share == 400


def session(link: FakeLink, inbox: Inbox, *, inflight: int, room: Room) -> Session:
    return Session(
        link,  # type: ignore[arg-type]  # what is asked of it is there
        Journal(inbox, "mqtt/f/t"),  # type: ignore[arg-type]  # likewise
        lambda message: message,  # type: ignore[arg-type, return-value]  # nobody looks at it
        inflight=inflight,
        room=room,
    )


def come(link: FakeLink, size: int) -> int:
    """How many messages of `size` bytes are read until no more is, of 100."""
    sent = 0
    while not link.paused and sent < 100:
        sent += 1
        link.come(Publish("t", b"x" * size, 1, packet_id=sent))
    return sent


async def taken(inbox: Inbox, link: FakeLink, count: int) -> None:
    async with asyncio.timeout(30):
        while inbox.taken < count or link.paused:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    assert link.written == count


async def test_a_session_reads_no_further_than_its_share_while_the_inbox_is_full() -> None:
    room, inbox, link = Room(4000, 4000), Inbox(), FakeLink()
    room.enter()  # another one
    inbox.full = True
    made = session(link, inbox, inflight=1000, room=room)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    sent = come(link, 300)
    assert sent * 300 <= 2000 + 300
    inbox.full = False
    await taken(inbox, link, sent)
    link.ended.set_result(MqttError("gone"))
    made.finish()
    await running
    assert room.share == 4000


async def test_of_a_broker_that_sends_more_than_receive_maximum_no_more_is_read() -> None:
    inbox, link = Inbox(), FakeLink()
    made = session(link, inbox, inflight=7, room=Room())
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    assert come(link, 1) == 8
    await taken(inbox, link, 8)
    link.ended.set_result(MqttError("gone"))
    await running
