"""Lanes: what the properties do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetfn_runtime.lanes import Lanes


@dataclass(eq=False)
class Item:
    key: str | None
    name: str = ""
    kind: int = 0
    lane: Any = None
    chains: bool = False
    more: Any = ()
    waits: bool = False


def test_gives_first_what_has_been_ready_longest() -> None:
    lanes: Lanes[Item] = Lanes(kinds=1)
    for name in ("a1", "a2", "b1", "c1"):
        lanes.put(Item(name[0], name))
    [first] = lanes.take(1, 0)
    lanes.finish(first)
    assert [item.name for item in lanes.take(9, 0)] == ["b1", "c1", "a2"]


def test_a_busy_key_does_not_starve_the_others() -> None:
    lanes: Lanes[Item] = Lanes(kinds=1)
    for n in range(100):
        lanes.put(Item("busy", str(n)))
    lanes.put(Item("quiet", "q"))
    order: list[str] = []
    for _ in range(3):
        [item] = lanes.take(1, 0)
        order.append(item.name)
        lanes.finish(item)
    assert order == ["0", "q", "1"]


def test_a_held_lane_keeps_its_head_and_lets_others_go_on() -> None:
    lanes: Lanes[Item] = Lanes(kinds=1)
    for name in ("a1", "a2", "b1"):
        lanes.put(Item(name[0], name))
    one, other = lanes.take(9, 0)
    lanes.hold(one, due=5.0)
    lanes.finish(other)
    assert lanes.next_due() == 5.0
    lanes.wake(4.9)
    assert lanes.take(9, 0) == []
    lanes.wake(5.0)
    assert [item.name for item in lanes.take(9, 0)] == ["a1"]
    assert lanes.next_due() is None


def test_entries_of_a_key_are_serial_across_kinds() -> None:
    lanes: Lanes[Item] = Lanes(kinds=2)
    lanes.put(Item("a", "kafka", kind=0))
    lanes.put(Item("a", "http", kind=1))
    assert lanes.take(9, 1) == []
    [first] = lanes.take(9, 0)
    lanes.finish(first)
    assert [item.name for item in lanes.take(9, 1)] == ["http"]


def test_a_seized_key_waits_until_it_is_released() -> None:
    lanes: Lanes[Item] = Lanes(kinds=1)
    assert lanes.seize("a")
    assert not lanes.seize("a")
    lanes.put(Item("a", "a1"))
    assert lanes.take(9, 0) == []
    lanes.release("a")
    assert [item.name for item in lanes.take(9, 0)] == ["a1"]
    assert not lanes.seize("a")


def test_what_somebody_waits_for_passes_a_held_head_and_what_waits_behind_it() -> None:
    lanes: Lanes[Item] = Lanes(kinds=1)
    for name in ("held", "behind"):
        lanes.put(Item("a", name))
    lanes.put(Item("a", "first", waits=True))
    [held] = lanes.take(9, 0)
    lanes.hold(held, due=5.0)
    lanes.put(Item("a", "second", waits=True))
    order = []
    for _ in range(2):
        [item] = lanes.take(9, 0)
        order.append(item.name)
        lanes.wake(9.0)
        lanes.finish(item)
    assert order == ["first", "second"]
    assert lanes.take(9, 0) == []
    lanes.wake(9.0)
    [item] = lanes.take(9, 0)
    assert item is held
    lanes.finish(item)
    assert [item.name for item in lanes.take(9, 0)] == ["behind"]
