"""Who is woken by which record, for any mix of falling asleep, forgetting and records."""

from __future__ import annotations

from fleetfn_node.sleepers import Place, Sleeper, Sleepers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

TOPIC = "t"
PARTITIONS = 2


class Watching(RuleBasedStateMachine):
    """A log per partition, and a reader that does exactly what `changes` says."""

    def __init__(self) -> None:
        super().__init__()
        self.sleepers = Sleepers()
        self.asleep: dict[Sleeper, dict[int, int]] = {}
        self.ends = dict.fromkeys(range(PARTITIONS), 0)
        self.reading: dict[Place, int] = {}
        self.count = 0

    @rule(positions=st.lists(st.integers(0, 6), min_size=PARTITIONS, max_size=PARTITIONS))
    def fall_asleep(self, positions: list[int]) -> None:
        self.count += 1
        sleeper = Sleeper(f"f{self.count}", "t", TOPIC, "g")
        offsets = {number: min(at, self.ends[number]) for number, at in enumerate(positions)}
        self.asleep[sleeper] = offsets
        self.sleepers.add(sleeper, offsets)

    @precondition(lambda self: self.asleep)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        sleeper = data.draw(st.sampled_from(list(self.asleep)))
        del self.asleep[sleeper]
        self.sleepers.drop(sleeper)

    @rule(number=st.integers(0, PARTITIONS - 1))
    def write(self, number: int) -> None:
        self.ends[number] += 1

    @rule()
    def go_on_with_another_consumer(self) -> None:
        self.sleepers.reread()
        self.reading.clear()

    @rule()
    def read_all(self) -> None:
        """Until nothing more is to be read."""
        moved = True
        while moved:
            moved = False
            for place, begin in self.sleepers.changes().items():
                moved = True
                if begin is None:
                    del self.reading[place]
                else:
                    self.reading[place] = begin
            for place, offset in list(self.reading.items()):
                if offset < self.ends[place[1]]:
                    moved = True
                    self.reading[place] = offset + 1
                    for sleeper in self.sleepers.record(place, offset):
                        assert self.asleep.pop(sleeper)[place[1]] <= offset
        for offsets in self.asleep.values():  # whoever still sleeps has nothing to read
            assert all(at >= self.ends[number] for number, at in offsets.items())

    @invariant()
    def knows_who_sleeps(self) -> None:
        assert len(self.sleepers) == len(self.asleep)
        for sleeper, offsets in self.asleep.items():
            assert self.sleepers.offsets(sleeper) == offsets


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_record_from_before_where_we_read_wakes_all_since_the_log_was_made_anew() -> None:
    sleepers = Sleepers()
    first, second = Sleeper("a", "t", TOPIC, "a"), Sleeper("b", "t", TOPIC, "b")
    sleepers.add(first, {0: 10})
    sleepers.add(second, {0: 20})
    assert sleepers.changes() == {(TOPIC, 0): 10}
    assert sleepers.record((TOPIC, 0), 3) == [first, second]
