from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from fleetfn.errors import StoreError
from fleetfn_plumbing.group_commit import BATCH, GroupCommit


class Disk:
    """Commits numbers, when it is allowed to; answers each with its double."""

    def __init__(self) -> None:
        self.allowed = threading.Event()
        self.allowed.set()
        self.busy = threading.Event()
        self.batches: list[list[int]] = []
        self.full = False

    def commit(self, items: Sequence[int]) -> list[int]:
        self.busy.set()
        assert self.allowed.wait(60)
        if self.full:
            raise StoreError("disk full")
        self.batches.append(list(items))
        return [item * 2 for item in items]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def commits(disk: Disk) -> GroupCommit[int, int]:
    return GroupCommit(disk.commit, name="numbers")


async def while_busy(disk: Disk, commits: GroupCommit[int, int]) -> asyncio.Future[list[int]]:
    """Submit something and return once its commit is under way, held up by the disk."""
    disk.allowed.clear()
    first = commits.submit([0])
    assert await asyncio.to_thread(disk.busy.wait, 5)
    return first


async def test_what_is_submitted_during_a_commit_is_the_next_one(disk: Disk, commits: GroupCommit[int, int]) -> None:
    first = await while_busy(disk, commits)
    more = [commits.submit([n, n + 1]) for n in (10, 20, 30)]
    disk.allowed.set()
    assert await asyncio.gather(first, *more) == [[0], [20, 22], [40, 42], [60, 62]]
    assert disk.batches == [[0], [10, 11, 20, 21, 30, 31]]
    assert (commits.commits, commits.items) == (2, 7)
    await commits.close()


async def test_a_commit_is_bounded_and_nothing_is_forgotten(disk: Disk, commits: GroupCommit[int, int]) -> None:
    first = await while_busy(disk, commits)
    half = list(range(BATCH // 2))
    more = [commits.submit(half) for _ in range(5)] + [commits.submit([1])]
    disk.allowed.set()
    await asyncio.gather(first, *more)
    assert [len(batch) for batch in disk.batches] == [1, BATCH, BATCH, BATCH // 2 + 1]
    await commits.close()


async def test_one_long_submission_is_one_commit(disk: Disk, commits: GroupCommit[int, int]) -> None:
    assert len(await commits.submit(range(BATCH * 3))) == BATCH * 3
    assert len(disk.batches) == 1
    await commits.close()


async def test_an_error_reaches_all_of_its_batch_and_none_after(disk: Disk, commits: GroupCommit[int, int]) -> None:
    disk.full = True
    first = await while_busy(disk, commits)
    second = commits.submit([1])
    disk.allowed.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(result) for result in results] == ["disk full", "disk full"]
    disk.full = False
    assert await commits.submit([2]) == [4]
    await commits.close()


async def test_a_cancelled_waiter_leaves_its_items_to_be_committed(disk: Disk, commits: GroupCommit[int, int]) -> None:
    first = await while_busy(disk, commits)
    cancelled, kept = commits.submit([1]), commits.submit([2])
    cancelled.cancel()
    disk.allowed.set()
    assert await asyncio.gather(first, kept) == [[0], [4]]
    assert disk.batches == [[0], [1, 2]]
    await commits.close()


async def test_closing_commits_what_was_submitted_and_ends_the_thread(
    disk: Disk, commits: GroupCommit[int, int]
) -> None:
    first = await while_busy(disk, commits)
    more = commits.submit([1])
    closing = asyncio.ensure_future(commits.close())
    disk.allowed.set()
    await closing
    assert (await first, await more) == ([0], [2])
    assert "numbers" not in {thread.name for thread in threading.enumerate() if thread.is_alive()} or await gone()
    with pytest.raises(StoreError, match="numbers is closed"):
        commits.submit([3])


async def gone() -> bool:
    """The thread tells that it ends as the last thing it does."""
    for thread in threading.enumerate():
        if thread.name == "numbers":
            await asyncio.to_thread(thread.join, 5)
            return not thread.is_alive()
    return True


async def test_closing_twice_or_unused_is_no_matter(commits: GroupCommit[int, int]) -> None:
    await commits.close()
    await commits.close()


async def test_no_thread_runs_before_something_is_submitted(commits: GroupCommit[int, int]) -> None:
    assert "numbers" not in {thread.name for thread in threading.enumerate()}
    await commits.close()
