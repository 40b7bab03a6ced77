"""Records that no handler can take: each is a dead letter with the whole of it, and the stream goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from bad_input import client, environments, states, taken_to_the_end
from kafka_broker import create_topic, eventually, fresh_name, produce, read_all
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.kafka]

CODE = """
from dataclasses import dataclass

from fleetfn import Context, Event, Reject, State


@dataclass
class Reading:
    vehicle: str
    celsius: float


def watch(reading: Reading, seen: State[int]) -> None:
    seen.value += 1


def gone(reading: Reading | None, seen: State[int]) -> None:
    seen.value += 100 if reading is None else 1


def text(event: Event[str], seen: State[int]) -> None:
    seen.value += 1


def fail(reading: Reading, seen: State[int], ctx: Context) -> str | None:
    seen.value += 1
    if reading.celsius > 300:
        raise Reject(f"{reading.celsius} degrees is no battery")
    if reading.celsius > 200:
        raise ZeroDivisionError("cell count is 0")
    if reading.celsius > 100:
        return "x" * int(reading.celsius * 10_000)
    return "short"
"""

SPEC = """
handler: handler:watch
retry: {{attempts: 2, initial: 10ms, max: 20ms}}
scale: {{idle: 10s}}
triggers:
- {{name: typed, kafka: {{topic: {typed}}}}}
- {{name: by-data, key: data.vehicle, event: {{id: data.id, time: data.ts}}, kafka: {{topic: {data}}}}}
- {{name: gone, handler: "handler:gone", kafka: {{topic: {gone}}}}}
- {{name: text, handler: "handler:text", kafka: {{topic: {text}}}}}
- {{name: fail, handler: "handler:fail", returns: out, kafka: {{topic: {fail}}}}}
outputs:
- {{name: out, kafka: {{topic: {out}}}}}
"""

TRIGGERS = {"typed": "typed", "data": "by-data", "gone": "gone", "text": "text", "fail": "fail"}


class Stream:
    """A deployed function, its topics, and what became of their records."""

    def __init__(self, machine: Machine, address: str) -> None:
        self.machine = machine
        self.address = address
        self.topics = {name: fresh_name(name) for name in [*TRIGGERS, "out"]}

    def deploy(self) -> None:
        for topic in self.topics.values():
            create_topic(self.address, topic)
        environments(self.machine.folder, self.address)
        folder = write_function(self.machine.folder / "readings", CODE, SPEC.format(**self.topics), name="readings")
        self.machine.fn("deploy", str(folder), "--env", "bench")

    def write(self, name: str, *records: tuple[Any, ...]) -> None:
        produce(self.address, self.topics[name], records)

    def letters(self, name: str, count: int) -> list[dict[str, Any]]:
        """All dead letters of the trigger, once there are `count`."""
        node = client(self.machine)
        eventually(lambda: len(node.dead(function="readings", trigger=TRIGGERS[name])) >= count)
        found: list[dict[str, Any]] = self.machine.json("dlq", "list", "readings", "--trigger", TRIGGERS[name])
        assert len(found) == count, found
        return found

    def state(self, key: str) -> Any:
        return states(self.machine, "readings").get(key)

    def through(self, name: str) -> None:
        """Every record's offset is committed."""
        taken_to_the_end(self.machine, self.address, self.topics[name], "readings", TRIGGERS[name])


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory, kafka: str) -> Iterator[Stream]:
    machine = Machine(tmp_path_factory.mktemp("kafka"))
    stream = Stream(machine, kafka)
    stream.deploy()
    yield stream
    machine.run("down")


def data_of(letter: dict[str, Any]) -> bytes | None:
    data = letter["event"].get("data")
    return None if data is None else base64.b64decode(data)


def headers_of(letter: dict[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in letter["event"].get("headers", [])}


GOOD = b'{"vehicle": "V1", "celsius": 20}'
CE = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/car", "ce_type": "reading"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
WHOLE: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/car", "type": "reading"}

BAD: dict[str, tuple[bytes | None, dict[str, str | bytes], str]] = {
    "cut short": (b'{"vehicle": "V1", "cel', {}, "not JSON"),
    "empty": (b"", {}, "empty"),
    "a word": (b"hello", {}, "not JSON"),
    "wrong type": (b'{"vehicle": "V1", "celsius": "warm"}', {"trace": "t-1"}, "$.celsius"),
    "missing field": (b'{"vehicle": "V1"}', {}, "celsius"),
    "a list": (b"[1]", {}, "array"),
    "broken UTF-8": (b'{"vehicle": "V\xff1", "celsius": 1}', {"raw": b"\xff\x00"}, "UTF-8"),
    "tombstone": (None, {}, "T | None"),
    "no type": (GOOD, {name: value for name, value in CE.items() if name != "ce_type"}, "type"),
    "no specversion": (GOOD, {name: value for name, value in CE.items() if name != "ce_specversion"}, "specversion"),
    "old specversion": (GOOD, {**CE, "ce_specversion": "0.3"}, "0.3"),
    "empty id": (GOOD, {**CE, "ce_id": ""}, "id"),
    "bad time": (GOOD, {**CE, "ce_time": "yesterday"}, "yesterday"),
    "header in broken UTF-8": (GOOD, {**CE, "ce_subject": b"V\xff1"}, "ce_subject"),
    "bad name": (GOOD, {**CE, "ce_bad_name": "x"}, "bad_name"),
    "wrong type in a CloudEvent": (b'{"vehicle": "V1", "celsius": []}', CE, "$.celsius"),
    "structured, cut short": (b'{"specversion": "1.0", "id"', STRUCTURED, "not JSON"),
    "structured, no source": (json.dumps({**WHOLE, "source": ""}).encode(), STRUCTURED, "source"),
    "structured, data twice": (
        json.dumps({**WHOLE, "data": 1, "data_base64": "AA=="}).encode(),
        STRUCTURED,
        "data_base64",
    ),
    "structured tombstone": (None, STRUCTURED, "without value"),
    "batch": (b"[]", {"content-type": "application/cloudevents-batch+json"}, "one event per record"),
    "avro": (b"\x00", {"content-type": "application/cloudevents+avro"}, "application/cloudevents+avro"),
}


def test_every_bad_record_is_a_dead_letter_with_the_whole_of_it_and_the_rest_is_handled(stream: Stream) -> None:
    records: list[tuple[Any, ...]] = []
    for key, (value, headers, _) in BAD.items():
        records += [(key, GOOD), (key, value, {"headers": list(headers.items())}), (key, GOOD), ("other", GOOD)]
    stream.write("typed", *records)
    letters = {letter["key"]: letter for letter in stream.letters("typed", len(BAD))}
    assert letters.keys() == BAD.keys()
    for key, (value, headers, said) in BAD.items():
        letter = letters[key]
        assert letter["reason"] == "unreadable", letter
        assert said in letter["detail"], letter
        assert data_of(letter) == value
        kept = headers_of(letter)
        for name, content in headers.items():
            if key != "wrong type in a CloudEvent":  # whose headers became the event's attributes
                assert kept[name] == (content if isinstance(content, bytes) else content.encode())
        assert stream.topics["typed"] in json.dumps(letter["position"])
        eventually(lambda key=key: stream.state(key) == 2)
    assert letters["wrong type in a CloudEvent"]["event"]["source"] == "/car"
    eventually(lambda: stream.state("other") == len(BAD))
    stream.through("typed")


def test_a_record_without_a_key_says_which_expression_found_none(stream: Stream) -> None:
    vehicle = b'{"vehicle": "V1", "celsius": 1, "id": "e-1", "ts": 1700000000}'
    stream.write(
        "data",
        ("k1", vehicle.replace(b'"vehicle"', b'"car"')),
        ("k2", vehicle.replace(b'"V1"', b"[1]")),
        ("k3", None),
        ("k4", b"\x00\x01"),
        ("k5", vehicle.replace(b"1700000000", b'"today"')),
        ("k6", vehicle.replace(b'"e-1"', b"{}")),
        ("k7", vehicle),
    )
    letters = {letter["event"]["subject"]: letter for letter in stream.letters("data", 6)}
    said = {
        "k1": "data.vehicle is missing",
        "k2": "data.vehicle",
        "k3": "there is no data",
        "k4": "data.vehicle",
        "k5": 'data.ts is "today"',
        "k6": "data.id is {}",
    }
    for key, words in said.items():
        assert words in letters[key]["detail"], letters[key]
        assert letters[key]["key"] is None
    eventually(lambda: stream.state("V1") == 1)
    stream.through("data")


def test_a_record_whose_own_key_is_missing_or_broken_keeps_its_bytes(stream: Stream) -> None:
    stream.write("text", (None, b"no key"), (b"\xff\xfe", b"broken key"), ("text", b"\xff"), ("text", b"fine"))
    letters = {data_of(letter): letter for letter in stream.letters("text", 3)}
    assert "kafka.key is missing" in letters[b"no key"]["detail"]
    assert "kafka.key is not UTF-8" in letters[b"broken key"]["detail"]
    assert headers_of(letters[b"broken key"])["kafka-key"] == b"\xff\xfe"
    assert "not UTF-8" in letters[b"\xff"]["detail"]
    eventually(lambda: stream.state("text") == 1)
    stream.through("text")


def test_a_tombstone_is_none_for_a_handler_that_takes_it(stream: Stream) -> None:
    stream.write("gone", ("leaving", GOOD), ("leaving", None), ("leaving", b"{}"), ("leaving", GOOD))
    (letter,) = stream.letters("gone", 1)
    assert data_of(letter) == b"{}"
    eventually(lambda: stream.state("leaving") == 102)
    stream.through("gone")


def test_a_handler_that_refuses_fails_or_emits_too_much_has_a_dead_letter_and_changes_nothing(stream: Stream) -> None:
    for celsius in (20, 150, 250, 350, 30):
        reading = json.dumps({"vehicle": "hot", "celsius": celsius}).encode()
        stream.write("fail", ("hot", reading, {"headers": [("trace", b"t-9")]}))
    letters = {json.loads(data_of(letter) or b"")["celsius"]: letter for letter in stream.letters("fail", 3)}
    assert letters[350]["reason"] == "rejected"
    assert letters[350]["detail"] == "350.0 degrees is no battery"
    assert (letters[250]["reason"], letters[250]["attempts"]) == ("attempts", 2)
    assert "ZeroDivisionError: cell count is 0" in letters[250]["detail"]
    assert "handler.py" in letters[250]["failure"]["traceback"]
    assert letters[150]["reason"] == "output refused"
    assert "too large" in letters[150]["detail"]
    assert stream.topics["out"] in letters[150]["detail"]
    assert all(headers_of(letter) == {"trace": b"t-9"} for letter in letters.values())
    eventually(lambda: stream.state("hot") == 2)
    assert [message.value() for message in read_all(stream.address, stream.topics["out"], 2)] == [
        b"short",
        b"short",
    ]
    stream.through("fail")


def test_dead_letters_are_listed_shown_and_discarded(stream: Stream) -> None:
    machine = stream.machine
    stream.write("gone", ("kept", b'{"vehicle": "V\xc3\xa9", "celsius": "?"}', {"headers": [("trace", b"t-2")]}))
    letters: list[dict[str, Any]] = []

    def there() -> bool:
        letters[:] = machine.json("dlq", "list", "readings", "--key", "kept")
        return bool(letters)

    eventually(there)
    number = str(letters[0]["sequence"])
    table = machine.fn("dlq", "list", "readings", "--reason", "unreadable", "--key", "kept")
    assert number in table
    assert "$.celsius" in table
    page = machine.fn("dlq", "show", number)
    for part in ("unreadable: ", "$.celsius", "trigger gone, key kept", "header trace", "t-2", '"vehicle": "Vé"'):
        assert part in page, page
    event = json.loads(machine.fn("dlq", "show", number, "-o", "event"))
    assert event["data"] == {"vehicle": "Vé", "celsius": "?"}
    assert "describe" not in machine.fn("dlq", "discard", number, "--yes")
    assert machine.json("dlq", "list", "readings", "--key", "kept") == []
    refused = machine.run("dlq", "show", number)
    assert refused.returncode == 1
    assert number in refused.stderr
    assert "Hint: " in refused.stderr
