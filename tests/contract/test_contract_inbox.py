"""What every Inbox promises to workers and feeds: fleetfn_triggers.inbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from fleetfn.position import At
from fleetfn_triggers.inbox import REMEMBER, Claim, Row, Which
from inbox_adapters import ADAPTERS, EVENT, LETTER, STREAM, Clock, Opened, arrival, letter, offer


@pytest.fixture(params=ADAPTERS)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with ADAPTERS[request.param](tmp_path, Clock()) as opened:
        yield opened


def claim(partitions: dict[int, int | None], **fields: str) -> Claim:
    return Claim(
        **{"function": "battery-alert", "trigger": "telemetry", "stream": STREAM, "partitions": partitions, **fields}
    )


async def row(opened: Opened, sequence: int) -> Row:
    found = await opened.letters.get(sequence)
    assert found is not None
    return found


# put


async def test_an_arrival_becomes_a_row_that_waits_with_a_position_of_the_inbox(opened: Opened) -> None:
    (sequence,) = await opened.inbox.put([arrival(raw=True)])
    found = await row(opened, sequence)
    assert isinstance(found.position, At)
    assert found.position.stream.startswith("inbox:")
    assert (found.position.partition, found.position.offset) == (0, sequence)
    expected = Row(
        sequence=sequence,
        function="battery-alert",
        trigger="live",
        key="LSV1",
        event=EVENT,
        position=found.position,
        attempts=0,
        due=None,
        status="waiting",
        created=1000.0,
        raw=True,
    )
    assert found == expected


async def test_arrivals_get_rising_sequences_in_the_order_asked(opened: Opened) -> None:
    sequences = await opened.inbox.put([arrival(key) for key in ("a", "b", None, "a")])
    assert sequences == sorted(set(sequences))


async def test_the_same_source_of_the_same_trigger_is_the_same_row(opened: Opened) -> None:
    first, second, again = await opened.inbox.put([arrival(source="1"), arrival(source="2"), arrival(source="1")])
    assert again == first != second
    assert await opened.inbox.put([arrival(source="2", key="other")]) == [second]
    assert await opened.inbox.put([arrival(source="1", trigger="other")]) != [first]
    assert await opened.inbox.put([arrival(source="1", function="other")]) != [first]


async def test_a_source_is_known_for_a_time_after_its_row_is_gone(opened: Opened) -> None:
    (first,) = await opened.inbox.put([arrival(source="1", problem="no key")])
    opened.clock.now += 2 * REMEMBER
    assert await opened.inbox.put([arrival(source="1")]) == [first]
    await opened.letters.discard(Which())
    opened.clock.now += REMEMBER
    assert await opened.inbox.put([arrival(source="1")]) == [first]
    opened.clock.now += 10
    await opened.inbox.put([arrival()])
    assert await opened.inbox.put([arrival(source="1")]) > [first]


async def test_an_arrival_with_a_problem_is_a_dead_letter_at_once(opened: Opened) -> None:
    (sequence,) = await opened.inbox.put([arrival(None, problem="no vehicle in 'x/y'")])
    (found,) = (await opened.letters.dead(Which())).rows
    told = (found.sequence, found.status, found.reason, found.detail, found.due, found.created)
    assert told == (sequence, "dead", "unreadable", "no vehicle in 'x/y'", None, 1000.0)


async def test_nothing_asked_is_nothing_done(opened: Opened) -> None:
    assert await opened.inbox.put([]) == []
    assert await opened.inbox.offer([]) == []
    assert await opened.inbox.bury([]) == []


async def test_text_that_is_no_unicode_is_kept_as_far_as_it_can_be(opened: Opened) -> None:
    broken = msgspec.structs.replace(EVENT, subject="\ud800")
    (sequence,) = await opened.inbox.bury([letter(1, key="a\udcff", detail="\udcfe", event=broken)])
    found = await row(opened, sequence)
    assert found.event.data == EVENT.data


# offer


async def test_what_only_joins_is_free_where_nothing_of_its_lane_waits(opened: Opened) -> None:
    await opened.inbox.put([arrival(), arrival("other", trigger="telemetry")])
    await opened.inbox.bury([letter(1)])
    assert await opened.inbox.offer([offer(2), offer(3, key=None)]) == ["free", "free"]
    assert await opened.letters.count(Which()) == 1


async def test_what_must_wait_is_queued_and_later_events_of_its_lane_join_it(opened: Opened) -> None:
    answers = await opened.inbox.offer([offer(1), offer(2, 1500.0), offer(3), offer(4, key="other"), offer(5)])
    assert answers == ["free", "queued", "queued", "free", "queued"]


async def test_a_key_that_waits_in_another_function_or_trigger_holds_nobody(opened: Opened) -> None:
    await opened.inbox.offer([offer(1, 1500.0)])
    assert await opened.inbox.offer([offer(2, trigger="other"), offer(2, function="other")]) == ["free", "free"]


async def test_an_event_without_a_key_waits_alone(opened: Opened) -> None:
    answers = await opened.inbox.offer([offer(1, 1500.0, key=None), offer(2, key=None)])
    assert answers == ["queued", "free"]


async def test_an_offer_is_told_apart_by_its_position(opened: Opened) -> None:
    assert await opened.inbox.offer([offer(1, 1500.0)] * 2 + [offer(1)]) == ["queued"] * 3
    other = At(STREAM, 4, 1)
    assert await opened.inbox.offer([offer(1, position=other, key="other")]) == ["free"]
    recreated = At("kafka:vehicle.telemetry:new", 3, 1)
    assert await opened.inbox.offer([offer(1, position=recreated, key="other")]) == ["free"]
    (sequence,) = await opened.inbox.bury([letter(1)])
    assert [each.sequence for each in (await opened.letters.dead(Which())).rows] == [sequence]


async def test_a_row_that_was_pushed_is_offered_back_with_its_attempts_and_time(opened: Opened) -> None:
    (sequence,) = await opened.inbox.put([arrival()])
    found = await row(opened, sequence)
    back = offer(0, 1500.0, trigger="live", position=found.position, attempts=3)
    assert await opened.inbox.offer([back]) == ["queued"]
    changed = msgspec.structs.replace(found, attempts=3, due=1500.0)
    assert await row(opened, sequence) == changed


async def test_what_is_pulled_again_changes_nothing_of_its_row(opened: Opened) -> None:
    claimed = await opened.inbox.claim(claim({3: 0}))
    epoch = claimed.epochs[3]
    await opened.inbox.offer([offer(1, 1500.0, epoch=epoch)])
    assert await opened.inbox.offer([offer(1, 1800.0, epoch=epoch, attempts=4)]) == ["queued"]
    (sequence,) = await opened.inbox.bury([letter(1)])
    await opened.letters.redrive(Which())
    assert await opened.inbox.offer([offer(1, 1800.0, epoch=epoch, attempts=4)]) == ["queued"]
    assert await opened.letters.get(sequence) is None


async def test_an_offer_under_an_older_epoch_is_stale(opened: Opened) -> None:
    old = (await opened.inbox.claim(claim({3: None, 4: None}))).epochs[3]
    new = (await opened.inbox.claim(claim({3: None}))).epochs[3]
    assert new > old
    assert await opened.inbox.offer([offer(1, 1500.0, epoch=old)]) == ["stale"]
    assert await opened.inbox.offer([offer(1, epoch=new)]) == ["free"]
    elsewhere = At(STREAM, 4, 1)
    assert await opened.inbox.offer([offer(1, position=elsewhere, epoch=old)]) == ["free"]
    assert await opened.inbox.offer([offer(1, trigger="other", epoch=old)]) == ["free"]


async def test_a_position_outlives_its_row_until_it_has_passed(opened: Opened) -> None:
    await opened.inbox.bury([letter(1), letter(2), letter(3)])
    await opened.letters.discard(Which())
    assert await opened.inbox.offer([offer(n) for n in (1, 2, 3)]) == ["queued"] * 3
    await opened.inbox.passed("battery-alert", "telemetry", STREAM, {3: 2, 4: 9})
    assert await opened.inbox.offer([offer(n) for n in (1, 2, 3)]) == ["free", "queued", "queued"]
    await opened.inbox.claim(claim({3: 3}))
    assert await opened.inbox.offer([offer(n) for n in (1, 2, 3)]) == ["free", "free", "queued"]


async def test_a_group_that_is_put_back_runs_its_events_again(opened: Opened) -> None:
    await opened.inbox.claim(claim({3: 10}))
    await opened.inbox.bury([letter(10), letter(11)])
    await opened.inbox.offer([offer(12, 1500.0, key="waits")])
    await opened.letters.discard(Which())
    assert await opened.inbox.offer([offer(10), offer(12)]) == ["queued"] * 2
    await opened.inbox.claim(claim({3: 5}))
    assert await opened.inbox.offer([offer(10), offer(11), offer(12)]) == ["free", "free", "queued"]


async def test_a_row_whose_position_has_passed_is_known_as_long_as_it_is_there(opened: Opened) -> None:
    await opened.inbox.offer([offer(1, 1500.0)])
    await opened.inbox.passed("battery-alert", "telemetry", STREAM, {3: 100})
    assert await opened.inbox.offer([offer(1)]) == ["queued"]
    (sequence,) = await opened.inbox.bury([letter(1)])
    await opened.letters.discard(Which(sequences=(sequence,)))
    assert await opened.inbox.offer([offer(1)]) == ["free"]


# bury


async def test_a_buried_letter_is_kept_whole(opened: Opened) -> None:
    (sequence,) = await opened.inbox.bury([LETTER])
    fields = {name: value for name, value in msgspec.structs.asdict(LETTER).items() if name != "park"}
    assert await row(opened, sequence) == Row(sequence=sequence, due=None, status="dead", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": None, "failure": None},
        {"event": msgspec.structs.replace(EVENT, data=None)},
        {"event": msgspec.structs.replace(EVENT, data=b"\x00" * 10_000_000)},
        {"attempts": 0, "reason": "unreadable", "detail": ""},
    ],
    ids=["without key and failure", "tombstone", "10 MB", "never run"],
)
async def test_letters_of_all_shapes_are_kept(opened: Opened, fields: dict[str, object]) -> None:
    (sequence,) = await opened.inbox.bury([letter(1, **fields)])
    found = await row(opened, sequence)
    assert {name: getattr(found, name) for name in fields} == fields


async def test_the_same_position_is_the_same_letter(opened: Opened) -> None:
    first = await opened.inbox.bury([LETTER])
    assert await opened.inbox.bury([letter(17, detail="again", attempts=9)] * 2) == first * 2
    (found,) = (await opened.letters.dead(Which())).rows
    assert found.detail == LETTER.detail


async def test_the_same_position_of_another_trigger_function_or_partition_is_another_letter(opened: Opened) -> None:
    others = [
        LETTER,
        letter(17, trigger="other"),
        letter(17, function="other"),
        letter(17, position=At(STREAM, 4, 17)),
        letter(17, position=At("kafka:vehicle.telemetry:new-id", 3, 17)),
    ]
    assert len(set(await opened.inbox.bury(others))) == len(others)


async def test_letters_without_position_are_rows_of_their_own(opened: Opened) -> None:
    assert len(set(await opened.inbox.bury([letter(1, position=None)] * 2))) == 2


async def test_the_row_whose_position_is_buried_becomes_the_letter(opened: Opened) -> None:
    (one,) = await opened.inbox.put([arrival()])
    await opened.inbox.offer([offer(1, 1500.0)])
    waiting = await row(opened, one)
    sequences = await opened.inbox.bury([letter(0, trigger="live", position=waiting.position), letter(1)])
    assert sequences == [one, one + 1]
    found = (await opened.letters.dead(Which())).rows
    assert [(each.sequence, each.due, each.detail) for each in found] == [
        (one, None, LETTER.detail),
        (one + 1, None, LETTER.detail),
    ]
    assert await opened.inbox.offer([offer(2)]) == ["free"]


async def test_a_letter_of_a_row_that_is_gone_is_no_new_one(opened: Opened) -> None:
    (sequence,) = await opened.inbox.put([arrival(problem="no key")])
    position = (await row(opened, sequence)).position
    await opened.letters.discard(Which())
    assert await opened.inbox.bury([letter(0, trigger="live", position=position)]) == [sequence]
    assert await opened.letters.count(Which()) == 0


async def test_later_events_of_a_parked_lane_wait_behind_its_letter(opened: Opened) -> None:
    (sequence,) = await opened.inbox.bury([letter(1, park=True)])
    assert await opened.inbox.offer([offer(2), offer(3), offer(4, key="other")]) == ["queued", "queued", "free"]
    assert (await row(opened, sequence)).parked == 2
    assert (await opened.letters.dead(Which())).rows[0].parked == 2


async def test_a_letter_without_key_parks_nothing(opened: Opened) -> None:
    await opened.inbox.bury([letter(1, key=None, park=True)])
    assert await opened.inbox.offer([offer(2, key=None)]) == ["free"]


async def test_whether_a_letter_has_a_key_is_told_by_its_row(opened: Opened) -> None:
    await opened.inbox.offer([offer(1, 1500.0, key=None)])
    (sequence,) = await opened.inbox.bury([letter(1, key="LSV1", park=True)])
    assert (await row(opened, sequence)).key is None
    assert await opened.inbox.offer([offer(2)]) == ["free"]
    assert (await opened.inbox.claim(claim({3: 0}))).held == set()


async def test_calls_of_the_same_moment_are_all_answered(opened: Opened) -> None:
    inbox = opened.inbox
    buried, put, offered = await asyncio.gather(
        asyncio.gather(*(inbox.bury([letter(n), letter(n + 1)]) for n in range(50))),
        asyncio.gather(*(inbox.put([arrival(f"k{n}", source=str(n % 10))]) for n in range(50))),
        asyncio.gather(*(inbox.offer([offer(1000 + n, 1500.0, key=f"o{n}")]) for n in range(50))),
    )
    assert len({sequence for pair in buried for sequence in pair}) == 51
    assert len({sequence for (sequence,) in put}) == 10
    assert offered == [["queued"]] * 50


# claim


async def test_a_claim_tells_the_keys_that_are_held_in_its_partitions(opened: Opened) -> None:
    await opened.inbox.offer(
        [
            offer(1, 1500.0, key="waits"),
            offer(2, 1500.0, key=None),
            offer(3, 1500.0, key="elsewhere", position=At(STREAM, 4, 3)),
            offer(4, 1500.0, key="recreated", position=At("kafka:vehicle.telemetry:new", 3, 4)),
            offer(5, 1500.0, key="other trigger", trigger="other"),
        ]
    )
    await opened.inbox.bury([letter(6, key="parked", park=True), letter(7, key="dead")])
    assert (await opened.inbox.claim(claim({3: 8, 5: None}))).held == {"waits", "parked"}
    assert (await opened.inbox.claim(claim({4: 8, 3: None}))).held == {"waits", "parked", "elsewhere"}
    await opened.letters.discard(Which())
    assert (await opened.inbox.claim(claim({3: 8}))).held == {"waits"}


async def test_a_letter_that_was_redriven_holds_its_key_again(opened: Opened) -> None:
    await opened.inbox.bury([letter(1)])
    await opened.letters.redrive(Which())
    assert (await opened.inbox.claim(claim({3: 8}))).held == {"LSV1"}
    assert await opened.inbox.offer([offer(2)]) == ["queued"]


async def test_epochs_are_counted_for_each_partition(opened: Opened) -> None:
    first = await opened.inbox.claim(claim({0: None, 1: None}))
    second = await opened.inbox.claim(claim({1: 5}))
    assert first.epochs == {0: 1, 1: 1}
    assert second.epochs == {1: 2}
