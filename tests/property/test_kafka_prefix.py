"""The commit prefix of a partition, against its definition."""

from __future__ import annotations

from fleetfn_runtime.kafka_prefix import Prefix
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int | None]]:
    """Offsets received (ascending, with gaps), and steps: None receives the next one, a number settles that offset."""
    offsets = sorted(draw(st.sets(st.integers(0, 400), max_size=40)))
    order = draw(st.permutations(offsets))
    steps: list[int | None] = []
    received = 0
    for offset in order:
        while offset not in offsets[:received]:
            steps.append(None)
            received += 1
        steps.append(offset)
    stop = draw(st.integers(0, len(steps)))
    return offsets, steps[:stop]


@given(histories())
def test_commits_up_to_the_first_received_offset_that_is_not_settled(
    history: tuple[list[int], list[int | None]],
) -> None:
    offsets, steps = history
    prefix = Prefix(0)
    received: list[int] = []
    settled: set[int] = set()
    for step in steps:
        before = prefix.done
        if step is None:
            received.append(offsets[len(received)])
            prefix.receive(received[-1])
        else:
            settled.add(step)
            prefix.settle(step)
        prefix_settled = received[: next((n for n, each in enumerate(received) if each not in settled), len(received))]
        assert prefix.done == (prefix_settled[-1] + 1 if prefix_settled else 0)
        assert prefix.done >= before
        assert len(prefix) == len(received) - len(prefix_settled)


@given(histories())
def test_all_settled_leaves_nothing_pending(history: tuple[list[int], list[int | None]]) -> None:
    offsets, _ = history
    prefix = Prefix(7)
    for offset in offsets:
        prefix.receive(offset)
    for offset in reversed(offsets):
        prefix.settle(offset)
    assert len(prefix) == 0
    assert prefix.done == (offsets[-1] + 1 if offsets else 7)
