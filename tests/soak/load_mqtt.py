"""Publishes a plan's messages with QoS 1, as vehicles do: each has one message under way, and the next one follows its
acknowledgement. So what is sent again after a broken connection comes next to what it repeats.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

from soak.pace import Pace
from soak.plan import Planned

WAIT = 0.2


class MqttLoad(threading.Thread):
    """`file`: a line per message, {"id", "vehicle", "sends", "acked", "began", "ended"}: `sends` is how often it may
    have reached the broker, times are Unix seconds."""

    def __init__(self, address: str, events: Sequence[Planned], file: Path, pace: Pace) -> None:
        super().__init__(daemon=True)
        self.planned = sum(event.times for event in events)
        self.confirmed = 0
        self.problem = ""
        self._events = events
        self._file = file
        self._pace = pace
        self._under_way: dict[str, int] = {}
        """Vehicle -> message id."""
        self._sends: dict[int, dict[str, Any]] = {}
        self._told: deque[tuple[int, int, float]] = deque()
        """Acknowledged message ids, the broken connections until then, and when: the client's thread holds locks of
        its own when it calls.
        """
        self._news = threading.Event()
        self._breaks = 0
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        self._client.reconnect_delay_set(1, 1)
        host, _, port = address.rpartition(":")
        self._client.connect(host, int(port))

    def run(self) -> None:
        self._client.loop_start()
        with self._file.open("w") as self._out:
            for event in self._events:
                self._pace.until(event.at)
                for _ in range(event.times):
                    if self._free(event.vehicle):
                        self._publish(event)
            for vehicle in list(self._under_way):
                self._free(vehicle)
            for mid in list(self._sends):
                self._note(mid, acked=False, breaks=self._breaks, ended=0.0)
        self._client.disconnect()
        self._client.loop_stop()
        if self.confirmed != self.planned:
            self.problem = "the run ended before all was sent"

    def _free(self, vehicle: str) -> bool:
        """Wait until nothing of the vehicle is under way; False: the run is over."""
        self._hear()
        while vehicle in self._under_way and not self._pace.ended:
            self._news.wait(WAIT)
            self._hear()
        return not self._pace.ended

    def _hear(self) -> None:
        self._news.clear()
        while self._told:
            mid, breaks, when = self._told.popleft()
            send = self._note(mid, acked=True, breaks=breaks, ended=when)
            self.confirmed += 1
            del self._under_way[send["vehicle"]]

    def _note(self, mid: int, *, acked: bool, breaks: int, ended: float) -> dict[str, Any]:
        send = self._sends.pop(mid)
        sends = 1 + breaks - send.pop("breaks")
        self._out.write(json.dumps({**send, "sends": sends, "acked": acked, "ended": ended}) + "\n")
        return send

    def _publish(self, event: Planned) -> None:
        breaks = self._breaks
        mid = self._client.publish(f"soak/{event.vehicle}/in", event.payload, qos=1).mid
        self._sends[mid] = {"id": event.id, "vehicle": event.vehicle, "breaks": breaks, "began": time.time()}
        self._under_way[event.vehicle] = mid

    def _on_publish(self, _client: Client, _data: Any, mid: int, *_: Any) -> None:
        self._told.append((mid, self._breaks, time.time()))
        self._news.set()

    def _on_disconnect(self, *_: Any) -> None:
        """The client sends all that is not acknowledged again: the broker may have taken it already."""
        self._breaks += 1
