"""How long the embedded MQTT broker keeps a session whose client is away."""

from __future__ import annotations

import asyncio
from unittest import mock

import virtual_time
from fleetfn_node.mqtt_broker import Broker, _Client
from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_packets import ConnAck, Connect, Decoder


class Car:
    """One connection of a client whose session is to be kept for a minute."""

    def __init__(self, broker: Broker, *, clean: bool = False) -> None:
        self._wire = mock.Mock(spec=asyncio.Transport)
        self._wire.is_closing.return_value = False
        self._wire.get_write_buffer_size.return_value = 0
        self._protocol = _Client(broker)
        self._protocol.connection_made(self._wire)
        expiry = {mqtt_packets.SESSION_EXPIRY: 60}
        asked = Connect(version=5, client_id="car", clean=clean, keepalive=60, properties=expiry)
        self._protocol.data_received(mqtt_packets.encode(asked, 5))

    @property
    def present(self) -> bool:
        """Whether the broker had its session."""
        (written,) = self._wire.write.call_args.args
        (answer,) = Decoder(version=5).feed(written)
        assert isinstance(answer, ConnAck)
        return answer.session_present

    def leave(self) -> None:
        self._protocol.connection_lost(None)


def test_a_session_is_kept_for_so_long_and_no_longer() -> None:
    async def main(_: virtual_time.VirtualLoop) -> None:
        broker = Broker()
        Car(broker).leave()
        await asyncio.sleep(59)
        car = Car(broker)
        assert car.present
        await asyncio.sleep(600)  # while the client is there, it does not end
        car.leave()
        await asyncio.sleep(61)
        assert not Car(broker).present

    virtual_time.run(main)


def test_a_client_that_came_back_and_left_again_has_all_its_time() -> None:
    async def main(_: virtual_time.VirtualLoop) -> None:
        broker = Broker()
        Car(broker).leave()
        await asyncio.sleep(40)
        Car(broker).leave()
        await asyncio.sleep(40)  # a minute after it left first
        assert Car(broker).present

    virtual_time.run(main)


def test_the_end_of_a_session_that_a_clean_one_has_replaced_is_not_the_new_ones() -> None:
    async def main(_: virtual_time.VirtualLoop) -> None:
        broker = Broker()
        Car(broker).leave()
        await asyncio.sleep(40)
        Car(broker, clean=True).leave()
        await asyncio.sleep(40)
        assert Car(broker).present

    virtual_time.run(main)
