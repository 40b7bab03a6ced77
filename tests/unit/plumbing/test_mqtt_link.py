"""One connection: addresses, a broker that says nothing, pings as a receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fleetfn_plumbing import mqtt_access, mqtt_link, mqtt_packets
from fleetfn_plumbing.mqtt_access import Access, MqttError
from fleetfn_plumbing.mqtt_link import Link
from fleetfn_plumbing.mqtt_packets import PINGREQ, PINGRESP, ConnAck, Connect, Decoder, Packet, Ping, Publish
from fleetfn_triggers.mqtt_connection import MqttConnection
from kafka_doubles import until
from mqtt_doubles import scripted

KEEPALIVE = mqtt_packets.SERVER_KEEP_ALIVE


class Quiet:
    """A broker that lets in, and answers pings if told to."""

    def __init__(self) -> None:
        self.port = 0
        self.pings = True
        self.connack = ConnAck(session_present=False, reason=0)
        self.extra: list[Packet] = []
        self.got: list[Packet] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        while data := await reader.read(65536):
            for packet in decoder.feed(data):
                self.got.append(packet)
                answers: list[Packet] = []
                if isinstance(packet, Connect):
                    answers = [self.connack, *self.extra]
                elif isinstance(packet, Ping) and packet.kind == PINGREQ and self.pings:
                    answers = [Ping(PINGRESP)]
                writer.write(b"".join(mqtt_packets.encode(each, decoder.version) for each in answers))


@pytest.fixture
async def broker() -> AsyncIterator[Quiet]:
    quiet = Quiet()
    async with scripted(quiet.serve) as quiet.port:
        yield quiet


async def connect(broker: Quiet, keepalive: int = 30) -> Link:
    return await mqtt_link.connect(Access("127.0.0.1", broker.port, 5, keepalive), "me")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", ("broker", 1883)),
        ("mqtts://broker", ("broker", 8883)),
        ("mqtt://10.0.0.1:1884", ("10.0.0.1", 1884)),
        ("mqtt://[::1]:1884", ("::1", 1884)),
        ("mqtts://[::1]", ("::1", 8883)),
    ],
)
def test_an_address_has_a_port_of_its_own_or_the_usual_one(url: str, address: tuple[str, int]) -> None:
    assert mqtt_access.address(MqttConnection(url=url)) == address


def test_a_password_does_not_show_itself() -> None:
    assert "hunter2" not in repr(Access("h", 1, 5, 30, username="fn", password=b"hunter2"))


async def test_what_comes_right_behind_the_welcome_waits_for_its_reader(broker: Quiet) -> None:
    broker.extra = [Publish("a", b"1"), Publish("a", b"2")]
    link = await connect(broker)
    found: list[Packet] = []
    link.listen(found.extend)
    assert found == broker.extra
    await link.close()


async def test_a_ping_is_answered_behind_what_was_sent_before(broker: Quiet) -> None:
    link = await connect(broker)
    link.listen(lambda _: None)
    answered = asyncio.Event()
    link.send(Publish("a", b"1", 1, packet_id=1))
    link.ping(answered.set)
    await asyncio.wait_for(answered.wait(), 30)
    assert [type(each) for each in broker.got] == [Connect, Publish, Ping]
    await link.close()


async def test_a_broker_that_is_silent_is_given_up(broker: Quiet) -> None:
    broker.pings = False
    broker.connack = ConnAck(session_present=False, reason=0, properties={KEEPALIVE: 1})
    link = await connect(broker)
    assert "it has been silent for" in (await asyncio.wait_for(link.ended, 60)).message


async def test_a_paused_link_is_kept_alive_and_expects_no_answer(broker: Quiet) -> None:
    broker.connack = ConnAck(session_present=False, reason=0, properties={KEEPALIVE: 1})
    link = await connect(broker)
    link.pause()
    await asyncio.wait((link.ended,), timeout=2.2)
    await until(lambda: link.ended.done() or len([each for each in broker.got if isinstance(each, Ping)]) >= 3)
    assert not link.ended.done()
    await link.close()


async def test_a_broker_that_does_not_answer_is_told_so() -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted(mute) as port:
        with pytest.raises(MqttError, match=f"127.0.0.1:{port} does not answer within 0.1 s"):
            await mqtt_link.connect(Access("127.0.0.1", port, 5, 30), "me", timeout=0.1)
