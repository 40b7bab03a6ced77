from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from fleetfn.context import Context, Scope, current
from fleetfn.emits import Emitter
from fleetfn.errors import UsageError
from fleetfn.event import Event
from fleetfn.invocation import Call
from fleetfn.lifespan import Lifespan
from fleetfn_runtime import logs
from fleetfn_runtime.capture import LONGEST, PATIENCE, UNFINISHED, Capture
from fleetfn_runtime.log_file import LINE_LIMIT, LogFile, aside
from fleetfn_runtime.logs import Log, key_hash

KEY = b"secret of the node"


def context(invocation: str = "i-1", key: str | None = "LSV1") -> Context:
    call = Call(
        event=Event(id="1", source="s", type="t", data=None),
        trigger="telemetry",
        key=key,
        attempt=2,
        invocation=invocation,
    )
    scope = Scope("battery-alert", "abc", cast("Emitter", None), logging.getLogger("user"), cast("Lifespan", None))
    return Context(call, scope)


class Reader:
    """The log under test and the lines in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = LogFile(path)
        self.log = Log(self.file, function="battery-alert", revision="abc", log_key=KEY)
        self.logger = logging.Logger("user", logging.DEBUG)  # noqa: LOG001 - not of the process' tree
        self.logger.addHandler(self.log)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return line


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "log.jsonl")
    yield reader
    reader.file.close()


@pytest.fixture
def invocation() -> Iterator[Context]:
    token = current.set(context())
    yield cast("Context", current.get())
    current.reset(token)


def test_lines_go_to_whoever_reads_the_terminal_too_as_long_as_somebody_does(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    file = LogFile(tmp_path / "log.jsonl")
    log = Log(file, function="battery-alert", revision="abc", log_key=KEY, copy=writing)
    log.printed("stdout", "hello", None)
    told = os.read(reading, LINE_LIMIT)
    os.close(reading)
    log.printed("stdout", "nobody reads this", None)
    os.close(writing)
    file.close()
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["message"] for line in lines] == ["hello", "nobody reads this"]
    assert told == lines[0]


def test_a_line_says_when_what_and_which_invocation(reader: Reader, invocation: Context) -> None:
    reader.logger.info("cell %d is at %.1f", 7, 61.25)
    line = reader.line()
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "info",
        "message": "cell 7 is at 61.2",
        "function": "battery-alert",
        "revision": "abc",
        "invocation": "i-1",
        "trigger": "telemetry",
        "key_hash": key_hash(KEY, "LSV1"),
        "attempt": 2,
        "logger": "user",
    }


def test_a_key_is_a_keyed_hash_of_12_digits_and_never_itself(reader: Reader, invocation: Context) -> None:
    reader.logger.warning("again", extra={"key": "LSV2", "trigger": "other"})
    line = reader.line()
    assert line["key_hash"] == key_hash(KEY, "LSV2")
    assert line["trigger"] == "other"
    assert b"LSV" not in reader.path.read_bytes()
    assert len(line["key_hash"]) == 12
    assert key_hash(b"another node", "LSV2") != key_hash(KEY, "LSV2")


def test_a_line_outside_of_invocations_names_none(reader: Reader) -> None:
    reader.logger.info("started")
    assert reader.line().keys() == {"time", "level", "message", "function", "revision", "logger"}


def test_an_exception_is_told_once_with_its_place(reader: Reader) -> None:
    try:
        float("no voltage")
    except ValueError:
        reader.logger.exception("it failed")
    line = reader.line()
    assert line["exception"] == "ValueError: could not convert string to float: 'no voltage'"
    assert line["place"].startswith(f"{__file__}:")
    assert line["traceback"].count("no voltage") == 2  # the raising line and the error


def test_a_traceback_given_by_the_worker_is_kept(reader: Reader) -> None:
    reader.logger.error("x", extra={"traceback": "Traceback ...", "place": "handler.py:12"})
    assert (reader.line()["traceback"], reader.line()["place"]) == ("Traceback ...", "handler.py:12")


def test_extra_fields_are_kept_without_secrets(reader: Reader) -> None:
    headers = {"Authorization": "Bearer x", "Cookie": "y", "accept": "*/*"}
    reader.logger.info("x", extra={"cells": [1, 2], "headers": headers, "password": "z", "at": object})
    fields = reader.line()["fields"]
    assert fields["headers"] == {"Authorization": "(hidden)", "Cookie": "(hidden)", "accept": "*/*"}
    assert fields["password"] == "(hidden)"  # noqa: S105 - it is not shown
    assert fields["cells"] == [1, 2]
    assert "object" in fields["at"]


@pytest.mark.parametrize("text", ["x" * 200_000, "\x1f" * 100_000, "🚗" * 50_000, "\ud800" * 70_000], ids=ascii)
def test_a_long_line_is_cut_and_stays_one_write(reader: Reader, text: str) -> None:
    reader.logger.info("%s", text, extra={"traceback": text, "more": text})
    assert reader.line()["message"].endswith("... (cut)")
    assert len(reader.path.read_bytes()) <= LINE_LIMIT


def test_text_with_lone_surrogates_is_logged(reader: Reader) -> None:
    reader.logger.info("file \udcff.csv", extra={"name_of_it": "\udcff"})
    assert reader.line()["message"] == "file ?.csv"


def test_a_message_that_cannot_be_formatted_harms_nobody(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    reader.logger.info("%d", "no number")
    reader.logger.info("next")
    assert reader.line()["message"] == "next"
    assert "--- Logging error ---" in capsys.readouterr().err


# The file


def test_lines_that_were_lost_are_told(reader: Reader) -> None:
    reader.file.lost = 3
    reader.logger.info("space again")
    assert [line["message"] for line in reader.lines()] == [
        "3 log lines were lost: the log could not be written",
        "space again",
    ]


def test_the_file_is_set_aside_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = LogFile(path, size=1000)
    for n in range(100):
        file.write(b"%03d " % n + b"x" * 95)
    file.close()
    kept = [line[:3] for number in (2, 1, 0) for line in aside(path, number).read_bytes().splitlines()]
    assert kept == [b"%03d" % n for n in range(100 - len(kept), 100)]
    assert 20 < len(kept) <= 30
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]


def test_two_writers_rotate_without_losing_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    one, other = LogFile(path, size=10_000), LogFile(path, size=10_000)

    def write(file: LogFile, name: str) -> None:
        for n in range(100):
            file.write(f"{name} {n} {'x' * 100}".encode())

    threads = [threading.Thread(target=write, args=pair) for pair in ((one, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    other.close()
    lines = [line.split()[:2] for number in (2, 1, 0) for line in aside(path, number).read_text().splitlines()]
    assert len(lines) == 200
    for name in "ab":
        assert sorted(int(n) for who, n in lines if who == name) == list(range(100))


def test_a_log_removed_by_hand_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = LogFile(path)
    path.unlink()
    file.write(b"x")
    file.close()
    assert path.read_bytes() == b"x\n"


# Prints


class Printed:
    """What a Capture told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, str | None]] = []
        self.stream = Capture("stdout", 1, self._printed, clock=lambda: self.now)

    def _printed(self, stream: str, line: str, context: Context | None) -> None:
        assert stream == "stdout"
        self.told.append((line, None if context is None else context.invocation))


@pytest.fixture
def printed() -> Printed:
    return Printed()


def test_prints_are_lines_of_their_invocation(printed: Printed, invocation: Context) -> None:
    print("one", 2, file=printed.stream)
    print("a\nb\r\n\nc", file=printed.stream)
    assert printed.told == [("one 2", "i-1"), ("a", "i-1"), ("b", "i-1"), ("c", "i-1")]


def test_prints_outside_of_invocations_have_none(printed: Printed) -> None:
    print("importing", file=printed.stream)
    assert printed.told == [("importing", None)]


async def test_tasks_that_print_at_the_same_time_fill_lines_of_their_own(printed: Printed) -> None:
    async def handle(name: str) -> None:
        current.set(context(name))
        for word in ("this", "is", name):
            print(word, end=" ", file=printed.stream)
            await asyncio.sleep(0)
        print(file=printed.stream)

    await asyncio.gather(handle("i-1"), handle("i-2"))
    assert printed.told == [("this is i-1 ", "i-1"), ("this is i-2 ", "i-2")]


def test_threads_that_print_at_the_same_time_fill_lines_of_their_own(printed: Printed) -> None:
    barrier = threading.Barrier(4)

    def handle(name: str) -> None:
        current.set(context(name))
        barrier.wait()
        for _ in range(100):
            print(name, end=",", file=printed.stream)
            print(name, file=printed.stream)

    threads = [threading.Thread(target=handle, args=(f"i-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(printed.told) == [(f"i-{n},i-{n}", f"i-{n}") for n in range(4) for _ in range(100)]


def test_a_line_without_end_is_told_when_flushed_or_old_or_at_the_end(printed: Printed) -> None:
    token = current.set(context("i-1"))
    print("flushed", end="", flush=True, file=printed.stream)
    assert printed.told == [("flushed", "i-1")]
    print("old", end="", file=printed.stream)
    current.reset(token)
    printed.now += PATIENCE + 0.1
    print("new", end="", file=printed.stream)
    assert printed.told[1:] == [("old", "i-1")]
    printed.stream.flush()
    assert printed.told[2:] == [("new", None)]


def test_an_invocation_flushes_its_own_line_only(printed: Printed) -> None:
    for name in ("i-1", "i-2"):
        token = current.set(context(name))
        print(name, end="", flush=name == "i-2", file=printed.stream)
        current.reset(token)
    assert printed.told == [("i-2", "i-2")]
    printed.stream.flush()
    assert printed.told[1:] == [("i-1", "i-1")]


def test_what_is_kept_of_lines_without_end_is_bounded(printed: Printed) -> None:
    for n in range(UNFINISHED * 2):
        token = current.set(context(f"i-{n}"))
        print("x", end="", file=printed.stream)
        current.reset(token)
    assert len(printed.told) == UNFINISHED
    print("y" * LONGEST * 3, end="", file=printed.stream)
    assert sum(line.count("y") for line, _ in printed.told) == LONGEST * 2


# The whole, in a process of its own

PROGRAM = """
import logging, os, subprocess, sys, threading, warnings
from pathlib import Path
from fleetfn_runtime import logs
logs.setup(Path(sys.argv[1]), function="f", revision="r", log_key=b"k")
print("printed")
print("to stderr", file=sys.stderr)
logging.getLogger("user").info("logged")
logging.getLogger("user").debug("not asked for")
os.write(1, b"raw from C\\n")
subprocess.run(["echo", "from a child"], check=True)
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print("no end", end="")
raise SystemExit(f"left {1}")
"""


def test_everything_a_process_says_is_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ran = subprocess.run([sys.executable, "-c", PROGRAM, path], check=False, capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"", b"")
    lines = path.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == ["raw from C", "from a child"]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(line["logger"], line["message"].split("\n")[0]) for line in told] == [
        ("stdout", "printed"),
        ("stderr", "to stderr"),
        ("user", "logged"),
        ("py.warnings", "<string>:12: UserWarning: careful"),
        ("fleetfn.worker", "uncaught exception in thread Thread-1 (<lambda>)"),
        ("stderr", "left 1"),
        ("stdout", "no end"),
    ]


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FN_LOG_LEVEL is 'loud'") as caught:
        logs.setup(tmp_path / "log.jsonl", function="f", revision="r", log_key=b"", environ={"FN_LOG_LEVEL": "loud"})
    assert "debug, info, warning, error" in caught.value.hint
