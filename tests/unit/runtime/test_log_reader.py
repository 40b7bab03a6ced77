from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from fleetfn.errors import UsageError
from fleetfn_runtime.log_file import LogFile, aside
from fleetfn_runtime.log_reader import read_log
from fleetfn_runtime.logs import timestamp


def line(second: float, level: str = "info", key_hash: str | None = None, message: str = "") -> bytes:
    fields = {"time": timestamp(second), "level": level, "message": message or f"at {second:g}"}
    return json.dumps(fields | ({"key_hash": key_hash} if key_hash else {})).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    lines = [
        line(1000, "debug"),
        line(1001, "info", "aa"),
        b"raw after info",
        line(1002, "warning", "bb"),
        line(1003, "error", "aa"),
        b"raw after error",
    ]
    path.write_bytes(b"".join(each + b"\n" for each in lines))
    return path


async def read(path: Path, **choice: object) -> list[str]:
    lines = [each async for each in read_log(path, **choice)]
    return [json.loads(each)["message"] if each.startswith(b"{") else each.decode() for each in lines]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, ["at 1000", "at 1001", "raw after info", "at 1002", "at 1003", "raw after error"]),
        ({"since": 1002.0}, ["at 1002", "at 1003", "raw after error"]),
        ({"level": "warning"}, ["at 1002", "at 1003", "raw after error"]),
        ({"key_hash": "aa"}, ["at 1001", "raw after info", "at 1003", "raw after error"]),
        ({"level": "ERROR", "since": 1002.0, "key_hash": "aa"}, ["at 1003", "raw after error"]),
        ({"since": 5000.0}, []),
    ],
    ids=str,
)
async def test_lines_are_chosen_by_time_level_and_key(
    path: Path, choice: dict[str, object], expected: list[str]
) -> None:
    assert await read(path, **choice) == expected


async def test_an_unknown_level_is_an_error(path: Path) -> None:
    with pytest.raises(UsageError, match="loud"):
        await read(path, level="loud")


async def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert await read(tmp_path / "log.jsonl") == []


async def test_a_last_line_without_end_is_read(path: Path) -> None:
    append(path, b"torn")
    assert (await read(path))[-1] == "torn"


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def set_aside(path: Path, number: int, then: bytes) -> None:
    path.rename(aside(path, number))
    path.write_bytes(then + b"\n")


async def test_files_set_aside_come_first(path: Path) -> None:
    set_aside(path, 2, line(1004))
    set_aside(path, 1, line(1005))
    assert (await read(path))[-3:] == ["raw after error", "at 1004", "at 1005"]


async def test_lines_longer_than_a_chunk_are_whole(path: Path) -> None:
    set_aside(path, 1, line(1000, message="x" * 600_000) + b"\n" + line(1001))
    assert [len(each) for each in await read(path)][-2:] == [600_000, 7]


class End(Exception):  # noqa: N818 - of what a test wants to read
    pass


async def follow(path: Path, steps: Iterable[Callable[[], None]]) -> list[bytes]:
    """What is read of a log while one step is taken each time that the reader waits."""
    left = iter(steps)

    async def wait(seconds: float) -> None:
        assert 0 < seconds <= 0.2
        step = next(left, None)
        if step is None:
            raise End
        step()

    lines: list[bytes] = []
    with contextlib.suppress(End):
        async for each in read_log(path, follow=True, wait=wait):
            lines.append(each)  # noqa: PERF401 - what was read before the end counts
    return lines


def nothing() -> None:
    pass


@pytest.mark.parametrize("burst", [3, 12], ids=["one rotation", "two rotations"])
async def test_a_log_is_followed_across_rotations_between_looks(tmp_path: Path, burst: int) -> None:
    path = tmp_path / "log.jsonl"
    file = LogFile(path, size=500)
    numbers = iter(range(60))

    def write() -> None:
        for number in itertools.islice(numbers, burst):
            file.write(b"%03d " % number + b"x" * 95)

    lines = await follow(path, [write, nothing, nothing] * (60 // burst))
    file.close()
    assert [each[:3] for each in lines] == [b"%03d" % number for number in range(60)]


async def test_a_log_that_begins_later_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert await follow(path, [nothing, lambda: append(path, b"first\n")]) == [b"first"]


async def test_late_lines_of_another_process_in_the_file_set_aside_are_read(path: Path) -> None:
    late = functools.partial(append, aside(path, 1), b"late\n")
    lines = await follow(path, [lambda: set_aside(path, 1, b"new"), late, nothing])
    assert lines[-3:] == [b"raw after error", b"late", b"new"]
