"""A bridge that failed: what it had not journaled comes again, and is a row then."""

from __future__ import annotations

from typing import cast

import pytest
from fleetfn.errors import FleetError, StoreError
from fleetfn_plumbing.mqtt_packets import Ack, Publish
from kafka_doubles import until
from mqtt_doubles import Bench, scripted
from test_mqtt_bridge_answers import Script


@pytest.mark.parametrize("defect", [RuntimeError("a defect"), FleetError("a defect")])
async def test_what_a_bridge_held_when_it_failed_is_no_resend_of_what_is_in_the_inbox(defect: Exception) -> None:
    script = Script()
    async with scripted(script.serve) as port:
        bench = Bench(f"127.0.0.1:{port}")
        bridge = await bench.start()
        bench.inbox.refusal = cast("StoreError", defect)
        topic = f"{bench.topic}/v1/battery"
        script.send(Publish(topic, b"{}", 1, packet_id=1))
        await until(lambda: bridge.problem)
        bench.inbox.refusal = None
        script.present = True
        await until(lambda: script.connections == 2 and not bridge.problem)
        script.send(Publish(topic, b"{}", 1, packet_id=1, dup=True))
        await until(lambda: any(isinstance(packet, Ack) for packet in script.got))
        assert bench.data("v1") == [b"{}"]
        await bench.close()
