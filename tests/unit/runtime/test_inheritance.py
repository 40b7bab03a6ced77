"""What dead workers had under way comes to those after them and beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetfn.position import At
from fleetfn_runtime.inheritance import Inheritance
from fleetfn_runtime.places import Places

STREAM = "kafka:vehicle.telemetry:hVZ9yQmPTmO1T7dTz5AXvA"
POISON = ("telemetry", At(STREAM, 3, 7))
OTHER = ("telemetry", At(STREAM, 4, 1))


class Slot:
    """A worker of several, as far as its ledger goes."""

    def __init__(self, folder: Path, slot: int) -> None:
        self.places = Places(folder / "slots.lock")
        assert self.places.take(slot)
        self.inheritance = Inheritance(folder, slot, self.places)

    def begin(self, what: tuple[str, At], attempts: int) -> int:
        return self.inheritance.ledger.begin(*what, attempts)

    def end(self, note: int) -> None:
        self.inheritance.ledger.end(note)

    def die(self) -> None:
        self.inheritance.close()
        self.places.close()


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[list[Slot]]:
    made = [Slot(tmp_path, number) for number in range(3)]
    yield made
    for each in made:
        if each.places._file >= 0:
            each.die()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def die(slot: Slot) -> None:
    slot.die()
    slot.places._file = -1


def test_siblings_learn_what_a_dead_worker_had_under_way(slots: list[Slot]) -> None:
    slots[1].begin(POISON, 1)
    slots[2].begin(OTHER, 1)
    assert slots[0].inheritance.look() == {}
    die(slots[1])
    assert slots[0].inheritance.look() == {POISON: 1}
    assert slots[2].inheritance.look() == {POISON: 1}


def test_attempts_grow_over_slots_and_an_end_clears_them_for_all(slots: list[Slot], tmp_path: Path) -> None:
    slots[1].begin(POISON, 1)
    die(slots[1])
    assert slots[0].inheritance.look() == {POISON: 1}
    slots[0].begin(POISON, 2)
    assert slots[2].inheritance.look() == {}
    die(slots[0])
    slots[0] = Slot(tmp_path, 0)
    assert slots[0].inheritance.suspects == {POISON: 2}
    slots[0].end(slots[0].begin(POISON, 3))
    assert slots[2].inheritance.look() == {}


def test_an_attempt_by_who_did_not_know_of_the_others_counts_one_more(slots: list[Slot], tmp_path: Path) -> None:
    slots[0].begin(POISON, 1)
    slots[1].begin(POISON, 1)
    die(slots[0])
    die(slots[1])
    assert slots[2].inheritance.look() == {POISON: 2}
    slots[2].begin(POISON, 3)
    die(slots[2])
    slots[2] = Slot(tmp_path, 2)
    assert slots[2].inheritance.suspects == {POISON: 3}


def test_a_living_workers_runs_are_nobodys_suspects(slots: list[Slot], tmp_path: Path) -> None:
    slots[0].begin(POISON, 1)
    slots.append(Slot(tmp_path, 3))
    assert slots[3].inheritance.suspects == {}


def test_a_suspect_whose_note_another_one_has_taken_is_not_cleared(slots: list[Slot], tmp_path: Path) -> None:
    slots[1].begin(POISON, 1)
    die(slots[1])
    assert slots[0].inheritance.look() == slots[2].inheritance.look() == {POISON: 1}
    slots[0].end(slots[0].begin(POISON, 2))  # its place in the ledger for all is free
    slots[1] = Slot(tmp_path, 1)
    slots[1].begin(OTHER, 1)
    die(slots[1])
    assert slots[0].inheritance.look() == {OTHER: 1}
    slots[2].end(slots[2].begin(POISON, 2))
    assert slots[0].inheritance.look() == {OTHER: 1}


def test_the_only_worker_has_what_the_one_before_it_had(tmp_path: Path) -> None:
    one = Inheritance(tmp_path)
    one.ledger.begin(*POISON, 2)
    one.close()
    assert names(tmp_path) == ["ledger"]
    other = Inheritance(tmp_path)
    assert other.suspects == {POISON: 2}
    other.close()


def test_from_several_to_one_and_back_nothing_is_forgotten(slots: list[Slot], tmp_path: Path) -> None:
    slots[1].begin(POISON, 1)
    slots[2].begin(OTHER, 4)
    for each in slots:
        die(each)
    one = Inheritance(tmp_path)
    assert one.suspects == {POISON: 1, OTHER: 4}
    one.ledger.end(one.ledger.begin(*OTHER, 5))
    one.ledger.begin(*POISON, 2)
    one.close()
    slots[2] = Slot(tmp_path, 2)
    assert slots[2].inheritance.suspects == {POISON: 2}
    slots[2].end(slots[2].begin(POISON, 3))
    die(slots[2])
    again = Inheritance(tmp_path)
    assert again.suspects == {}
    assert names(tmp_path) == ["ledger", "slots.lock"]
    again.close()


def test_many_suspects_of_many_deaths(slots: list[Slot]) -> None:
    wanted = {}
    for slot in (1, 2):
        for number in range(1500):
            slots[slot].begin(("telemetry", At(STREAM, slot, number)), 1)
            wanted["telemetry", At(STREAM, slot, number)] = 1
        die(slots[slot])
    assert slots[0].inheritance.look() == wanted
