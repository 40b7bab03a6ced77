"""Locks by number: had by one, freed all at once by the end of a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fleetfn_runtime import places
from fleetfn_runtime.owner import Ownership
from fleetfn_runtime.places import Places
from fleetfn_runtime.team import Team


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slots.lock"


def test_a_place_is_had_by_one_until_it_is_freed_or_its_owner_closes(path: Path) -> None:
    one, other = Places(path), Places(path)
    assert one.take(3)
    assert one.take(3)
    assert not other.take(3)
    assert other.take(4)
    one.free(3)
    assert other.take(3)
    other.close()
    assert one.take(3)
    assert one.take(4)
    one.close()


def test_partitions_of_all_triggers_and_slots_are_different_places() -> None:
    numbers = {places.of_partition(trigger, n) for trigger in ("a", "b", "telemetry") for n in range(2000)}
    assert len(numbers | set(range(64))) == 6064


def test_alone_excludes_others_and_other_threads(path: Path) -> None:
    one, other = Places(path), Places(path)
    inside: list[str] = []

    def enter(which: Places, name: str) -> None:
        with which.alone():
            inside.append(name)

    with one.alone():
        threads = [threading.Thread(target=enter, args=(which, name)) for which, name in ((one, "1"), (other, "2"))]
        for thread in threads:
            thread.start()
        threads[0].join(0.05)
        assert inside == []
    for thread in threads:
        thread.join()
    assert sorted(inside) == ["1", "2"]
    one.close()
    other.close()


def test_the_end_of_a_process_frees_all_it_had(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fleetfn_runtime.places import Places;"
        "p = Places(Path(sys.argv[1])); print(all(p.take(n) for n in range(3)), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    mine = Places(path)
    assert not any(mine.take(n) for n in range(3))
    child.kill()
    child.communicate()
    assert all(mine.take(n) for n in range(3))
    mine.close()


async def test_several_workers_own_at_the_same_time_each_its_slot(tmp_path: Path) -> None:
    first, second, again = (Ownership(tmp_path / "owner.lock", slot) for slot in (0, 1, 1))
    await asyncio.wait_for(first.take(), 30)
    await asyncio.wait_for(second.take(), 30)
    waiting = asyncio.create_task(again.take())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    second.release()
    await asyncio.wait_for(waiting, 30)
    first.release()
    again.release()


async def test_the_only_worker_and_several_never_own_at_the_same_time(tmp_path: Path) -> None:
    only, shared = Ownership(tmp_path / "owner.lock"), Ownership(tmp_path / "owner.lock", 1)
    for one, other in ((only, shared), (shared, only)):
        await asyncio.wait_for(one.take(), 30)
        waiting = asyncio.create_task(other.take())
        await asyncio.sleep(0.03)
        assert not waiting.done()
        one.release()
        await asyncio.wait_for(waiting, 30)
        other.release()


def test_a_worker_notices_once_that_one_beside_it_died(path: Path) -> None:
    mine, other, late = Places(path), Places(path), Places(path)
    assert mine.take(0)
    assert other.take(1)
    team = Team(0, 3, places=mine)
    assert not team.bereaved()  # slot 2 has nobody yet
    assert late.take(2)
    assert not team.bereaved()
    other.close()
    assert team.bereaved()
    assert not team.bereaved()
    late.close()
    assert team.bereaved()
    mine.close()
