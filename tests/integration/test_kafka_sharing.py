"""Workers of one node share a topic's partitions: each has its own, a dead one's are had at once, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from fleetfn.position import At, Position
from fleetfn_runtime import places
from fleetfn_runtime.inheritance import Inheritance
from fleetfn_runtime.kafka_sharing import Shared
from fleetfn_runtime.places import Places
from fleetfn_runtime.team import Team
from kafka_broker import committed, fresh_name, produce
from kafka_doubles import FakeRoad, at, running, source, until


class Member:
    """One worker, as far as its source goes."""

    def __init__(self, broker: str, topic: str, group: str, folder: Path, slot: int, road: FakeRoad) -> None:
        self.road = road
        self.places = Places(folder / "slots.lock")
        assert self.places.take(slot)
        self.team = Team(slot, 4, places=self.places, inheritance=Inheritance(folder, slot, self.places))
        self.warned: dict[tuple[str, Position], int] = {}
        self.source = source(
            broker, topic, group, road, start="earliest", partitions=Shared("t", self.team, self._warn)
        )

    def _warn(self, suspects: Mapping[tuple[str, Position], int]) -> None:
        assert not self.road.taken
        self.warned |= suspects

    @property
    def partitions(self) -> set[int]:
        return {at(each).partition for each in self.road.taken}

    @property
    def claimed(self) -> set[int]:
        """Partitions that it has, or had: those that another one frees may come one by one."""
        return {number for _, partitions in self.road.claims for number in partitions}

    @property
    def numbers(self) -> set[int]:
        return {int(each.event.data or b"") for each in self.road.taken}


class Cast:
    def __init__(self, broker: str, topic: str, group: str, folder: Path) -> None:
        self.broker, self.topic, self.group, self.folder = broker, topic, group, folder
        self.sent = 0

    @contextlib.asynccontextmanager
    async def member(self, slot: int, *slots: int, road: FakeRoad | None = None) -> AsyncIterator[Member]:
        made = Member(self.broker, self.topic, self.group, self.folder, slot, road or FakeRoad())
        made.team.slots = slots
        async with running(made.source):
            yield made
        made.team.inheritance = None
        made.places.close()

    async def send(self, count: int = 40) -> None:
        records = [("k", str(self.sent + n).encode(), {"partition": n % 4}) for n in range(count)]
        self.sent += count
        await asyncio.to_thread(produce, self.broker, self.topic, records)

    def committed(self) -> list[int]:
        return committed(self.broker, self.group, self.topic)


@pytest.fixture
def cast(broker: str, either_topic: str, tmp_path: Path) -> Cast:
    return Cast(broker, either_topic, fresh_name("local/node/f/t"), tmp_path)


async def test_who_was_not_told_that_it_works_has_no_partition(cast: Cast) -> None:
    await cast.send()
    async with cast.member(0) as one, cast.member(1, 1) as other:
        await until(lambda: len(other.road.taken) == 40)
        assert one.road.taken == []
        one.team.slots = (0,)
        other.team.slots = ()
        await until(lambda: len(one.claimed) == 4)  # until then, the other one takes what comes
        await cast.send()
        await until(lambda: len(one.road.taken) == 40)
    assert cast.committed() == [20] * 4


async def test_partitions_move_as_members_come_and_go_and_every_record_comes_once(cast: Cast) -> None:
    async with cast.member(0, 0) as one:
        await cast.send()
        await until(lambda: len(one.road.taken) == 40)
        async with cast.member(1, 0, 1) as other:
            one.team.slots = (0, 1)
            await until(lambda: len(other.claimed) == 2)
            await cast.send()
            await until(lambda: len(one.road.taken) + len(other.road.taken) == 80)
            assert len(other.partitions) == 2
            one.team.slots = (0,)
        await cast.send()
        await until(lambda: len(one.road.taken) + len(other.road.taken) == 120)
    assert one.numbers | other.numbers == set(range(120))
    assert cast.committed() == [30] * 4


async def test_what_is_not_settled_when_a_partition_goes_comes_again_at_its_new_owner(cast: Cast) -> None:
    await cast.send()
    road = FakeRoad(holds=lambda delivery: at(delivery).offset >= 5)
    async with cast.member(0, 0, road=road) as one:
        await until(lambda: len(road.taken) == 40)
        async with cast.member(1, 0, 1) as other:
            one.team.slots = (0, 1)
            await until(lambda: len(other.road.taken) == 10)
            assert {at(each).offset for each in other.road.taken} == {5, 6, 7, 8, 9}
            moved = [each for each in road.taken if at(each).partition in other.partitions]
            assert not any(each.source.owns(each) for each in moved)
            assert len(road.waiting) == 10
            road.release()
    assert cast.committed() == [10] * 4


async def test_partitions_of_a_dead_one_come_with_what_it_had_under_way(cast: Cast) -> None:
    await cast.send()
    dead = Places(cast.folder / "slots.lock")
    assert dead.take(1)
    assert all(dead.take(places.of_partition("t", number)) for number in (2, 3))
    left = Inheritance(cast.folder, 1, dead)
    poison, elsewhere = ("t", At("kafka:x:y", 3, 7)), ("other", At("kafka:x:y", 3, 7))
    left.ledger.begin(*poison, 2)
    left.ledger.begin(*elsewhere, 1)
    async with cast.member(2, 1, 2) as heir:
        await until(lambda: heir.source.problem == "" and heir.source.lag is not None)
        assert heir.road.taken == []
        heir.team.slots = (2,)
        await until(lambda: heir.road.taken)
        assert heir.partitions <= {0, 1}
    heir = Member(cast.broker, cast.topic, cast.group, cast.folder, 2, FakeRoad())
    heir.team.slots = (1, 2)
    left.close()
    dead.close()
    async with running(heir.source):
        await until(lambda: heir.warned)
        assert heir.warned == {poison: 2, elsewhere: 1}
