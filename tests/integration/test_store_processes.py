"""The store among processes: two that contend, one that is killed, one whose system calls are watched."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fleetfn.position import At, Marks
from fleetfn.store import Record
from fleetfn_runtime.ledger import Ledger
from fleetfn_runtime.sqlite_store import SqliteStore
from killed_child import lines_until_killed

CHILD = [sys.executable, str(Path(__file__).with_name("store_child.py"))]


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CHILD, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


async def test_no_write_of_two_contending_processes_is_lost(tmp_path: Path) -> None:
    path, rounds = tmp_path / "state.db", 300
    children = [start("count_up", path, rounds) for _ in range(2)]  # they create the file at the same time, too
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    told = await asyncio.gather(*(asyncio.to_thread(child.communicate, "go\n", 180) for child in children))
    assert [child.returncode for child in children] == [0, 0]
    store = SqliteStore(path)
    loaded = await store.load([f"k{n}" for n in range(10)])
    await store.close()
    assert [each.record.value for each in loaded] == [b"%d" % (2 * rounds)] * 10
    assert sum(int(out) for out, _ in told) > 0, "they never met"


async def test_every_acknowledged_save_survives_kill_9(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "state.db", dict[str, int]()
    chance = random.Random(7)
    for _ in range(6):
        for line in lines_until_killed(
            [*CHILD, "save_until_killed", path], chance.uniform(0.0, 0.15), lambda told: told.count(b"\n") >= 40
        ):
            key, count = line.split()
            acknowledged[key] = int(count)
        store = SqliteStore(path)
        loaded = await store.load(list(acknowledged))
        await store.close()
        for (key, count), each in zip(acknowledged.items(), loaded, strict=True):
            stored = int(each.record.value or b"0")
            assert stored - count in {0, 1}, key  # at most the one save that nobody heard of
            assert each.record == Record(b"%d" % stored, Marks().with_("t", At("s", 0, stored)))
            acknowledged[key] = stored
    assert sum(acknowledged.values()) > 100


def test_the_ledger_names_what_ran_at_kill_9(tmp_path: Path) -> None:
    chance = random.Random(11)
    for generation in range(6):
        path = tmp_path / f"ledger-{generation}"
        lines = lines_until_killed(
            [*CHILD, "note_until_killed", path], chance.uniform(0.0, 0.05), lambda told: b"\n" in told
        )
        begun = {int(line.split()[1]) for line in lines if line.startswith("begun")}
        ended = {int(line.split()[1]) for line in lines if line.startswith("ended")}
        ledger = Ledger(path)
        suspects = {position.offset for _, position in ledger.suspects() if isinstance(position, At)}
        ledger.close()
        last = max(begun)
        unsure = {last, last + 1}  # killed between the note and the line about it
        assert suspects - unsure == begun - ended - unsure


def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        assert not os.environ.get("CI"), "strace must be there in CI"
        pytest.skip("strace is not installed")
    return found


def test_the_log_is_synced_before_a_save_is_acknowledged(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    watched = [strace(), "-f", "-y", "-o", trace, "-e", "trace=write,pwrite64,fsync,fdatasync", *CHILD]
    subprocess.run([*watched, "save_once", tmp_path / "state.db"], check=True, stdout=subprocess.DEVNULL)
    steps = []
    for line in trace.read_text().splitlines():
        if re.search(r'write\(1<.*"sav', line):
            steps.append(re.findall(r'"(sav\w+)', line)[0])
        elif "state.db-wal>" in line:
            steps.append("sync" if "sync(" in line else "write")
    text = " ".join(steps)
    rounds = re.findall(r"saving (.*?) saved", text)
    assert len(rounds) == 3, text
    for done in rounds:
        assert re.search(r"write( \w+)* sync$", done), text
