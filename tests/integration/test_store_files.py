"""What becomes of a store when its file, its folder or its disk is not as it should be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn.position import Marks
from fleetfn.store import Conflict, Record, Saved, Write
from fleetfn_gateway import queue_schema
from fleetfn_plumbing.sqlite_file import SqliteFile
from fleetfn_runtime.sqlite_store import SCHEMA, SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state.db")
    yield store
    await store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match="file is not a database") as caught:
        SqliteStore(path)
    assert str(path) in caught.value.message
    assert "backup" in caught.value.hint


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"other\.db' is not the state file of FleetFn"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_new_file_and_those_beside_it_are_this_users_alone(tmp_path: Path) -> None:
    """A data folder that somebody has made before may be open to others."""
    file = SqliteFile(tmp_path / "state.db", SCHEMA)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "state.db": 0o600,
        "state.db-shm": 0o600,
        "state.db-wal": 0o600,
    }
    file.close()


def test_an_inbox_is_not_taken_for_a_store(tmp_path: Path) -> None:
    SqliteFile(tmp_path / "inbox.db", queue_schema.SCHEMA).close()
    with pytest.raises(StoreError, match="is not the state file of FleetFn"):
        SqliteStore(tmp_path / "inbox.db")


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="has version 99, and this FleetFn knows up to 1") as caught:
        SqliteStore(path)
    assert "newer" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "state.db"
    with pytest.raises(StoreError, match="unable to open database file") as caught:
        SqliteStore(path)
    assert str(path) in caught.value.message
    assert "writable" in caught.value.hint


OPEN_AS_NOBODY = """
import os, pathlib, sys
from fleetfn.errors import StoreError
from fleetfn_runtime.sqlite_store import SqliteStore
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    SqliteStore(pathlib.Path(sys.argv[1]))
except StoreError as error:
    print(error.message, error.hint, sep="|")
"""


def test_a_read_only_folder_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        path = f"{folder}/state.db"
        told = subprocess.run(
            [sys.executable, "-c", OPEN_AS_NOBODY, path], check=True, capture_output=True, text=True
        ).stdout
        Path(folder).chmod(0o700)
    assert f"the state file '{path}' cannot be opened: unable to open database file" in told
    assert f"make the folder '{folder}' and the file writable" in told


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_that_is_gone_is_noticed_by_reads_and_writes(store: SqliteStore, tmp_path: Path, how: str) -> None:
    await store.save([Write("k", Record(b"1"), None)])
    (tmp_path / "state.db").unlink()
    if how == "replaced":
        (tmp_path / "state.db").touch()
    for ask in (store.load(["k"]), store.save([Write("k", Record(b"2"), None)]), store.keys()):
        with pytest.raises(StoreError, match=r"state\.db' was removed or replaced while in use"):
            await ask


async def test_a_damaged_record_is_named(store: SqliteStore, tmp_path: Path) -> None:
    await store.save([Write("k", Record(b"1", Marks({"a": 1})), None), Write("fine", Record(b"1"), None)])
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE record SET rest = x'ff00' WHERE key = 'k'")
    connection.close()
    with pytest.raises(StoreError, match=r"record of key 'k' in .*state\.db' cannot be read"):
        await store.load(["k"])
    assert (await store.load(["fine"]))[0].record.value == b"1"


@pytest.mark.parametrize("what", ["key", "emit"])
async def test_text_that_is_no_text_is_refused_and_harms_no_other_write(store: SqliteStore, what: str) -> None:
    bad = Write("\ud800", Record(b"1"), None)
    if what == "emit":
        emit = Emit("out", "\ud800", Event(id="1", source="s", type="t", data=None))
        bad = Write("k", Record(b"1", unsent=(emit,)), None)
    with pytest.raises(StoreError, match="cannot be written") as caught:
        await store.save([bad])
    assert "surrogates" in caught.value.hint
    assert isinstance((await store.save([Write("good", Record(b"1"), None)]))[0], Saved)


async def test_nothing_is_saved_after_closing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.save([Write("k", Record(b"1"), None)])


# Full disks


async def fill(store: SqliteStore) -> tuple[dict[str, str], str]:
    """Save until the disk is full: the etags that were acknowledged, and the key of the write that was refused."""
    saved: dict[str, str] = {}
    for n in range(1000):
        writes = [Write(f"{n}-{m}", Record(b"x" * 20_000), None) for m in range(8)]
        try:
            results = await store.save(writes)
        except StoreError as error:
            refused = error
            break
        saved.update((write.key, result.etag) for write, result in zip(writes, results, strict=True))
    assert "full" in refused.message
    assert "free some space" in refused.hint
    return saved, f"{n}-"


async def check_nothing_lost(store: SqliteStore, saved: dict[str, str], refused: str) -> None:
    loaded = await store.load(list(saved))
    assert [each.etag for each in loaded] == list(saved.values())
    assert all(each.etag is None for each in await store.load([f"{refused}{m}" for m in range(8)]))


async def test_a_full_file_refuses_and_goes_on_when_there_is_space(store: SqliteStore) -> None:
    store._file.writer.execute("PRAGMA max_page_count=60")
    saved, refused = await fill(store)
    await check_nothing_lost(store, saved, refused)
    store._file.writer.execute("PRAGMA max_page_count=100000")
    assert isinstance((await store.save([Write(f"{refused}0", Record(b"1"), None)]))[0], Saved)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_refuses_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    store = SqliteStore(small_disk / "state.db")
    ballast.write_bytes(b"x" * 500_000)
    saved, refused = await fill(store)
    assert saved
    await check_nothing_lost(store, saved, refused)
    ballast.unlink()
    assert isinstance((await store.save([Write(f"{refused}0", Record(b"1"), None)]))[0], Saved)
    await store.close()
    again = SqliteStore(small_disk / "state.db")
    assert [each.etag for each in await again.load(list(saved))] == list(saved.values())
    await again.close()


async def test_listing_unsent_keys_walks_its_index_alone(store: SqliteStore) -> None:
    steps: list[str] = []
    with store._file.scan() as connection:
        for query in ("unsent = 1 AND key > ?", "key > ? AND unsent = 1"):
            plan = f"EXPLAIN QUERY PLAN SELECT key FROM record WHERE {query} ORDER BY key LIMIT 9"  # noqa: S608 - the test's own words
            steps += [row[3] for row in connection.execute(plan, ("a",))]
    assert all("INDEX record_unsent (key>?)" in step for step in steps), steps


# Sweeping


async def test_expired_values_leave_the_file_step_by_step(tmp_path: Path) -> None:
    now = [1000.0]
    store = SqliteStore(tmp_path / "state.db", clock=lambda: now[0])
    await store.save([Write(f"k{n}", Record(b"x", expires=1010.0 + n % 2 * 1e6), None) for n in range(2500)])
    await store.save([Write("marks", Record(b"x", Marks({"a": 1}), expires=1010.0), None)])

    def rows(where: str) -> int:
        with store._file.scan() as connection:
            return connection.execute(f"SELECT count(*) FROM record WHERE {where}").fetchone()[0]  # noqa: S608 - the test's own words

    etag = None
    for second in range(4):
        now[0] = 2000.0 + 2 * second
        etag = (await store.save([Write("ticking", Record(b"1"), etag)]))[0].etag
        await store.commits.submit([])  # the sweep follows the commit
    assert rows("value IS NULL") == 1251
    now[0] = 10000.0
    for _ in range(4):
        now[0] += 2
        etag = (await store.save([Write("ticking", Record(b"1"), etag)]))[0].etag
        await store.commits.submit([])
    assert rows("value IS NULL") == 1
    assert (await store.load(["marks"]))[0].record == Record(None, Marks({"a": 1}))
    assert await store.save([Write("k0", Record(b"1"), "5")]) == [Conflict()]
    await store.close()
