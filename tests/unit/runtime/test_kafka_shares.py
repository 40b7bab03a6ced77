"""Who of several workers has which partitions."""

from __future__ import annotations

from fleetfn_runtime.kafka_sharing import shares
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.sets(st.integers(0, 300), max_size=64)
SLOTS = st.lists(st.integers(0, 63), unique=True, max_size=12).map(sorted)


def owners(numbers: set[int], slots: list[int]) -> dict[int, int]:
    return {number: slot for slot, found in shares(sorted(numbers), slots).items() for number in found}


def test_six_partitions_of_three_workers() -> None:
    found = {slot: sorted(numbers) for slot, numbers in shares(range(6), (0, 1, 2)).items()}
    assert found == {0: [0, 1], 1: [4, 5], 2: [2, 3]}


def test_more_workers_than_partitions_leave_some_without() -> None:
    assert {slot: len(numbers) for slot, numbers in shares(range(2), (0, 1, 2)).items()} == {0: 1, 1: 1, 2: 0}


def test_nobody_works_nobody_has_any() -> None:
    assert shares(range(4), ()) == {}


@given(NUMBERS, SLOTS)
def test_every_partition_has_one_owner_and_shares_are_even(numbers: set[int], slots: list[int]) -> None:
    found = shares(sorted(numbers), slots)
    given_ = [number for mine in found.values() for number in mine]
    assert sorted(given_) == (sorted(numbers) if slots else [])
    sizes = [len(mine) for mine in found.values()]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@given(NUMBERS, SLOTS)
def test_one_worker_more_takes_its_share_and_nothing_else_moves(numbers: set[int], slots: list[int]) -> None:
    before, after = owners(numbers, slots), owners(numbers, [*slots, 64])
    assert all(after[number] in (before.get(number), 64) for number in after)
