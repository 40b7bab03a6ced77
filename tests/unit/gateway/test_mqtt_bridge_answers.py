"""What the bridge makes of a broker's answers: a scripted broker says what real ones do not say on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from fleetfn_gateway import mqtt_bridge
from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_packets import (
    PINGREQ,
    PINGRESP,
    SUBACK,
    UNSUBACK,
    Ack,
    Answer,
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
)
from kafka_doubles import until
from mqtt_doubles import Bench, scripted


class Script:
    """A broker that answers as told: by default it lets in, grants and answers pings."""

    def __init__(self) -> None:
        self.got: list[Packet] = []
        self.present = False
        self.connack: Callable[[Connect], ConnAck] = lambda _: ConnAck(self.present, 0)
        self.granted = 1
        self.grants = True
        """Whether SUBSCRIBE is answered."""
        self.pings = True
        self.connections = 0
        self._writer: asyncio.StreamWriter | None = None
        self._decoder = Decoder()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        self._decoder = decoder = Decoder()
        while data := await reader.read(65536):
            for packet in decoder.feed(data):
                self.got.append(packet)
                self._answer(packet)

    def _answer(self, packet: Packet) -> None:
        match packet:
            case Connect():
                self.send(self.connack(packet))
            case Subscribe() if self.grants:
                self.send(Answer(SUBACK, packet.packet_id, (self.granted,)))
            case Unsubscribe():
                self.send(Answer(UNSUBACK, packet.packet_id, (0,)))
            case Ping(kind=kind) if kind == PINGREQ and self.pings:
                self.send(Ping(PINGRESP))
            case _:
                pass

    def send(self, *packets: Packet) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(mqtt_packets.encode(each, self._decoder.version) for each in packets))

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def of(self, kind: type[Packet]) -> list[Packet]:
        return [packet for packet in self.got if isinstance(packet, kind)]

    def acked(self) -> list[int]:
        return [packet.packet_id for packet in self.got if isinstance(packet, Ack)]


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def bench(script: Script) -> AsyncIterator[Bench]:
    async with scripted(script.serve) as port:
        made = Bench(f"127.0.0.1:{port}")
        yield made
        await made.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_bridge, "FIRST", 0.01)
    monkeypatch.setattr(mqtt_bridge, "CONTESTED_FIRST", 0.01)


def message(bench: Bench, packet_id: int, payload: bytes = b"open", *, dup: bool = False) -> Publish:
    return Publish(f"{bench.topic}/v1/battery", payload, 1, dup=dup, packet_id=packet_id)


async def test_it_asks_for_a_session_that_lasts_and_for_no_more_than_it_can_hold(bench: Bench, script: Script) -> None:
    await bench.start(inflight=7)
    (connect,) = script.of(Connect)
    assert isinstance(connect, Connect)
    assert connect.client_id == f"fleetfn/local/{bench.topic}/battery/live"
    assert not connect.clean
    assert connect.properties[mqtt_packets.SESSION_EXPIRY] == 7 * 24 * 3600
    assert connect.properties[mqtt_packets.RECEIVE_MAXIMUM] == 7
    assert connect.properties[mqtt_packets.MAXIMUM_PACKET_SIZE] == 16 * 1024 * 1024


async def test_a_new_subscription_that_does_not_stand_in_time_is_a_problem_until_it_does(
    bench: Bench, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_bridge, "START", 0.05)
    script.grants = False
    bridge = bench.bridge()
    await bridge.start()
    assert f"MQTT broker {bench.address} has not let us subscribe within 0.05 s" in bridge.problem
    await until(lambda: script.of(Subscribe))
    script.send(Answer(SUBACK, 1, (1,)))
    await until(lambda: bridge.problem == "")


async def test_a_bridge_has_started_once_a_known_subscription_stands_again(
    bench: Bench, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_bridge, "KNOWN", 60.0)
    await (await bench.start()).close()
    script.got.clear()
    await bench.bridge().start()
    assert script.of(Subscribe)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0x86, "refuses us: bad user name or password; check username and password of the connection"),
        (0x87, "refuses us: not authorized"),
        (0x84, "write the version that the broker speaks as `version`"),
        (0x9F, "refuses us: connections come too fast"),
        (0xC1, "refuses us: reason code 0xc1"),
    ],
)
async def test_a_refusal_is_told_and_tried_again(bench: Bench, script: Script, code: int, said: str) -> None:
    script.connack = lambda _: ConnAck(session_present=False, reason=code)
    bridge = await bench.start()
    assert said in bridge.problem
    script.connack = lambda _: ConnAck(session_present=False, reason=0)
    await until(lambda: bridge.problem == "")


async def test_the_brokers_own_words_are_told(bench: Bench, script: Script) -> None:
    words = {mqtt_packets.REASON_STRING: "ask Ann"}
    script.connack = lambda _: ConnAck(session_present=False, reason=0x87, properties=words)
    assert "not authorized (ask Ann)" in (await bench.start()).problem


@pytest.mark.parametrize(("code", "said"), [(4, "bad user name or password"), (5, "not authorized")])
async def test_a_refusal_of_mqtt_3_is_told_in_the_same_words(
    bench: Bench, script: Script, code: int, said: str
) -> None:
    bench.connection["version"] = "3.1.1"
    script.connack = lambda _: ConnAck(session_present=False, reason=code)
    assert said in (await bench.start()).problem


@pytest.mark.parametrize(("version", "code"), [("5", 0x85), ("3.1.1", 2)])
async def test_a_refused_client_id_is_replaced_by_the_short_one(
    bench: Bench, script: Script, version: str, code: int
) -> None:
    bench.connection["version"] = version
    script.connack = lambda asked: ConnAck(session_present=False, reason=code if len(asked.client_id) > 23 else 0)
    bridge = await bench.start()
    await until(lambda: bridge.problem == "")
    connect = script.of(Connect)[-1]
    assert isinstance(connect, Connect)
    assert len(connect.client_id) == 23


async def test_a_refused_subscription_is_told(bench: Bench, script: Script) -> None:
    script.granted = 0x87
    bridge = await bench.start()
    assert f"refuses the subscription to '{bench.topic}/+/battery': not authorized" in bridge.problem


async def test_a_lower_qos_than_asked_for_is_told(bench: Bench, script: Script) -> None:
    script.granted = 0
    assert "gives QoS 0 only: messages may be lost" in (await bench.start()).problem


async def test_a_session_that_another_client_takes_over_is_told(bench: Bench, script: Script) -> None:
    bridge = await bench.start()
    script.send(Disconnect(0x8E))
    await until(lambda: script.connections == 2)
    assert "another client takes our session over" in bridge.problem
    assert "copy of this node's data folder" in bridge.problem


async def test_a_broker_that_shuts_down_is_looked_for_at_once(bench: Bench, script: Script) -> None:
    bridge = await bench.start()
    script.send(Disconnect(0x8B))
    await until(lambda: script.connections == 2)
    await until(lambda: bridge.problem == "")


async def test_acknowledgements_come_in_the_order_of_receipt(bench: Bench, script: Script) -> None:
    await bench.start()
    script.send(*(message(bench, packet_id, bytes([packet_id])) for packet_id in (5, 3, 9, 1)))
    await until(lambda: len(script.acked()) == 4)
    assert script.acked() == [5, 3, 9, 1]


async def test_an_id_that_is_given_again_at_once_is_another_message(bench: Bench, script: Script) -> None:
    await bench.start()
    for count in range(1, 4):
        script.send(message(bench, 1))
        await until(lambda: len(script.acked()) == count)  # noqa: B023 - it is waited for here
    assert bench.data() == [b"open"] * 3


async def test_a_resend_whose_acknowledgement_may_be_lost_is_the_same_row(bench: Bench, script: Script) -> None:
    script.pings = False
    await bench.start()
    script.present = True
    script.send(message(bench, 1))
    await until(lambda: script.acked() == [1])
    script.hang_up()
    await until(lambda: len(script.of(Subscribe)) == 2)
    script.send(message(bench, 1, dup=True))
    await until(lambda: script.acked() == [1, 1])
    assert bench.data() == [b"open"]


async def test_a_resend_after_an_acknowledgement_that_was_read_is_another_message(bench: Bench, script: Script) -> None:
    await bench.start()
    script.present = True
    script.send(message(bench, 1))
    await until(lambda: script.acked() == [1] and not bench.noted())
    script.hang_up()  # with the id's next message on its way
    await until(lambda: len(script.of(Subscribe)) == 2)
    script.send(message(bench, 1, dup=True))
    await until(lambda: script.acked() == [1, 1])
    assert bench.data() == [b"open"] * 2


async def test_in_a_new_session_ids_begin_anew(bench: Bench, script: Script) -> None:
    script.pings = False
    await bench.start()
    script.send(message(bench, 1))
    await until(lambda: script.acked() == [1])
    script.hang_up()
    await until(lambda: len(script.of(Subscribe)) == 2)
    script.send(message(bench, 1, dup=True))
    await until(lambda: script.acked() == [1, 1])
    assert bench.data() == [b"open"] * 2


async def test_bytes_that_are_no_mqtt_end_the_connection_and_nothing_else(bench: Bench, script: Script) -> None:
    bridge = await bench.start()
    assert script._writer is not None
    script._writer.write(b"\x00\x00")
    await until(lambda: script.connections == 2)
    await until(lambda: bridge.problem == "")
    script.send(message(bench, 1))
    await until(lambda: bench.rows)
