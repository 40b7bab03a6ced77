"""Messages that no handler can take, brokers that do not let us in, sessions that others take: what becomes of each."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input import client, connections, mqtt_at, page, stands, states, trigger
from kafka_broker import eventually
from machine import Machine
from mqtt_broker import Mosquitto, OwnMosquitto, Sent, fresh_topic, publish
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.mqtt]

CODE = """
from dataclasses import dataclass

from fleetfn import Event, State


@dataclass
class Reading:
    celsius: float
    unit: str = "C"


def watch(reading: Reading, seen: State[int]) -> None:
    seen.value += 1


def size(data: bytes | None, seen: State[list[int]]) -> None:
    seen.value.append(0 if data is None else len(data))


def note(text: str, seen: State[list[str]]) -> None:
    seen.value.append(text)
"""

GOOD = b'{"celsius": 20}'
CE = {"specversion": "1.0", "id": "1", "source": "/car", "type": "reading"}
STRUCTURED = "application/cloudevents+json"

BAD: dict[str, tuple[bytes, dict[str, str], str | None, str]] = {
    "cut-short": (b'{"celsius": 2', {}, None, "not JSON"),
    "empty": (b"", {}, None, "empty"),
    "broken-utf-8": (b'{"celsius": 2, "unit": "\xff"}', {}, None, "UTF-8"),
    "wrong-type": (b'{"celsius": "warm"}', {}, None, "$.celsius"),
    "a-list": (b"[1]", {}, None, "array"),
    "ce-no-type": (GOOD, {name: value for name, value in CE.items() if name != "type"}, None, "type"),
    "ce-old": (GOOD, {**CE, "specversion": "0.3"}, None, "0.3"),
    "ce-empty-id": (GOOD, {**CE, "id": ""}, None, "id"),
    "ce-bad-time": (GOOD, {**CE, "time": "yesterday"}, None, "yesterday"),
    "ce-typed-twice": (GOOD, {**CE, "datacontenttype": "text/plain"}, "application/json", "datacontenttype"),
    "structured-cut": (b'{"specversion": "1.0", "id"', {}, STRUCTURED, "not JSON"),
    "structured-batch": (b"[]", {}, "application/cloudevents-batch+json", "batch"),
    "structured-avro": (b"\x00", {}, "application/cloudevents+avro", "avro"),
}
"""Vehicle -> payload, user properties, content type, what its dead letter says."""


class Bench:
    """A machine, a broker, and functions whose topics begin with `topic`."""

    def __init__(self, machine: Machine, broker: Mosquitto) -> None:
        self.machine = machine
        self.broker = broker
        self.topic = fresh_topic("bad")
        self.use()

    def use(self, address: str | None = None, **fields: str) -> None:
        """Functions that are deployed from now on meet this broker."""
        connections(self.machine.folder, mqtt_at(address or self.broker.address, **fields))

    def deploy(self, name: str, topic: str = "", **fields: str) -> str:
        """What fn says of it, once its subscription stands. `fields`: of the trigger, as YAML."""
        said = self.try_deploy(name, topic, **fields)
        stands(self.machine, name, "live")
        return said

    def try_deploy(self, name: str, topic: str = "", **fields: str) -> str:
        """What fn says of it, though its subscription may not stand."""
        block = f'topic: "{self.topic}/{topic or name + "/{vehicle}"}"'
        wanted = {"key": "topic.vehicle", "mqtt": f"{{{block}}}"} | fields
        spec = (
            "handler: handler:watch\nretry: {attempts: 2, initial: 10ms, max: 20ms}\n"
            "scale: {idle: 60s}\ntriggers:\n- {name: live, "
            + ", ".join(f"{key}: {value}" for key, value in wanted.items())
            + "}\n"
        )
        folder = write_function(self.machine.folder / name, CODE, spec, name=name)
        done = self.machine.run("deploy", str(folder), "--env", "bench")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def refused(self, name: str) -> str:
        """What fn says of a deploy that is refused; nothing is deployed."""
        with pytest.raises(AssertionError) as error:
            self.try_deploy(name)
        said = str(error.value)
        assert "Hint: " in said
        assert "Traceback" not in said
        assert name not in [each.name for each in client(self.machine).functions()]
        return said

    def publish(self, topic: str, *payloads: bytes, version: str = "5", **fields: Any) -> None:
        sent = [Sent(f"{self.topic}/{topic}", payload, **fields) for payload in payloads]
        publish(self.broker.address, sent, version)

    def letters(self, name: str, count: int) -> list[dict[str, Any]]:
        node = client(self.machine)
        eventually(lambda: len(node.dead(function=name)) >= count)
        found: list[dict[str, Any]] = self.machine.json("dlq", "list", name)
        assert len(found) == count, found
        return found

    def problem(self, name: str) -> str:
        return trigger(self.machine, name, "live").problem

    def states(self, name: str) -> dict[str, object]:
        return states(self.machine, name)

    def client_id(self, name: str) -> str:
        return f"fleetfn/bench/{(self.machine.data / 'id').read_text().strip()}/{name}/live"

    def end(self) -> None:
        """No session stays at the broker."""
        node = client(self.machine)
        for each in node.functions():
            node.delete(each.name, keep_state=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, mosquitto: Mosquitto) -> Iterator[Bench]:
    machine = Machine(tmp_path_factory.mktemp("mqtt"))
    machine.fn("up")
    bench = Bench(machine, mosquitto)
    yield bench
    bench.end()
    machine.run("down")


@pytest.fixture
def bench(shared: Bench) -> Bench:
    shared.use()
    return shared


@pytest.fixture
def alone(machine: Machine, own_mosquitto: OwnMosquitto) -> Bench:
    """Broker and machine are the test's own."""
    return Bench(machine, own_mosquitto)


def test_every_bad_message_is_a_dead_letter_of_its_vehicle_and_the_rest_is_handled(bench: Bench) -> None:
    bench.deploy("typed")
    sent = []
    for vehicle, (payload, user, kind, _) in BAD.items():
        topic = f"{bench.topic}/typed/{vehicle}"
        sent += [Sent(topic, GOOD), Sent(topic, payload, user=list(user.items()), content_type=kind), Sent(topic, GOOD)]
    publish(bench.broker.address, sent)
    letters = {letter["key"]: letter for letter in bench.letters("typed", len(BAD))}
    assert letters.keys() == BAD.keys()
    for vehicle, (payload, _, _, said) in BAD.items():
        letter = client(bench.machine).dead_letter(letters[vehicle]["sequence"])
        assert letter.reason == "unreadable", letter
        assert said in letter.detail, letter
        assert (letter.event.data or b"") == payload
        assert letter.event.subject == f"{bench.topic}/typed/{vehicle}" or "mqtt-topic" in dict(letter.event.headers)
    eventually(lambda: bench.states("typed") == dict.fromkeys(BAD, 2))
    page = bench.machine.fn("dlq", "show", str(letters["wrong-type"]["sequence"]))
    assert f"{bench.topic}/typed/wrong-type" in page


def test_a_message_without_a_key_says_which_expression_found_none(bench: Bench) -> None:
    bench.deploy("keyed", key="data.vehicle")
    bench.publish("keyed/a", b'{"celsius": 1}', b'{"celsius": 1, "vehicle": [1]}', b"\x00", b"")
    bench.publish("keyed/a", b'{"celsius": 1, "vehicle": ""}', b'{"celsius": 1, "vehicle": 7}')
    said = [letter["detail"] for letter in bench.letters("keyed", 5)]
    assert "data.vehicle is missing" in said[0]
    assert "data.vehicle is [1]" in said[1]
    assert all("data.vehicle" in each for each in said), said
    eventually(lambda: bench.states("keyed") == {"7": 1})


def test_an_empty_level_of_the_topic_is_no_key(bench: Bench) -> None:
    bench.deploy("level", "level/{vehicle}/t")
    bench.publish("level//t", GOOD)
    bench.publish("level/V1/t", GOOD)
    (letter,) = bench.letters("level", 1)
    assert "topic.vehicle is empty" in letter["detail"]
    assert letter["event"]["subject"] == f"{bench.topic}/level//t"
    eventually(lambda: bench.states("level") == {"V1": 1})


def test_a_user_property_that_is_the_key_may_be_missing_or_there_twice(bench: Bench) -> None:
    bench.deploy("header", key="header.vin")
    bench.publish("header/a", GOOD)
    bench.publish("header/a", GOOD, user=[("VIN", "V1")])
    bench.publish("header/a", GOOD, user=[("vin", "V2"), ("vin", "V3")])
    (letter,) = bench.letters("header", 1)
    assert "header.vin is missing" in letter["detail"]
    eventually(lambda: bench.states("header") == {"V1": 1, "V2": 1})


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_large_messages_are_taken_and_too_large_ones_hold_up_nobody(bench: Bench, version: str) -> None:
    """MQTT 5 brokers are told what we take and drop the rest; with 3.1.1 a dead letter has all but the payload."""
    name = f"size-{version.replace('.', '')}"
    bench.use(version=f'"{version}"')
    bench.deploy(name, handler='"handler:size"')
    sizes = [0, 1_000_000, 17_000_000, 10]
    bench.publish(f"{name}/V1", *(b"x" * size for size in sizes))
    eventually(lambda: bench.states(name) == {"V1": [0, 1_000_000, 10]})
    dead = client(bench.machine).dead(function=name)
    if version == "5":
        assert dead == []
        return
    (letter,) = dead
    assert letter.reason == "unreadable"
    assert "17000" in letter.detail
    assert letter.key == "V1"
    assert letter.event.subject == f"{bench.topic}/{name}/V1"
    assert bench.problem(name) == ""


def test_a_structured_event_and_bare_json_come_with_311_as_with_5(bench: Bench) -> None:
    bench.use(version='"3.1.1"')
    bench.deploy("old")
    whole = {**CE, "data": {"celsius": 1}}
    bench.publish("old/V1", GOOD, json.dumps(whole).encode(), b"\xff", version="3.1.1")
    bench.letters("old", 1)
    eventually(lambda: bench.states("old") == {"V1": 2})


def test_a_wrong_password_is_named_and_the_right_one_is_taken(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("mistyped")
    where = f"127.0.0.1:{bench.broker.port + 2}"
    bench.use(where, username="fn", password=f'{{file: "{secret}"}}')
    said = bench.refused("secret")
    assert where in said
    assert "refuses us" in said
    assert "check username" in said
    assert "mistyped" not in said
    secret.write_text("fn-secret\n")
    bench.deploy("secret")
    bench.publish("secret/V1", GOOD)
    eventually(lambda: bench.states("secret") == {"V1": 1})


def test_a_missing_password_file_is_named(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "nowhere"
    bench.use(f"127.0.0.1:{bench.broker.port + 2}", username="fn", password=f'{{file: "{secret}"}}')
    assert str(secret) in bench.refused("nofile")


def test_a_certificate_that_is_not_trusted_is_named_with_what_to_check(bench: Bench) -> None:
    bench.use(url=f'"mqtts://127.0.0.1:{bench.broker.port + 1}"')
    said = bench.refused("untrusted")
    assert "its certificate is not accepted" in said
    assert "check tls" in said


class Refusing:
    """A broker that lets everybody in and refuses each subscription (MQTT 5: not authorized)."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        """However slow the other side is, and how many of it there are."""
        with client, contextlib.suppress(OSError):
            client.settimeout(60)
            client.recv(4096)
            client.sendall(b"\x20\x03\x00\x00\x00")
            packet_id = client.recv(4096)[2:4]
            client.sendall(b"\x90\x04" + packet_id + b"\x00\x87")
            while client.recv(4096):
                pass

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(60)


def test_a_refused_subscription_names_the_filter_and_what_to_check(bench: Bench) -> None:
    broker = Refusing()
    try:
        bench.use(broker.address)
        # a deploy waits for some seconds only; one of the same leaves the feed alone
        eventually(lambda: "refuses the subscription" in bench.try_deploy("refused"))
        wanted = ("refuses the subscription", f"{bench.topic}/refused/+", "not authorized", "what the broker allows")
        eventually(lambda: all(each in bench.problem("refused") for each in wanted))
        bench.machine.fn("delete", "refused", "--yes")
    finally:
        broker.close()


def test_a_broker_that_is_missing_is_named_and_met_again_when_it_comes(alone: Bench) -> None:
    broker = alone.broker
    assert isinstance(broker, OwnMosquitto)
    broker.stop()
    assert broker.address in alone.refused("late")
    broker.start()
    alone.deploy("late", handler='"handler:note"')
    broker.stop()
    eventually(lambda: broker.address in alone.problem("late"))
    page(alone.machine, "late", broker.address)
    assert alone.machine.run("send", "late", "--key", "V1", "--data", "1").returncode == 1
    alone.machine.fn("down")
    alone.machine.fn("up")
    eventually(lambda: broker.address in alone.problem("late"))
    broker.start()
    alone.publish("late/V1", b"1")
    eventually(lambda: alone.states("late") == {"V1": ["1"]})
    eventually(lambda: alone.problem("late") == "")


def test_what_was_published_to_the_old_topic_before_a_redeploy_is_handled_and_later_messages_are_not(
    bench: Bench,
) -> None:
    bench.deploy("moving", "moving/old/{vehicle}", handler='"handler:note"')
    bench.machine.fn("pause", "moving")
    bench.publish("moving/old/V1", b'"before"')
    eventually(lambda: trigger(bench.machine, "moving", "live").waiting == 1)
    bench.deploy("moving", "moving/new/{vehicle}", handler='"handler:note"')
    bench.publish("moving/old/V1", b'"late"')
    bench.publish("moving/new/V1", b'"after"')
    bench.machine.fn("resume", "moving")
    eventually(lambda: bench.states("moving") == {"V1": ['"before"', '"after"']})
    bench.deploy("moving", "moving/old/{vehicle}", handler='"handler:note"')
    bench.publish("moving/old/V1", b'"back"')
    eventually(lambda: bench.states("moving") == {"V1": ['"before"', '"after"', '"back"']})


def session_present(address: str, client_id: str) -> bool:
    """Whether the broker keeps a session of this client; it is gone afterwards."""
    told: list[bool] = []
    plain = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
    plain.on_connect = lambda _client, _data, flags, *_: told.append(flags.session_present)
    host, _, port = address.rpartition(":")
    plain.connect(host, int(port), clean_start=False)
    plain.loop_start()
    try:
        eventually(lambda: told)
    finally:
        plain.disconnect()
        plain.loop_stop()
        plain._reset_sockets()
    return told[0]


def test_the_session_of_a_deleted_function_is_gone_at_the_broker(alone: Bench) -> None:
    for name in ("kept", "deleted", "trimmed"):
        alone.deploy(name)
        eventually(lambda name=name: alone.problem(name) == "")
    ids = {name: alone.client_id(name) for name in ("kept", "deleted", "trimmed")}
    alone.machine.fn("delete", "deleted", "--yes")
    folder = write_function(
        alone.machine.folder / "trimmed",
        "def tick(): ...\n",
        "handler: handler:tick\ntriggers:\n- {name: nightly, cron: {schedule: '@daily'}}\n",
        name="trimmed",
    )
    alone.machine.fn("deploy", str(folder), "--env", "bench")
    gone = "deleted/live is deleted, and its source keeps nothing for it"
    # the node may have to ask a slow broker again, half a minute later
    eventually(lambda: gone in (alone.machine.data / "node.log").read_text(), 120)
    alone.machine.fn("down")
    assert {name: session_present(alone.broker.address, id_) for name, id_ in ids.items()} == {
        "kept": True,
        "deleted": False,
        "trimmed": False,
    }


def test_two_nodes_of_one_copied_data_folder_are_told_of_each_other_and_lose_nothing(
    alone: Bench, tmp_path: Path
) -> None:
    alone.deploy("twin")
    alone.machine.fn("down")
    (tmp_path / "copy").mkdir()
    copy = Machine(tmp_path / "copy")
    shutil.copytree(alone.machine.data, copy.data)
    alone.machine.fn("up")
    copy.fn("up")
    twins = [alone.machine, copy]
    try:
        said: list[str] = []

        def told() -> bool:
            """Who of them has the session changes all the time: what was said counts, not what is said now."""
            said[:] = [found for each in twins if "copy of this node's data folder" in (found := alone_problem(each))]
            return bool(said)

        eventually(told)
        assert alone.client_id("twin") in said[0]
        for number in range(20):
            alone.publish(f"twin/V{number}", GOOD)
        wanted = {f"V{number}" for number in range(20)}
        eventually(lambda: {key for each in twins for key in states(each, "twin")} == wanted, 60)
    finally:
        copy.run("down")


def alone_problem(machine: Machine) -> str:
    return trigger(machine, "twin", "live").problem


def test_a_payload_that_nobody_can_send_is_refused_by_fn_send(bench: Bench) -> None:
    bench.deploy("sent")
    for arguments, said in {
        ("--key", "a/b", "--data", "{}"): "no level of a topic",
        ("--data", "{}"): "a level that the event does not give",
        ("--key", "V1", "--data", "{"): "JSON",
    }.items():
        done = bench.machine.run("send", "sent", *arguments)
        assert done.returncode != 0, done.stdout
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
