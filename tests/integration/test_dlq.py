"""`fn dlq` on a real node: what was given up on is listed, shown, run again in order, sent again, dropped."""

import json
import subprocess
from pathlib import Path

import pytest
from bad_input import stands
from machine import FN, Machine
from running_node import wait_for, write_function

pytestmark = [pytest.mark.node]

HANDLER = """
from dataclasses import dataclass, field
from pathlib import Path
from fleetfn import Reject, Snapshot, State

@dataclass
class Seen:
    numbers: list[int] = field(default_factory=list)

def take(number: int, state: State[Seen]):
    if number < 0 and not Path({mended!r}).exists():
        raise Reject(f"{{number}} is negative")
    state.value.numbers.append(number)

def post(number: int, state: State[Seen]) -> list[int]:
    take(number, state)
    return state.value.numbers
"""
SPEC = """
handler: handler:take
triggers:
- {name: live, key: topic.vehicle, mqtt: {topic: "v/{vehicle}/n"}}
- {name: numbers, kafka: {topic: numbers}}
- {name: post, handler: "handler:post", key: header.vehicle, http: {path: /numbers}}
onDeadLetter: %s
"""


class Numbers:
    """The function, which takes negative numbers once `mend` was called."""

    def __init__(self, machine: Machine, folder: Path, *, on_dead_letter: str = "continue") -> None:
        self.machine = machine
        self._mended = folder / "mended"
        handler = HANDLER.format(mended=str(self._mended))
        machine.fn("deploy", str(write_function(folder / "hello", handler, SPEC % on_dead_letter)))
        stands(machine, "hello", "live")

    def mend(self) -> None:
        self._mended.touch()

    def send(self, *numbers: int, key: str = "V1", trigger: str = "live") -> None:
        recording = self.machine.folder / "recording.jsonl"
        recording.write_text("".join(json.dumps({"key": key, "data": number}) + "\n" for number in numbers))
        self.machine.fn("send", "hello", "--trigger", trigger, "--recording", str(recording))

    def seen(self, key: str = "V1") -> list[int]:
        done = self.machine.run("state", "get", "hello", key)
        return json.loads(done.stdout)["numbers"] if done.returncode == 0 else []

    def dead(self, count: int) -> list[dict]:
        def found() -> list[dict]:
            rows = self.machine.json("dlq", "list", "hello")
            return rows if len(rows) == count else []

        return wait_for(found, 60, f"{count} dead letters")


@pytest.fixture
def numbers(machine: Machine, tmp_path: Path) -> Numbers:
    return Numbers(machine, tmp_path)


def test_what_was_given_up_on_is_listed_shown_and_run_again(numbers: Numbers, machine: Machine) -> None:
    numbers.send(1, -2, 3, -4)
    numbers.send(-5, key="V2")
    first, second, third = numbers.dead(3)
    assert [each["detail"] for each in (first, second, third)] == [f"{n} is negative" for n in (-2, -4, -5)]
    assert (first["trigger"], first["key"], first["reason"]) == ("live", "V1", "rejected")
    assert numbers.seen() == [1, 3]
    wait_for(lambda: machine.json("describe", "hello")["dead_letters"] == 3, 60)
    assert [row["sequence"] for row in machine.json("dlq", "list", "--key", "V2")] == [third["sequence"]]
    assert machine.json("dlq", "list", "--older-than", "1h") == []
    assert "-2 is negative" in machine.fn("dlq", "show", str(first["sequence"]))

    assert machine.json("dlq", "redrive", "--key", "V1", "--dry-run") == {"would_redrive": 2}
    numbers.mend()
    assert machine.json("dlq", "redrive", "--key", "V1") == {"redriven": 2}
    wait_for(lambda: numbers.seen() == [1, 3, -2, -4], 60)
    assert machine.json("dlq", "discard", "--all", "--yes") == {"discarded": 1}
    assert machine.json("dlq", "list") == []
    assert numbers.seen("V2") == []


def test_a_redrive_at_a_rate_goes_on_by_itself(numbers: Numbers, machine: Machine) -> None:
    numbers.send(-1, -2, -3, -4)
    numbers.dead(4)
    numbers.mend()
    assert machine.json("dlq", "redrive", "--all", "--rate", "4/s") == {"redriven": 4}
    wait_for(lambda: numbers.seen() == [-1, -2, -3, -4], 60)


@pytest.mark.parametrize(
    ("trigger", "key"), [("live", "V1"), ("numbers", "V1"), ("post", "V1")], ids=["mqtt", "kafka", "http"]
)
def test_a_dead_letters_event_can_be_sent_again(numbers: Numbers, machine: Machine, trigger: str, key: str) -> None:
    if trigger == "post":
        curl = ["curl", "-sf", "-H", f"vehicle: {key}", "-H", "prefer: respond-async", "-d", "-7"]
        subprocess.run([*curl, "-H", "content-type: application/json", f"{machine.url}/numbers"], check=True)
    else:
        numbers.send(-7, key=key, trigger=trigger)
    (row,) = numbers.dead(1)
    assert (row["trigger"], row["key"]) == (trigger, key)
    numbers.mend()
    show = f"{FN} dlq show {row['sequence']} -o event"
    again = f"{show} | {FN} send hello --trigger {trigger}"
    subprocess.run(["bash", "-o", "pipefail", "-c", again], env=machine.environ, check=True, timeout=180)
    wait_for(lambda: numbers.seen(key) == [-7], 60)


def test_a_parked_key_waits_behind_its_dead_letter_and_others_do_not(machine: Machine, tmp_path: Path) -> None:
    numbers = Numbers(machine, tmp_path, on_dead_letter="park")
    numbers.send(1, -2, 3, 4)
    numbers.send(9, key="V2")
    (row,) = numbers.dead(1)
    wait_for(lambda: numbers.seen("V2") == [9], 60)
    wait_for(lambda: machine.json("dlq", "show", str(row["sequence"]))["parked"] == 2, 60)
    assert numbers.seen() == [1]

    def told() -> tuple[int, ...]:
        live = next(each for each in machine.json("describe", "hello")["triggers"] if each["name"] == "live")
        return live["held"], live["parked"], live["waiting"], live["dead"]

    wait_for(lambda: told() == (1, 1, 2, 1), 60)
    wait_for(lambda: "1 key held (1 behind a dead letter)" in machine.fn("describe", "hello"), 60)
    numbers.mend()
    machine.fn("dlq", "redrive", str(row["sequence"]))
    wait_for(lambda: numbers.seen() == [1, -2, 3, 4], 60)


def test_a_parked_key_goes_on_when_its_dead_letter_is_dropped(machine: Machine, tmp_path: Path) -> None:
    numbers = Numbers(machine, tmp_path, on_dead_letter="park")
    numbers.send(1, -2, 3)
    (row,) = numbers.dead(1)
    machine.fn("dlq", "discard", str(row["sequence"]), "--yes")
    wait_for(lambda: numbers.seen() == [1, 3], 60)
