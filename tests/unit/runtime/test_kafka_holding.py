"""A partition while it is ours, and the bounds on what was handed over."""

from __future__ import annotations

from fleetfn.event import Event
from fleetfn.invocation import Done
from fleetfn.position import At
from fleetfn_runtime.kafka_holding import Bounds, Holding
from fleetfn_triggers.delivery import Delivery


def handed_over(holding: Holding, offset: int, size: int = 100) -> Delivery:
    holding.hand_over(offset, size)
    event: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"")
    return Delivery("t", "k", event, At("kafka:t:", 0, offset), holding, size=size)


def test_what_is_settled_after_the_partition_went_does_not_move_the_prefix() -> None:
    holding = Holding(0)
    holding.begin(5)
    delivery = handed_over(holding, 5)
    holding.owned = False
    holding.settle(delivery, Done())
    assert holding.prefix.done == 5
    assert not holding.owns(delivery)


def test_nothing_counts_once_the_inbox_takes_somebody_else_for_the_owner() -> None:
    holding = Holding(0)
    holding.begin(5)
    first, second = handed_over(holding, 5), handed_over(holding, 6)
    holding.stale()  # the inbox has refused the first: it comes again, and the second after it
    assert not holding.owns(second)
    holding.settle(second, Done())
    holding.settle(first, Done())
    assert holding.prefix.done == 5


def test_full_beyond_the_count_until_half_of_it_is_settled() -> None:
    bounds, holding = Bounds(count=4, size=10_000), Holding(0)
    deliveries = [handed_over(holding, offset) for offset in range(5)]
    assert bounds.full([holding])
    for delivery in deliveries[:2]:
        holding.settle(delivery, Done())
    assert bounds.full([holding])
    holding.settle(deliveries[2], Done())
    assert not bounds.full([holding])


def test_full_beyond_the_bytes_of_all_partitions_together() -> None:
    bounds, one, other = Bounds(count=1000, size=1000), Holding(0), Holding(1)
    handed_over(one, 0, size=400)
    assert not bounds.full([one, other])
    handed_over(other, 0, size=700)
    assert bounds.full([one, other])
    assert not bounds.full([one])  # the other went to another member: what it held no longer counts
