"""Lanes under any order of putting, taking, finishing, holding, sweeping and seizing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
from fleetfn_runtime.lanes import Lanes
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

KEYS = st.sampled_from(["a", "b", "c", "d", None])
KINDS = st.integers(0, 1)


@dataclass(eq=False)
class Item:
    key: str | None
    kind: int
    number: int
    lane: Any = None
    chains: bool = False
    more: Any = ()
    waits: bool = False
    lost: bool = False


class LanesMachine(RuleBasedStateMachine):
    """A model that knows, per key, what must come next."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Item] = Lanes(kinds=2)
        self.expected: dict[str, list[Item]] = {}
        self.keyless: list[Item] = []
        self.out: list[Item] = []
        self.held: dict[Item, float] = {}
        self.seized: set[str] = set()
        self.now = 0.0
        self.count = 0

    @rule(key=KEYS, kind=KINDS, waits=st.sampled_from([False, False, True]))
    def put(self, key: str | None, kind: int, *, waits: bool) -> None:
        self.count += 1
        item = Item(key, kind, self.count, waits=waits)
        self.lanes.put(item)
        (self.keyless if key is None else self.expected.setdefault(key, [])).append(item)

    @rule(most=st.integers(0, 4), kind=KINDS)
    def take(self, most: int, kind: int) -> None:
        taken = self.lanes.take(most, kind)
        assert len(taken) <= most
        for item in taken:
            assert item.kind == kind
            assert item not in self.held
            if item.key is None:
                assert item in self.keyless
            else:
                assert self._next_of(item.key) is item, "out of order, or two of one key"
                assert item.key not in self.seized
                assert all(other.key != item.key for other in self.out)
            self.out.append(item)
        if len(taken) < most:
            ready = [item for item in self._heads() if item.kind == kind]
            assert not ready, "something ready was not given"

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.out))
        self.out.remove(item)
        self._forget(item)
        self.lanes.finish(item)

    @precondition(lambda self: any(not item.waits for item in self.out))
    @rule(data=st.data(), delay=st.floats(0, 10))
    def hold(self, data: st.DataObject, delay: float) -> None:
        item = data.draw(st.sampled_from([item for item in self.out if not item.waits]))
        self.out.remove(item)
        self.held[item] = self.now + delay
        self.lanes.hold(item, self.now + delay)

    @precondition(lambda self: any(not item.waits for item in self.out))
    @rule(data=st.data())
    def move_to_the_front(self, data: st.DataObject) -> None:
        """Out of its lane, and back before all that waits there."""
        item = data.draw(st.sampled_from([item for item in self.out if not item.waits]))
        if item.key is None:
            return
        self.out.remove(item)
        self._forget(item)
        self.lanes.finish(item)
        ahead = [other for other in self.expected[item.key] if self._stands_before(other)]
        self.lanes.put_first([item])
        self.expected[item.key] = [*ahead, item, *(each for each in self.expected[item.key] if each not in ahead)]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.held, key=lambda held: held.number)))
        passed = item.key is not None and self._next_of(item.key) is not item
        assert self.lanes.let_go(item) is not passed
        if passed:
            self.held[item] = 0.0
        else:
            del self.held[item]

    @rule(step=st.floats(0, 5))
    def wake(self, step: float) -> None:
        self.now += step
        self.lanes.wake(self.now)
        passed = {item.key for item in self.held if self._next_of(item.key) is not item}
        self.held = {item: due for item, due in self.held.items() if due > self.now or item.key in passed - {None}}

    @rule(data=st.data())
    def sweep(self, data: st.DataObject) -> None:
        everything = [*self.keyless, *(item for items in self.expected.values() for item in items)]
        lost = {item for item in everything if data.draw(st.booleans())}
        swept = self.lanes.sweep(lambda item: item in lost)
        assert set(swept) == {item for item in lost if item not in self.out}
        assert len(set(swept)) == len(swept)
        for item in swept:
            self._forget(item)
            self.held.pop(item, None)

    @rule(key=st.sampled_from("abcd"))
    def seize(self, key: str) -> None:
        busy = bool(self.expected.get(key)) or key in self.seized
        assert self.lanes.seize(key) is not busy
        self.seized.add(key) if not busy else None

    @precondition(lambda self: self.seized)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.seized)))
        self.seized.remove(key)
        self.lanes.release(key)

    @invariant()
    def counts_and_times_are_right(self) -> None:
        assert len(self.lanes) == len(self.keyless) + sum(len(items) for items in self.expected.values())
        assert set(self.lanes.held()) == set(self.held)
        standing = [due for item, due in self.held.items() if item.key is None or self._next_of(item.key) is item]
        assert self.lanes.next_due() == (min(standing) if standing else None)

    def teardown(self) -> None:
        """Nothing is lost: what is left comes out, in order."""
        for key in self.seized:
            self.lanes.release(key)
        self.seized.clear()
        for item in self.out:
            self._forget(item)
            self.lanes.finish(item)
        self.out.clear()
        while self.held:
            self.lanes.wake(float("inf"))
            for kind in (0, 1):
                for item in self.lanes.take(100, kind):
                    self.held.pop(item, None)
                    self._forget(item)
                    self.lanes.finish(item)
        left = len(self.lanes)
        while left:
            taken = [*self.lanes.take(10, 0), *self.lanes.take(10, 1)]
            assert taken
            for item in taken:
                if item.key is not None:
                    assert self._next_of(item.key) is item
                self._forget(item)
                self.lanes.finish(item)
                left -= 1
        assert not self.lanes.take(1, 0)
        assert not self.lanes.take(1, 1)

    def _next_of(self, key: str | None) -> Item | None:
        """What must be taken next of a key, or stands at its head: those that somebody waits for pass a held one."""
        items = self.expected.get(key or "", [])
        if not items:
            return None
        out = [item for item in items if item in self.out]
        if out:
            return out[0]
        if items[0] in self.held:
            return next((item for item in items if item.waits), items[0])
        return items[0]

    def _stands_before(self, other: Item) -> bool:
        """Held, or passing one that is held: what comes first in the lane comes after it."""
        items = self.expected[other.key or ""]
        return other in self.held or (items[0] in self.held and other.waits)

    def _heads(self) -> list[Item]:
        heads = [self._next_of(key) for key, items in self.expected.items() if items and key not in self.seized]
        return [item for item in (*heads, *self.keyless) if item and item not in self.out and item not in self.held]

    def _forget(self, item: Item) -> None:
        if item.key is None:
            self.keyless.remove(item)
        else:
            self.expected[item.key].remove(item)


LanesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLanes = LanesMachine.TestCase
