"""Dead letters that people redrive and discard in the wrong way, at the wrong time, twice, or too late."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bad_input import client, connections, mqtt_at, stands, states, trigger
from fleetfn_spec.gateway import Redrive
from fleetfn_triggers.inbox import Which
from kafka_broker import create_topic, eventually, fresh_name, produce
from machine import FN, Machine
from mqtt_broker import Mosquitto, Sent, fresh_topic, publish
from running_node import write_function

pytestmark = [pytest.mark.node, pytest.mark.mqtt, pytest.mark.kafka]

CODE = """
import time
from dataclasses import dataclass
from pathlib import Path

from fleetfn import Config, Context, Reject, State


@dataclass
class Limits:
    mended: str


@dataclass
class Seen:
    numbers: list[int]
    times: list[float]

    def __init__(self, numbers=(), times=()):
        self.numbers = list(numbers)
        self.times = list(times)


def take(n: int, seen: State[Seen], limits: Config[Limits]) -> None:
    if n < 0 and not Path(limits.mended).exists():
        raise Reject(f"{n} is negative")
    seen.value.numbers.append(n)
    seen.value.times.append(time.time())
"""

SPEC = """
handler: handler:take
config: {{mended: "{mended}"}}
scale: {{idle: 60s}}
onDeadLetter: {on}
triggers:
- {{name: live, key: topic.vehicle, mqtt: {{topic: "{topic}/{{vehicle}}"}}}}
- {{name: stream, kafka: {{topic: {stream}}}}}
{http}
"""

SOURCES = ("live", "stream", "ask")

HTTP = '- {name: ask, key: path.vehicle, http: {path: "/%s/{vehicle}"}}'


class Takers:
    """One machine; functions of which each takes negative numbers once it is mended."""

    def __init__(self, machine: Machine, mosquitto: Mosquitto, kafka: str) -> None:
        self.machine = machine
        self.mosquitto = mosquitto
        self.kafka = kafka
        self.topic = fresh_topic("dlq")
        self.streams: dict[str, str] = {}
        connections(machine.folder, mqtt_at(mosquitto.address), f'{{name: kafka, kafka: {{brokers: ["{kafka}"]}}}}')

    def deploy(self, name: str, *, on: str = "continue", http: bool = True) -> None:
        if name not in self.streams:
            self.streams[name] = fresh_name("dlq")
            create_topic(self.kafka, self.streams[name])
        spec = SPEC.format(
            mended=self.mended(name),
            on=on,
            topic=f"{self.topic}/{name}",
            stream=self.streams[name],
            http=HTTP % name if http else "",
        )
        folder = write_function(self.machine.folder / name, CODE, spec, name=name)
        self.machine.fn("deploy", str(folder), "--env", "bench")
        stands(self.machine, name, "live")

    def mended(self, name: str) -> Path:
        return self.machine.folder / f"{name}.mended"

    def publish(self, name: str, vehicle: str, *numbers: int) -> None:
        sent = [Sent(f"{self.topic}/{name}/{vehicle}", str(n).encode()) for n in numbers]
        publish(self.mosquitto.address, sent)

    def produce(self, name: str, vehicle: str, *numbers: int) -> None:
        produce(self.kafka, self.streams[name], [(vehicle, str(n).encode()) for n in numbers])

    def ask(self, name: str, vehicle: str, number: int) -> None:
        """Once: what is answered with 503 may have been kept all the same."""
        curl = ["curl", "-sf", "-H", "prefer: respond-async", "-H", "content-type: application/json"]
        curl += ["-H", f"idempotency-key: {uuid.uuid4()}"]
        url = f"{self.machine.url}/{name}/{vehicle}"
        command = [*curl, "-d", str(number), url]  # 503 while the gateway is not there
        eventually(lambda: subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0)

    def send(self, name: str, source: str, vehicle: str, *numbers: int) -> None:
        if source == "ask":
            for n in numbers:
                self.ask(name, vehicle, n)
        else:
            (self.publish if source == "live" else self.produce)(name, vehicle, *numbers)

    def letters(self, name: str, count: int, **which: Any) -> list[Any]:
        node = client(self.machine)
        eventually(lambda: len(node.dead(function=name, **which)) >= count)
        found = node.dead(function=name, **which)
        assert len(found) == count, found
        return found

    def seen(self, name: str, vehicle: str) -> list[int]:
        found: Any = states(self.machine, name).get(vehicle)
        return [] if found is None else found["numbers"]

    def refused(self, *arguments: str) -> str:
        done = self.machine.run(*arguments)
        assert done.returncode in (1, 2), done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def takers(tmp_path_factory: pytest.TempPathFactory, mosquitto: Mosquitto, kafka: str) -> Iterator[Takers]:
    machine = Machine(tmp_path_factory.mktemp("dlq"))
    takers = Takers(machine, mosquitto, kafka)
    machine.fn("up")
    yield takers
    node = client(machine)
    for each in node.functions():
        node.delete(each.name, keep_state=False)
    machine.run("down")


def test_what_does_not_exist_is_neither_redriven_nor_discarded_and_that_is_said(takers: Takers) -> None:
    for word in ("redrive", "discard"):
        more = ["--yes"] if word == "discard" else []
        done = takers.machine.run("dlq", word, "999999", *more)
        assert done.returncode == 0
        assert "1 number of those is no dead letter; see: fn dlq list" in done.stderr
        done = takers.machine.run("dlq", word, "--key", "nobody", *more)
        assert "No dead letter fits." in done.stderr
    for arguments, said in {
        ("redrive",): "choose dead letters by number, by options, or --all",
        ("discard", "12", "--all"): "choose dead letters by number",
        ("redrive", "x"): "'x' is not a valid int",
        ("discard", "--reason", "bad"): "'bad' is not one of",
        ("redrive", "--older-than", "soon"): "soon",
    }.items():
        error = takers.refused("dlq", *arguments)
        assert said in error, error
    for rate in ("0", "-1/s", "1/day", "nan"):
        error = takers.refused("dlq", "redrive", "--all", "--rate", rate)
        assert "is no rate" in error
        assert "100/s" in error
    for number in ("0", "-1", "99999999999999999999999"):
        error = takers.refused("dlq", "show", "--", number)
        assert number in error, error
    for word in ("redrive", "discard"):
        more = ["--yes"] if word == "discard" else []
        done = takers.machine.run("dlq", word, *more, "--", "99999999999999999999999", "-1")
        assert "2 numbers of those are no dead letter" in done.stderr, done.stderr


def test_a_row_that_still_waits_is_no_dead_letter(takers: Takers) -> None:
    takers.deploy("waits")
    takers.machine.fn("pause", "waits")
    takers.publish("waits", "V1", 1)
    eventually(lambda: trigger(takers.machine, "waits", "live").waiting == 1)
    node = client(takers.machine)
    last = max([each.sequence for each in node.dead(limit=500)], default=0)
    for number in range(last + 1, last + 20):
        assert node.redrive(Redrive(which=Which(sequences=(number,)))) == 0
        assert node.discard(Which(sequences=(number,))) == 0
        assert "there is no dead letter" in takers.refused("dlq", "show", str(number))
        if number > last + 3:
            break
    takers.machine.fn("resume", "waits")
    eventually(lambda: takers.seen("waits", "V1") == [1])


def test_a_dry_run_changes_nothing_and_a_rate_is_kept(takers: Takers) -> None:
    takers.deploy("rated")
    takers.publish("rated", "V1", *range(-6, 0))
    letters = takers.letters("rated", 6)
    asked = ["dlq", "redrive", "--function", "rated", "--rate", "2/s"]
    assert json.loads(takers.machine.fn(*asked, "--dry-run", "-o", "json")) == {"would_redrive": 6}
    assert takers.letters("rated", 6) == letters
    takers.mended("rated").touch()
    begun = time.time()
    done = takers.machine.run(*asked)
    assert "They go one after the other for 3" in done.stderr
    eventually(lambda: takers.seen("rated", "V1") == list(range(-6, 0)))
    times = states(takers.machine, "rated")["V1"]["times"]  # type: ignore[index]
    assert all(each - begun > place * 0.5 - 0.1 for place, each in enumerate(times)), (begun, times)


def test_a_redrive_asked_for_twice_at_once_runs_each_event_once_and_in_order(takers: Takers) -> None:
    takers.deploy("twice")
    takers.publish("twice", "V1", *range(-30, 0))
    takers.produce("twice", "K1", *range(-30, 0))
    takers.letters("twice", 60)
    takers.mended("twice").touch()
    node = client(takers.machine)
    which = Which(function="twice")
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda rate: node.redrive(Redrive(which=which, rate=rate)), [None, 50.0, None, 50.0]))
    assert sum(counts[::2]) <= 60
    eventually(lambda: node.dead(function="twice") == [])
    eventually(lambda: sorted(takers.seen("twice", "V1")) == list(range(-30, 0)))
    eventually(lambda: sorted(takers.seen("twice", "K1")) == list(range(-30, 0)))
    assert takers.seen("twice", "V1") == list(range(-30, 0))
    assert takers.seen("twice", "K1") == list(range(-30, 0))


def sequences(takers: Takers, function: str) -> list[int]:
    """Of its dead letters; none while all of them run again."""
    return [each.sequence for each in client(takers.machine).dead(function=function)]


def test_what_dies_again_keeps_its_order_and_is_no_part_of_the_same_redrive(takers: Takers) -> None:
    takers.deploy("again")
    takers.publish("again", "V1", -1, -2, -3)
    first = takers.letters("again", 3)
    takers.machine.fn("dlq", "redrive", "--function", "again", "--rate", "100/s")
    eventually(lambda: min(sequences(takers, "again"), default=0) > first[-1].sequence)
    second = takers.letters("again", 3)
    assert [each.event.data for each in second] == [each.event.data for each in first]
    takers.mended("again").touch()
    takers.machine.fn("dlq", "redrive", "--all")
    eventually(lambda: takers.seen("again", "V1") == [-1, -2, -3])


def test_letters_of_a_deleted_function_wait_until_it_is_there_again_or_are_discarded(takers: Takers) -> None:
    machine = takers.machine
    takers.deploy("gone")
    takers.publish("gone", "V1", -1, -2)
    takers.letters("gone", 2)
    machine.fn("delete", "gone", "--yes", "--keep-state")
    first, second = takers.letters("gone", 2)
    assert "gone" in machine.fn("dlq", "list")
    assert "gone" in takers.refused("dlq", "redrive", str(first.sequence))
    takers.mended("gone").touch()
    takers.deploy("gone")
    machine.fn("dlq", "redrive", str(first.sequence))
    eventually(lambda: takers.seen("gone", "V1") == [-1])
    machine.fn("delete", "gone", "--yes", "--keep-state")
    assert json.loads(machine.fn("dlq", "discard", str(second.sequence), "--yes", "-o", "json")) == {"discarded": 1}
    assert client(machine).dead(function="gone") == []


def test_letters_of_a_removed_trigger_wait_until_it_is_there_again(takers: Takers) -> None:
    machine = takers.machine
    takers.deploy("less")
    takers.ask("less", "V1", -1)
    (letter,) = takers.letters("less", 1)
    takers.deploy("less", http=False)
    takers.mended("less").touch()
    assert client(machine).dead_letter(letter.sequence).trigger == "ask"
    assert "ask" in takers.refused("dlq", "redrive", str(letter.sequence))
    takers.deploy("less")
    assert json.loads(machine.fn("dlq", "redrive", str(letter.sequence), "-o", "json")) == {"redriven": 1}
    eventually(lambda: takers.seen("less", "V1") == [-1])


def test_parked_keys_wait_over_a_redeploy_and_a_restart_and_go_on_in_order(takers: Takers) -> None:
    machine = takers.machine
    takers.deploy("park", on="park")
    keys = {source: f"{source}-1" for source in SOURCES}
    for source, key in keys.items():
        takers.send("park", source, key, 1, -2, 3, -4, 5)
        takers.send("park", source, f"{source}-2", 1)
    first = takers.letters("park", 3)
    for source in SOURCES:
        eventually(lambda source=source: trigger(machine, "park", source).waiting == 3)
        eventually(lambda source=source: takers.seen("park", f"{source}-2") == [1])
    takers.deploy("park", on="park")
    machine.fn("down")
    machine.fn("up")
    for source, key in keys.items():
        takers.send("park", source, key, 6)
        eventually(lambda source=source: trigger(machine, "park", source).waiting == 4)
    page = machine.fn("describe", "park")
    assert page.count("4 waiting") == 3
    assert page.count("1 key held (1 behind a dead letter)") == 3
    assert all(takers.seen("park", key) == [1] for key in keys.values())
    machine.fn("dlq", "discard", *(str(each.sequence) for each in first), "--yes")
    eventually(lambda: all(takers.seen("park", key) == [1, 3] for key in keys.values()))
    second = takers.letters("park", 3)
    takers.mended("park").touch()
    machine.fn("dlq", "redrive", *(str(each.sequence) for each in second))
    eventually(lambda: all(takers.seen("park", key) == [1, 3, -4, 5, 6] for key in keys.values()))
    for source, key in keys.items():
        takers.send("park", source, key, 7)
        eventually(lambda key=key: takers.seen("park", key) == [1, 3, -4, 5, 6, 7])
        eventually(lambda source=source: trigger(machine, "park", source).held == 0)


def test_no_longer_parking_lets_what_is_parked_wait_for_people_all_the_same(takers: Takers) -> None:
    takers.deploy("unpark", on="park")
    takers.publish("unpark", "V1", -1, 2)
    (letter,) = takers.letters("unpark", 1)
    takers.deploy("unpark", on="continue")
    eventually(lambda: trigger(takers.machine, "unpark", "live").waiting == 1)
    takers.machine.fn("dlq", "discard", str(letter.sequence), "--yes")
    eventually(lambda: takers.seen("unpark", "V1") == [2])
    takers.publish("unpark", "V1", -3, 4)
    eventually(lambda: takers.seen("unpark", "V1") == [2, 4])
    takers.letters("unpark", 1)


def test_a_letters_event_is_sent_again_by_a_pipe(takers: Takers) -> None:
    takers.deploy("pipe")
    for source in SOURCES:
        takers.send("pipe", source, f"{source}-1", -7)
    letters = takers.letters("pipe", 3)
    takers.mended("pipe").touch()
    for letter in letters:
        done = piped(takers.machine, letter.sequence, letter.trigger)
        assert done.returncode == 0, done.stderr
    for source in SOURCES:
        eventually(lambda source=source: takers.seen("pipe", f"{source}-1") == [-7])
    done = piped(takers.machine, 999_999, "live")
    assert done.returncode != 0
    assert "there is no dead letter 999999" in done.stderr
    assert "Traceback" not in done.stderr


def piped(machine: Machine, sequence: int, source: str) -> subprocess.CompletedProcess[str]:
    pipe = f"{FN} dlq show {sequence} -o event | {FN} send pipe --trigger {source}"
    command = ["bash", "-o", "pipefail", "-c", pipe]
    return subprocess.run(command, env=machine.environ, capture_output=True, text=True, timeout=180, check=False)
