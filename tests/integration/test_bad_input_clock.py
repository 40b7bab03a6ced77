"""Clocks that are set wrongly, asked for the wrong thing, too slow for their schedule, or paused."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input import client, trigger
from kafka_broker import eventually
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node]

CODE = """
import json
import time
from dataclasses import dataclass
from pathlib import Path

from fleetfn import Config, Tick


@dataclass
class Limits:
    file: str
    seconds: float = 0


def run(tick: Tick, limits: Config[Limits]) -> None:
    if Path(limits.file + ".broken").exists():
        raise ValueError("the report's folder is missing")
    began = time.time()
    time.sleep(limits.seconds)
    told = {
        "at": tick.at.timestamp(),
        "previous": tick.previous and tick.previous.timestamp(),
        "missed": tick.missed,
        "began": began,
        "ended": time.time(),
    }
    with open(limits.file, "a") as file:
        file.write(json.dumps(told) + "\\n")


def take(number: int) -> None: ...
"""

SPEC = """
handler: handler:run
config: {{file: "{file}", seconds: {seconds}}}
retry: {{attempts: 2, initial: 10ms, max: 20ms}}
scale: {{idle: 2s}}
triggers:
- {{name: clock, cron: {{{cron}}}}}
"""

NEVER_SOON = 'schedule: "0 3 1 1 *"'


class Clocks:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def deploy(self, name: str, cron: str = NEVER_SOON, *, seconds: float = 0, more: str = "") -> None:
        spec = SPEC.format(file=self.file(name), seconds=seconds, cron=cron) + more
        self.machine.fn("deploy", str(write_function(self.machine.folder / name, CODE, spec, name=name)))

    def file(self, name: str) -> Path:
        return self.machine.folder / f"{name}.jsonl"

    def runs(self, name: str) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self.file(name).read_text().splitlines()]
        except FileNotFoundError:
            return []

    def refused(self, *arguments: str) -> str:
        done = self.machine.run(*arguments)
        assert done.returncode in (1, 2), done.stdout
        assert "Hint: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocks]:
    machine = Machine(tmp_path_factory.mktemp("clock"))
    machine.fn("up")
    yield Clocks(machine)
    machine.run("down")


BAD = {
    "31 February": ('schedule: "0 0 31 2 *"', ['"0 0 31 2 *" never comes', "change day or month"]),
    "minute 61": ('schedule: "61 * * * *"', ['"61" is no minute', "0 to 59"]),
    "four fields": ('schedule: "* * * *"', ["has 4 fields", "five are needed"]),
    "seconds": ('schedule: "* * * * * *"', ["there are no seconds", "@every 10s"]),
    "a typing error": ('schedule: "@dayly"', ['"@dayly" is no schedule', "did you mean @daily?"]),
    "no time at all": ('schedule: "@every 0s"', ["out of range", "from 1s"]),
    "half a second": ('schedule: "@every 500ms"', ["is no duration"]),
    "a zone's typing error": ('schedule: "@daily", timezone: Europe/Berln', ["Europe/Berln", "Europe/Berlin?"]),
    "a zone outside": ('schedule: "@daily", timezone: "../../etc/passwd"', ["there is no time zone"]),
    "missed": ('schedule: "@daily", missed: twice', ["twice", "once"]),
    "both wrong": ('schedule: "x", timezone: Mars', ["cron.schedule", "cron.timezone"]),
}


@pytest.mark.parametrize(("cron", "said"), BAD.values(), ids=BAD)
def test_a_schedule_that_cannot_be_is_refused_with_its_line_and_what_to_write(
    clocks: Clocks, cron: str, said: list[str]
) -> None:
    folder = write_function(
        clocks.machine.folder / "wrong", CODE, SPEC.format(file="x", seconds=0, cron=cron), name="wrong"
    )
    done = clocks.machine.run("check", str(folder))
    assert done.returncode == 1
    error = done.stderr
    assert "function.yaml:10:" in error
    assert "Traceback" not in error
    for each in said:
        assert each in error, error


def test_what_is_no_clock_is_not_fired_and_the_error_names_what_is(clocks: Clocks) -> None:
    clocks.deploy(
        "mixed",
        more=f"- {{name: nightly, cron: {{{NEVER_SOON}}}}}\n"
        '- {name: numbers, handler: "handler:take", key: null, kafka: {topic: numbers}}\n',
    )
    without = "handler: handler:take\ntriggers:\n- {name: numbers, key: null, kafka: {topic: numbers}}\n"
    clocks.machine.fn(
        "deploy", str(write_function(clocks.machine.folder / "none", "def take(n: int): ...\n", without, name="none"))
    )
    for arguments, said in {
        ("nobody",): ["nobody"],
        ("mixed",): ["has several cron triggers", "clock, nightly"],
        ("mixed", "hourly"): ["has no cron trigger 'hourly'", "clock, nightly"],
        ("mixed", "numbers"): ["has no cron trigger 'numbers'", "clock, nightly"],
        ("none",): ["has no cron trigger", "fn invoke none"],
        ("mixed", "clock", "--at", "yesterday"): ["--at 'yesterday' is no time", "2026-03-01T02:30Z"],
        ("mixed", "clock", "--at", "2026-02-30T00:00Z"): ["2026-02-30", "day is out of range"],
        ("mixed", "clock", "--at", ""): ["is no time"],
    }.items():
        error = clocks.refused("trigger", "fire", *arguments)
        for each in said:
            assert each in error, error
    assert clocks.runs("mixed") == []
    assert trigger(clocks.machine, "mixed", "clock").waiting == 0


def test_a_fire_while_paused_waits_over_a_restart_of_the_node_and_runs_once_resumed(clocks: Clocks) -> None:
    machine = clocks.machine
    clocks.deploy("paused")
    machine.fn("pause", "paused")
    done = machine.run("trigger", "fire", "paused", "--at", "2026-03-01T02:30+01:00")
    assert done.returncode == 0
    assert "clock is paused: it runs after fn resume paused" in done.stderr
    machine.fn("trigger", "fire", "paused", "--at", "2026-03-01T02:30Z")
    machine.fn("down")
    machine.fn("up")
    eventually(lambda: trigger(machine, "paused", "clock").waiting == 2)
    eventually(lambda: "2 waiting" in machine.fn("describe", "paused"))
    assert clocks.runs("paused") == []
    machine.fn("resume", "paused")
    eventually(lambda: len(clocks.runs("paused")) == 2)
    assert [each["at"] for each in clocks.runs("paused")] == [1772328600.0, 1772332200.0]


def test_a_handler_slower_than_its_schedule_leaves_fires_out_and_never_runs_twice_at_once(clocks: Clocks) -> None:
    """One run is over more than two instants: a clock that looks late makes a fire of the latest that has passed."""
    clocks.deploy("skipping", 'schedule: "@every 1s", overlap: skip', seconds=2.5)
    eventually(lambda: len(clocks.runs("skipping")) >= 3)
    assert trigger(clocks.machine, "skipping", "clock").waiting <= 1
    client(clocks.machine).delete("skipping", keep_state=False)
    runs = clocks.runs("skipping")
    assert_one_at_a_time(runs)
    assert all(later["previous"] == earlier["at"] for earlier, later in itertools.pairwise(runs))
    assert all(later["at"] - earlier["at"] >= 2 for earlier, later in itertools.pairwise(runs))


def test_a_handler_slower_than_its_schedule_runs_for_each_instant_in_turn_where_they_queue(clocks: Clocks) -> None:
    clocks.deploy("queueing", 'schedule: "@every 1s", overlap: queue, missed: all', seconds=1.5)
    eventually(lambda: len(clocks.runs("queueing")) >= 3)
    eventually(lambda: trigger(clocks.machine, "queueing", "clock").waiting >= 2)
    client(clocks.machine).delete("queueing", keep_state=False)
    runs = clocks.runs("queueing")
    assert_one_at_a_time(runs)
    first = runs[0]["at"]
    assert [each["at"] for each in runs] == [first + number for number in range(len(runs))]


def assert_one_at_a_time(runs: list[dict[str, Any]]) -> None:
    assert all(earlier["ended"] <= later["began"] for earlier, later in itertools.pairwise(runs)), runs


def test_a_fire_that_fails_is_a_dead_letter_and_runs_for_its_own_instant_when_it_is_mended(clocks: Clocks) -> None:
    machine = clocks.machine
    clocks.deploy("broken")
    mark = machine.folder / "broken.jsonl.broken"
    mark.touch()
    machine.fn("trigger", "fire", "broken", "--at", "2026-03-01T02:30Z")
    node = client(machine)
    eventually(lambda: node.dead(function="broken"))
    (letter,) = node.dead(function="broken")
    assert (letter.reason, letter.attempts) == ("attempts", 2)
    assert "the report's folder is missing" in letter.detail
    mark.unlink()
    machine.fn("trigger", "fire", "broken", "--at", "2026-03-02T02:30Z")
    machine.fn("dlq", "redrive", str(letter.sequence))
    eventually(lambda: len(clocks.runs("broken")) == 2)
    assert {each["at"] for each in clocks.runs("broken")} == {1772332200.0, 1772418600.0}


def test_a_node_that_was_down_over_fires_catches_up_as_told(clocks: Clocks) -> None:
    ways = ("once", "all", "skip")
    for missed in ways:
        clocks.deploy(missed, f'schedule: "@every 1s", missed: {missed}, overlap: queue')
    eventually(lambda: all(clocks.runs(each) for each in ways))
    clocks.machine.fn("down")
    down = time.time()
    eventually(lambda: time.time() > down + 4)
    clocks.machine.fn("up")
    up = time.time()
    eventually(lambda: all(clocks.runs(each)[-1]["at"] >= up for each in ways))
    for each in ways:
        client(clocks.machine).delete(each, keep_state=False)
    once, every, skipping = (clocks.runs(each) for each in ways)
    assert [each["at"] for each in every] == [every[0]["at"] + number for number in range(len(every))]
    caught_up = max(once, key=lambda run: run["missed"])
    assert caught_up["missed"] == caught_up["at"] - caught_up["previous"] - 1 >= 3
    gaps = [after["at"] - before["at"] for before, after in itertools.pairwise(skipping)]
    assert max(gaps) >= 4
    assert {run["missed"] for run in skipping} == {0}


def test_a_schedule_that_is_changed_begins_anew(clocks: Clocks) -> None:
    clocks.deploy("changed", 'schedule: "@every 1s", missed: all')
    eventually(lambda: clocks.runs("changed"))
    clocks.deploy("changed", NEVER_SOON + ", missed: all")
    eventually(lambda: (trigger(clocks.machine, "changed", "clock").next_fire or 0) > time.time() + 60)
    eventually(lambda: trigger(clocks.machine, "changed", "clock").waiting == 0)
    began = time.time()
    clocks.deploy("changed", 'schedule: "@every 2s", missed: all')

    def since() -> list[float]:
        """Fires of the new schedule; one of the first may have been under way still."""
        return [run["at"] for run in clocks.runs("changed") if run["at"] >= began]

    eventually(lambda: len(since()) > 1)
    assert {at % 2 for at in since()} == {0}
    client(clocks.machine).delete("changed", keep_state=False)
