"""What every inbox promises to people: DeadLetters in fleetfn_triggers.inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetfn.position import At
from fleetfn_triggers.inbox import Row, Rows, Which
from inbox_adapters import ADAPTERS, LETTER, Clock, Opened, arrival, letter, offer


@pytest.fixture(params=ADAPTERS)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with ADAPTERS[request.param](tmp_path, Clock()) as opened:
        yield opened


@pytest.mark.parametrize(
    ("which", "offsets"),
    [
        (Which(), [1, 2, 3, 4]),
        (Which(function="other"), [2]),
        (Which(trigger="show"), [3]),
        (Which(function="battery-alert", trigger="telemetry"), [1, 4]),
        (Which(key="LSV9"), [4]),
        (Which(reason="rejected"), [3, 4]),
        (Which(reason="rejected", key="LSV9"), [4]),
        (Which(function="nobody"), []),
        (Which(key=""), []),
        (Which(before=1000.5), [3]),
        (Which(sequences=(2, 4, 99)), [2, 4]),
        (Which(sequences=(2, 4), key="LSV9"), [4]),
    ],
    ids=str,
)
async def test_dead_letters_are_found_by_what_they_are(opened: Opened, which: Which, offsets: list[int]) -> None:
    await opened.inbox.bury(
        [
            letter(1),
            letter(2, function="other"),
            letter(3, trigger="show", reason="rejected", created=900.0),
            letter(4, key="LSV9", reason="rejected"),
        ]
    )
    await opened.inbox.put([arrival("LSV9")])
    rows = (await opened.letters.dead(which)).rows
    assert [row.position.offset for row in rows if isinstance(row.position, At)] == offsets
    assert await opened.letters.count(which) == len(offsets)


async def test_pages_end_where_they_say(opened: Opened) -> None:
    sequences = await opened.inbox.bury([letter(n) for n in range(5)])
    pages = [await opened.letters.dead(Which(), limit=2)]
    while pages[-1].after is not None:
        pages.append(await opened.letters.dead(Which(), limit=2, after=pages[-1].after))
    assert [[row.sequence for row in page.rows] for page in pages] == [sequences[:2], sequences[2:4], sequences[4:]]
    assert (await opened.letters.dead(Which(), limit=5)).after is None


async def test_no_letters_are_an_empty_page(opened: Opened) -> None:
    assert await opened.letters.dead(Which()) == Rows((), None)


async def test_a_row_that_never_was_is_none(opened: Opened) -> None:
    assert await opened.letters.get(1) is None


async def test_discarding_says_how_many_there_were(opened: Opened) -> None:
    sequences = await opened.inbox.bury([letter(n) for n in range(3)])
    (waiting,) = await opened.inbox.put([arrival()])
    assert await opened.letters.discard(Which(sequences=(*sequences[:2], waiting, 999))) == 2
    assert await opened.letters.get(sequences[0]) is None
    assert await opened.letters.get(waiting) is not None
    assert [row.sequence for row in (await opened.letters.dead(Which())).rows] == sequences[2:]
    assert await opened.letters.discard(Which(key="nobody")) == 0


async def test_sequences_are_not_given_again(opened: Opened) -> None:
    (first,) = await opened.inbox.bury([letter(1)])
    await opened.letters.discard(Which())
    (second,) = await opened.inbox.bury([letter(2)])
    assert second > first


async def test_a_redriven_letter_is_a_new_row_with_a_position_of_the_inbox(opened: Opened) -> None:
    (old,) = await opened.inbox.bury([LETTER])
    opened.clock.now = 2000.0
    assert await opened.letters.redrive(Which()) == 1
    assert await opened.letters.get(old) is None
    row = await opened.letters.get(old + 1)
    assert row is not None
    assert isinstance(row.position, At)
    assert row.position.stream.startswith("inbox:")
    assert row.position.offset == row.sequence
    told = (row.status, row.attempts, row.due, row.reason, row.detail, row.failure, row.created, row.event)
    assert told == ("waiting", 0, None, "", "", None, 2000.0, LETTER.event)


async def test_what_was_redriven_and_fails_again_is_a_letter_again(opened: Opened) -> None:
    (old,) = await opened.inbox.bury([LETTER])
    await opened.letters.redrive(Which())
    row = await opened.letters.get(old + 1)
    assert row is not None
    assert await opened.inbox.bury([letter(0, position=row.position, detail="again")]) == [old + 1]
    (found,) = (await opened.letters.dead(Which())).rows
    assert (found.sequence, found.detail) == (old + 1, "again")


async def test_the_position_of_a_redriven_letter_is_known_at_its_old_place(opened: Opened) -> None:
    (old,) = await opened.inbox.bury([LETTER])
    await opened.letters.redrive(Which())
    assert await opened.inbox.bury([LETTER]) == [old]
    assert await opened.inbox.offer([offer(17)]) == ["queued"]
    assert await opened.letters.count(Which()) == 0


async def test_the_source_of_a_redriven_letter_is_the_new_row(opened: Opened) -> None:
    (old,) = await opened.inbox.put([arrival(problem="no key", source="1")])
    await opened.letters.redrive(Which())
    assert await opened.inbox.put([arrival(source="1")]) == [old + 1]


async def test_redriven_letters_keep_their_order(opened: Opened) -> None:
    await opened.inbox.bury([letter(n, event=LETTER.event, detail=str(n)) for n in range(5)])
    assert await opened.letters.redrive(Which(), limit=3) == 3
    assert [row.detail for row in (await opened.letters.dead(Which())).rows] == ["3", "4"]
    assert await opened.letters.redrive(Which(), limit=3) == 2
    assert await opened.letters.redrive(Which()) == 0


async def test_a_letter_that_parks_its_lane_is_redriven_as_the_row_it_was(opened: Opened) -> None:
    (sequence,) = await opened.inbox.bury([letter(17, park=True)])
    await opened.inbox.offer([offer(18)])
    assert await opened.letters.redrive(Which(key="LSV1")) == 1
    row = await opened.letters.get(sequence)
    assert row is not None
    assert (row.status, row.attempts, row.position, row.parked) == ("waiting", 0, LETTER.position, 0)
    assert await opened.inbox.bury([letter(17, park=True)]) == [sequence]
    row = await opened.letters.get(sequence)
    assert row is not None
    assert (row.status, row.parked) == ("dead", 1)


async def test_a_parked_lane_is_free_once_its_letter_and_all_behind_it_are_gone(opened: Opened) -> None:
    await opened.inbox.bury([letter(1, park=True), letter(2, park=True)])
    assert await opened.letters.discard(Which(sequences=(1,))) == 1
    assert await opened.inbox.offer([offer(3)]) == ["queued"]
    await opened.inbox.bury([letter(3)])
    assert await opened.letters.discard(Which()) == 2
    assert await opened.inbox.offer([offer(4)]) == ["free"]


async def test_a_letter_whose_data_is_as_it_came_is_redriven_to_be_decoded(opened: Opened) -> None:
    await opened.inbox.bury([letter(1, raw=True), letter(2, key="LSV9")])
    assert await opened.letters.redrive(Which()) == 2
    assert [(await _row(opened, sequence)).raw for sequence in (3, 4)] == [True, False]


async def _row(opened: Opened, sequence: int) -> Row:
    row = await opened.letters.get(sequence)
    assert row is not None
    return row
