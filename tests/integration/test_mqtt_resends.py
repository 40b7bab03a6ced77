"""What a broker sends again is one row: over lost acknowledgements, kills of the bridge and restarts of the broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetfn_gateway import mqtt_bridge
from kafka_doubles import until
from mqtt_broker import Mosquitto, OwnMosquitto, Sent, eventually, fresh_topic, publish, publish_until_it_dies
from mqtt_doubles import Bench
from mqtt_proxy import Direction, Proxy

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


class Cutter:
    """Cuts the connection when it sees the nth packet of a name; `kill`: instead of being merely cut."""

    def __init__(self, direction: Direction, name: str, nth: int = 1, *, passed: bool = False) -> None:
        """`passed`: the packet still goes through."""
        self.cuts = 0
        self.kill: Callable[[], None] | None = None
        self._what = (direction, name)
        self._left = nth
        self._passed = passed
        self._cutting = False

    def before(self, direction: Direction, name: str, _: bytes) -> bool:
        if self._cutting:
            self._cutting = False
            return False
        if (direction, name) != self._what:
            return True
        self._left -= 1
        if self._left != 0:
            return True
        self.cuts += 1
        if self.kill is not None and not self._passed:
            self.kill()
        self._cutting = self._passed
        return self._passed

    def after(self, direction: Direction, name: str, _: bytes) -> None:
        if self._cutting and (direction, name) == self._what and self.kill is not None:
            self._cutting = False
            self.kill()


@pytest.fixture
def proxied(mqtt_broker: str) -> Iterator[Callable[[Cutter], Proxy]]:
    proxies = []

    def make(cutter: Cutter) -> Proxy:
        proxies.append(Proxy(mqtt_broker, cutter.before, cutter.after))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


def numbers(topic: str, count: int, start: int = 0, qos: int = 1) -> list[Sent]:
    return [Sent(f"{topic}/v{n % 3}/battery", str(n).encode(), qos) for n in range(start, start + count)]


async def collected(bench: Bench, count: int) -> list[bytes | None]:
    await until(lambda: len(bench.rows) >= count)
    return bench.data()


@VERSIONS
@pytest.mark.parametrize(
    ("direction", "name", "qos"),
    [
        ("to client", "PUBLISH", 1),
        ("to broker", "PUBACK", 1),
        ("to client", "PUBLISH", 2),
        ("to broker", "PUBREC", 2),
        ("to client", "PUBREL", 2),
        ("to broker", "PUBCOMP", 2),
    ],
)
async def test_a_connection_cut_at_any_packet_repeats_no_row(
    mqtt_broker: str, proxied: Callable[[Cutter], Proxy], direction: Direction, name: str, qos: int, version: str
) -> None:
    cutter = Cutter(direction, name, nth=3)
    bench = Bench(f"127.0.0.1:{proxied(cutter).port}", version=version)
    try:
        await bench.start(qos=qos)
        sent = numbers(bench.topic, 60, qos=qos)
        await asyncio.to_thread(publish, mqtt_broker, sent)
        await until(lambda: cutter.cuts)
        assert await collected(bench, 60) == [each.payload for each in sent]
        await asyncio.to_thread(publish, mqtt_broker, numbers(bench.topic, 3, 60, qos))
        assert await collected(bench, 63) == [str(n).encode() for n in range(63)]
        await until(lambda: not bench.noted())
    finally:
        await bench.close()


async def test_an_equal_message_after_a_lost_connection_is_a_row_of_its_own(
    mqtt_broker: str, proxied: Callable[[Cutter], Proxy]
) -> None:
    cutter = Cutter("to client", "PUBLISH", nth=2)
    bench = Bench(f"127.0.0.1:{proxied(cutter).port}")
    try:
        await bench.start()
        same = Sent(f"{bench.topic}/v1/battery", b"door open")
        await asyncio.to_thread(publish, mqtt_broker, [same])
        await until(lambda: bench.rows and not bench.noted())
        await asyncio.to_thread(publish, mqtt_broker, [same])
        assert await collected(bench, 2) == [b"door open"] * 2
        assert cutter.cuts == 1
        assert len({row.event.id for row in bench.rows}) == 2
    finally:
        await bench.close()


class Child:
    """A bridge in a process of its own."""

    def __init__(self, folder: Path, address: str, topic: str, version: str, qos: int) -> None:
        script = Path(__file__).parent / "mqtt_child.py"
        tests = Path(__file__).parent.parent
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder), address, topic, version, str(qos)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{tests}:{tests / 'doubles'}", "PATH": "/usr/bin:/bin"},
        )
        assert self._line() == "begun"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def killed(self) -> bool:
        return self._process.returncode is not None

    def rows(self) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write("show\n")
        self._process.stdin.flush()
        found: list[str] = self._line()
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self.close()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.mark.mqtt
@VERSIONS
@pytest.mark.parametrize(
    ("direction", "name", "nth", "passed", "qos"),
    [
        pytest.param("to client", "PUBLISH", 2, False, 1, id="before it comes"),
        pytest.param("to client", "PUBLISH", 2, True, 1, id="between receive and journal"),
        pytest.param("to broker", "PUBACK", 2, False, 1, id="between journal and PUBACK"),
        pytest.param("to broker", "PUBACK", 2, True, 1, id="after PUBACK"),
        pytest.param("to broker", "PUBREC", 2, False, 2, id="between journal and PUBREC"),
        pytest.param("to broker", "PUBREC", 2, True, 2, id="after PUBREC"),
        pytest.param("to client", "PUBREL", 2, True, 2, id="after PUBREL"),
        pytest.param("to broker", "PUBCOMP", 2, False, 2, id="before PUBCOMP"),
        pytest.param("to broker", "PUBCOMP", 2, True, 2, id="after PUBCOMP"),
    ],
)
def test_a_bridge_that_is_killed_loses_nothing_and_repeats_no_row(
    mosquitto: Mosquitto,
    tmp_path: Path,
    direction: Direction,
    name: str,
    nth: int,
    passed: bool,  # noqa: FBT001 - a parameter of the test
    qos: int,
    version: str,
) -> None:
    topic = fresh_topic()
    cutter = Cutter(direction, name, nth, passed=passed)
    proxy = Proxy(mosquitto.address, cutter.before, cutter.after)
    first = Child(tmp_path, f"127.0.0.1:{proxy.port}", topic, version, qos)
    dead = threading.Event()

    def kill() -> None:
        first.kill()
        dead.set()

    cutter.kill = kill
    try:
        publish(mosquitto.address, numbers(topic, 40, qos=qos))
        assert dead.wait(60)
        publish(mosquitto.address, numbers(topic, 10, 40, qos=qos))
        second = Child(tmp_path, f"127.0.0.1:{proxy.port}", topic, version, qos)
        with contextlib.suppress(AssertionError):  # what is there tells more
            eventually(lambda: len(second.rows()) >= 50, 60)
        assert second.rows() == [str(n) for n in range(50)]
        second.end()
    finally:
        first.close()
        proxy.close()


@pytest.fixture
async def own(own_mosquitto: OwnMosquitto) -> AsyncIterator[Bench]:
    bench = Bench(own_mosquitto.address)
    yield bench
    await bench.close()


@pytest.mark.mqtt
@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_that_restarts_has_everything_delivered_once(
    own: Bench, own_mosquitto: OwnMosquitto, version: str, qos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_bridge, "FIRST", 0.01)
    own.connection["version"] = version
    bridge = await own.start(qos=qos)
    await asyncio.to_thread(publish, own.address, numbers(own.topic, 50, qos=qos))
    await asyncio.to_thread(own_mosquitto.stop)
    await until(lambda: bridge._backoff.failures > 5)
    await until(lambda: f"MQTT broker {own.address} cannot be reached: connection refused" in bridge.problem)
    await asyncio.to_thread(own_mosquitto.start)
    await until(lambda: not bridge.problem)
    await asyncio.to_thread(publish, own.address, numbers(own.topic, 50, 50, qos))
    await collected(own, 100)
    assert own.data() == [str(n).encode() for n in range(100)]


@pytest.mark.mqtt
async def test_a_broker_that_is_killed_loses_nothing_that_it_had_saved(own: Bench, own_mosquitto: OwnMosquitto) -> None:
    """It comes back as its file is: what was acknowledged in its last moment may be sent again."""
    await (await own.start()).close()
    await asyncio.to_thread(publish, own.address, numbers(own.topic, 50))
    saved = own_mosquitto.folder / "data" / "mosquitto.db"
    await until(lambda: saved.exists() and saved.read_bytes().count(own.topic.encode() + b"/v") == 50)
    await asyncio.to_thread(own_mosquitto.kill)
    await asyncio.to_thread(own_mosquitto.start)
    bridge = await own.start()
    await until(lambda: not bridge.problem)
    assert await collected(own, 50) == [str(n).encode() for n in range(50)]


@pytest.mark.mqtt
async def test_a_broker_killed_while_it_delivers_loses_nothing(own: Bench, own_mosquitto: OwnMosquitto) -> None:
    """It comes back as its file is: what was acknowledged in its last moment may be sent again."""
    bridge = await own.start(inflight=10)
    sending = asyncio.create_task(asyncio.to_thread(publish_until_it_dies, own.address, numbers(own.topic, 3000)))
    await until(lambda: len(own.rows) > 200)
    await asyncio.to_thread(own_mosquitto.kill)
    await sending  # else it would send the rest to the next one
    before = len(own.rows)
    await asyncio.to_thread(own_mosquitto.start)
    await until(lambda: not bridge.problem)
    await asyncio.to_thread(publish, own.address, [Sent(f"{own.topic}/v1/battery", b"last")])
    await until(lambda: own.data()[-1:] == [b"last"])
    seen = list(dict.fromkeys(own.data()[:-1]))
    assert seen == [str(n).encode() for n in range(len(seen))]
    assert len(seen) >= before
