"""The other ends of outputs over MQTT and HTTP: they write down what they get before they acknowledge it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

READY = 60.0


class Record:
    """Lines of {"id", "data"}: the CloudEvent's id, and its data as text."""

    def __init__(self, file: Path) -> None:
        self.count = 0
        self._file = file.open("w", buffering=1)
        self._lock = threading.Lock()

    def add(self, id_: str, data: bytes) -> None:
        with self._lock:
            self._file.write(json.dumps({"id": id_, "data": data.decode(), "time": time.time()}) + "\n")
            self.count += 1

    def close(self) -> None:
        self._file.close()


class MqttReceiver:
    """A persistent session, so that nothing is missed while the broker is away."""

    def __init__(self, address: str, file: Path) -> None:
        self.record = Record(file)
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="soak-receiver", protocol=MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("soak/+/out", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 86_400
        host, _, port = address.rpartition(":")
        self._client.connect(host, int(port), clean_start=False, properties=session)
        self._client.loop_start()
        if not self._subscribed.wait(READY):
            raise RuntimeError(f"no subscription at {address} within {READY:g} s")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.record.close()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        attributes = dict(getattr(message.properties, "UserProperty", []))
        self.record.add(attributes.get("id", ""), message.payload)


class HttpReceiver:
    def __init__(self, file: Path, host: str) -> None:
        self.record = record = Record(file)

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                if len(body) < length:  # its caller was killed
                    self.close_connection = True
                    return
                record.add(self.headers.get("ce-id", ""), body)
                self.send_response(204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller was killed."""

        self._server = Server((host, 0), Answers)
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.record.close()
