"""What keeps a long queue fast: every statement finds its rows by an index, and calls share commits and statements."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.position import At, Named
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.queue_schema import SCHEMA
from fleetfn_plumbing.sqlite_file import Schema, SqliteFile
from fleetfn_triggers.inbox import Arrival, Claim, Letter, Offer, Which

MUCH = 1 << 30
TRIGGERS = ("t", "k")
STREAM = "kafka:topic:id"
EVENT: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"x")


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    queue = await Queue.open(tmp_path / "inbox.db", quota=MUCH)
    yield queue
    await queue.close()


def arrival(key: str | None, **fields: Any) -> Arrival:
    return Arrival(**{"function": "f", "trigger": "t", "key": key, "event": EVENT, **fields})


def offer(offset: int, key: str, due: float | None, **fields: Any) -> Offer:
    given = {"function": "f", "trigger": "k", "event": EVENT, "attempts": 1, "position": At(STREAM, 0, offset)}
    return Offer(**{**given, "key": key, "due": due, **fields})


def letter(offset: int, key: str = "a", **fields: Any) -> Letter:
    given = {
        "function": "f",
        "trigger": "k",
        "key": key,
        "event": EVENT,
        "position": At(STREAM, 0, offset),
        "attempts": 5,
        "revision": "r",
        "reason": "attempts",
        "detail": "",
        "failure": None,
        "created": 1000.0,
    }
    return Letter(**{**given, **fields})


async def everything(queue: Queue) -> None:
    """Each thing that can be asked, at least once."""
    await queue.put([arrival("a", source="1"), arrival("a", source="1"), arrival(None)], notes={"n": b"1"})
    await queue.offer([offer(1, "a", 5.0), offer(2, "a", None), offer(3, "b", None, position=Named("x"))])
    rows = await queue.take("f", TRIGGERS, 10, MUCH)
    await queue.offer([offer(0, "a", 5.0, trigger=rows[0].trigger, position=rows[0].position)])
    await queue.bury([letter(1, park=True), letter(9), letter(10, position=Named("y")), letter(11, position=None)])
    queue.counts()
    queue.ready("f", TRIGGERS)
    queue.next_due("f", TRIGGERS)
    await queue.claim(Claim(function="f", trigger="k", stream=STREAM, partitions={0: 1}))
    await queue.passed("f", "k", STREAM, {0: 2})
    await queue.redrive(Which(function="f", trigger="k", key="a", reason="attempts", before=2000.0))
    await queue.discard(Which(sequences=(1, 2, 3)))
    await queue.bury([letter(20)])
    await queue.expire(0.0)
    await queue.done([row.sequence for row in await queue.take("f", TRIGGERS, 10, MUCH)])
    await queue.forget("n")
    await queue.drop("f")


async def test_no_statement_walks_through_all_rows(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: set[str] = set()
    for connection in (queue._file.writer, queue._reader):
        connection.set_trace_callback(statements.add)
    await everything(queue)
    for connection in (queue._file.writer, queue._reader):
        connection.set_trace_callback(None)
    planned = [
        each for each in statements if each.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))
    ]
    assert len(planned) > 30
    planned += _triggered()
    walks = {each: steps for each in planned if (steps := _walks(queue._file.writer, each))}
    assert walks == {}
    heads = [each for each in planned if each.lstrip().startswith("SELECT") and "INDEXED BY row_head" in each]
    assert len(heads) > 3
    for each in heads:
        plan = queue._file.writer.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()
        assert all("COVERING INDEX" in step for *_, step in plan if "row_head" in step)


def _triggered() -> list[str]:
    """What the SQL triggers run, with numbers for the row."""
    programs = re.findall(r"CREATE TRIGGER .*? BEGIN(.*?)END;?\n", SCHEMA.script + "\n", re.DOTALL)
    statements = [each.strip() for program in programs for each in program.split(";") if each.strip()]
    assert len(statements) == 8
    return [re.sub(r"\b(old|new)\.\w+", "1", each) for each in statements]


def _walks(connection: sqlite3.Connection, statement: str) -> list[str]:
    """Steps that read a whole table or index of rows. Of dead letters they may: those are looked at one by one."""
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    tables = ("row", "body", "past", "past_source", "letter", "behind", "later")
    return [
        step
        for *_, step in plan
        for table in tables
        if step.startswith(f"SCAN {table}") and "row_dead" not in step and step.split()[1] == table
    ]


async def test_calls_of_the_same_moment_share_a_commit(queue: Queue) -> None:
    await queue.put([arrival("a")])
    before = queue._commits.group.commits
    await asyncio.gather(
        *(queue.put([arrival(str(n))]) for n in range(50)),
        *(queue.offer([offer(n, str(n), 5.0)]) for n in range(50)),
        *(queue.bury([letter(100 + n)]) for n in range(50)),
    )
    assert queue._commits.group.commits - before <= 3


async def test_a_commit_of_many_rows_is_few_statements(queue: Queue) -> None:
    await queue.put([arrival("a")])
    statements: set[str] = set()  # one is traced again for each row that an SQL trigger runs for
    queue._file.writer.set_trace_callback(statements.add)
    await queue.put([arrival(str(n % 100), source=str(n)) for n in range(300)])
    rows = await queue.take("f", TRIGGERS, 1000, MUCH)
    await queue.done([row.sequence for row in rows])
    queue._file.writer.set_trace_callback(None)
    assert len(statements) < 25


async def test_another_file_is_refused(tmp_path: Path) -> None:
    SqliteFile(tmp_path / "state.db", Schema("the state file", 0x466E5374, 1, "CREATE TABLE record (x)")).close()
    with pytest.raises(StoreError, match="is not the inbox of FleetFn"):
        await Queue.open(tmp_path / "state.db", quota=MUCH)


async def test_a_damaged_file_is_refused(tmp_path: Path, queue: Queue) -> None:
    await queue.put([arrival("a")])
    await queue.close()
    path = tmp_path / "inbox.db"
    path.write_bytes(path.read_bytes()[:8192] + b"\xff" * 40_000)
    with pytest.raises(StoreError, match="cannot be opened"):
        await Queue.open(path, quota=MUCH)


async def test_what_cannot_be_written_fails_nobody_in_the_same_commit(queue: Queue) -> None:
    await queue.put([arrival("a")])
    told = await asyncio.gather(
        queue.put([arrival("b")]),
        queue.put([arrival("c", source="\ud800")]),
        queue.offer([offer(1 << 70, "d", 5.0)]),
        queue.put([arrival("e")]),
        return_exceptions=True,
    )
    assert (told[0], told[3]) == ([2], [3])
    assert isinstance(told[1], StoreError)
    assert isinstance(told[2], StoreError)
    assert queue.counts()["f"]["t"].waiting == 3
    assert set(queue.counts()["f"]) == {"t"}
    assert await queue.offer([offer(1, "d", 5.0)]) == ["queued"]


async def test_a_commit_that_fails_leaves_nothing_of_it(queue: Queue) -> None:
    await queue.put([arrival("a")])
    queue._file.writer.execute("CREATE TRIGGER no BEFORE INSERT ON body BEGIN SELECT raise(ABORT, 'broken'); END")
    with pytest.raises(StoreError, match="cannot take what it was given: IntegrityError: broken"):
        await queue.put([arrival("b", function="new"), arrival("a")])
    queue._file.writer.execute("DROP TRIGGER no")
    assert await queue.put([arrival("b", function="new"), arrival("a")]) == [2, 3]
    assert {function: set(triggers) for function, triggers in queue.counts().items()} == {"f": {"t"}, "new": {"t"}}
    assert queue.counts()["f"]["t"].waiting == 2
