"""What a seed says: the same events and the same disorder each time, and enough of each kind."""

from __future__ import annotations

from collections import Counter

import pytest
from soak import plan, schedule

SIZES = pytest.mark.parametrize("name", ["short", "medium"])


@SIZES
def test_a_seed_draws_the_same_again_and_another_one_does_not(name: str) -> None:
    size = plan.SIZES[name]
    assert plan.draw(7, size) == plan.draw(7, size) != plan.draw(8, size)
    deck = schedule.SHORT if name == "short" else schedule.DECK
    first, again, other = (schedule.draw(seed, size, deck) for seed in (7, 7, 8))
    assert first == again != other


@SIZES
def test_every_kind_of_event_comes_from_every_source_that_may_bring_it(name: str) -> None:
    events = plan.draw(1, plan.SIZES[name])
    assert len({event.id for event in events}) == len(events) == plan.SIZES[name].events
    kinds = {event.do for event in events}
    assert kinds >= set(plan.COMMON) | set(plan.KILLERS)
    assert {event.source[0] for event in events if event.do in plan.KILLERS} == {"x"}
    assert {event.source for event in events} >= {"k0", "x0", "mqtt", "http", "async", "raw"}


def test_the_long_form_is_what_it_is_said_to_be() -> None:
    events = plan.draw(1, plan.SIZES["long"])
    assert len(events) == 100_000
    assert len({event.vehicle for event in events}) == 1_000
    kinds = Counter(action.kind for action in schedule.draw(1, plan.SIZES["long"], schedule.DECK))
    assert kinds.keys() == set(schedule.DECK)
    assert min(kinds.values()) >= 4


def test_a_broken_payload_still_tells_its_event_to_those_who_look_closely() -> None:
    event = next(event for event in plan.draw(1, plan.SIZES["short"]) if event.do == "bad")
    assert f'"id": "{event.id}"'.encode() in event.payload
    assert event.payload.endswith(b"broken")
