"""MQTT brokers for tests: the real one (`scripts/mosquitto.sh`), the embedded one, and plain clients of theirs."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from fleetfn_node.embedded_mqtt import EmbeddedMqtt
from free_ports import free_ports
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SCRIPT = Path(__file__).parent.parent / "scripts" / "mosquitto.sh"
_numbers = itertools.count(1)


class Mosquitto:
    """A real broker. `address`: host:port."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@pytest.fixture(scope="session")
def mosquitto() -> Mosquitto:
    """FN_TEST_MOSQUITTO, or the one `scripts/mosquitto.sh` started."""
    named = os.environ.get("FN_TEST_MOSQUITTO")
    address = named or run_script("address")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        text = (
            f"no Mosquitto at {address} ({error}); start one: scripts/mosquitto.sh start && scripts/mosquitto.sh wait"
        )
        if os.environ.get("CI") == "true" or named:
            pytest.fail(text)
        pytest.skip(text)
    return Mosquitto(address)


class OwnMosquitto(Mosquitto):
    """A broker of the test's own, to stop, kill and start: own folder, own ports."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        """`settings`: more lines of mosquitto.conf."""
        ours = {
            "FN_MOSQUITTO_DIR": str(folder),
            "FN_MOSQUITTO_PORT": str(free_ports(3)),
            "FN_MOSQUITTO_SETTINGS": settings,
        }
        env = {**os.environ, **ours}
        super().__init__(run_script("address", env))
        self.folder = folder
        self._env = env

    def start(self) -> None:
        self._run("start")
        self._run("wait")

    def stop(self) -> None:
        self._run("stop")

    def kill(self) -> None:
        """As a power cut would: nothing is saved on the way out."""
        pid = int(self._run("status"))
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: _has_ended(pid))
        self._run("stop")

    def _run(self, command: str) -> str:
        return run_script(command, self._env)


def _has_ended(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@pytest.fixture
def own_mosquitto(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[OwnMosquitto]:
    """A second real broker; only where the script's first one can run."""
    if mosquitto.address != run_script("address"):
        pytest.skip("FN_TEST_MOSQUITTO names a broker that tests must not restart")
    broker = OwnMosquitto(tmp_path / "mosquitto")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=[pytest.param("embedded", marks=pytest.mark.node), pytest.param("real", marks=pytest.mark.mqtt)])
async def mqtt_broker(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """host:port of either broker: what holds for one holds for the other."""
    if request.param == "real":
        yield request.getfixturevalue("mosquitto").address
        return
    embedded = EmbeddedMqtt()
    yield await embedded.start()
    await embedded.stop()


def run_script(command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(SCRIPT), command], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fresh_topic(prefix: str = "t") -> str:
    """The first level of topics that no other test has."""
    return f"{prefix}-{os.getpid()}-{time.time_ns():x}-{next(_numbers)}"


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it holds, at most `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.01)


class Sent(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    user: Sequence[tuple[str, str]] = ()
    content_type: str | None = None


def _client(address: str, version: str, *, comes_back: bool = True) -> Client:
    """`comes_back`: when its connection is lost, it connects again."""
    protocol = MQTTv5 if version == "5" else MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, protocol=protocol, reconnect_on_failure=comes_back)
    host, _, port = address.rpartition(":")
    client.connect(host, int(port))
    return client


def publish(address: str, messages: Sequence[Sent], version: str = "5") -> None:
    """By another library than ours, in order; returns when the broker has acknowledged all."""
    client = _client(address, version)
    client.loop_start()
    try:
        eventually(client.is_connected)
        told = [client.publish(*message[:4], properties=_properties(message)) for message in messages]
        for each in told:
            each.wait_for_publish(60)
            assert each.is_published()
    finally:
        _end(client)


def publish_until_it_dies(address: str, messages: Sequence[Sent]) -> None:
    """In order; returns when the broker has acknowledged all, or is gone: to another one nothing is sent again."""
    client = _client(address, "5", comes_back=False)
    client.loop_start()
    try:
        eventually(client.is_connected)
        told = [client.publish(*message[:4]) for message in messages]
        eventually(lambda: not client.is_connected() or told[-1].is_published())
    finally:
        _end(client)


def _end(client: Client) -> None:
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()  # its own pair, which it would leave to the garbage collector


def _properties(message: Sent) -> Properties | None:
    if not message.user and message.content_type is None:
        return None
    found = Properties(PacketTypes.PUBLISH)
    if message.user:
        found.UserProperty = list(message.user)
    if message.content_type is not None:
        found.ContentType = message.content_type
    return found


class Watcher:
    """Collects what is published to a filter, by another library than ours, while it is open."""

    def __init__(self, address: str, filter_: str, version: str = "5") -> None:
        self.messages: list[MQTTMessage] = []
        self._subscribed = False
        self._client = _client(address, version)
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_connect = lambda client, *_: client.subscribe(filter_, qos=2)

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed = True

    def __enter__(self) -> Self:
        self._client.loop_start()
        eventually(lambda: self._subscribed)
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._client)

    def wait(self, count: int) -> list[MQTTMessage]:
        eventually(lambda: len(self.messages) >= count)
        return self.messages


def user_properties(message: MQTTMessage) -> list[tuple[str, str]]:
    return list(getattr(message.properties, "UserProperty", []))
