from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from fleetfn.errors import StoreError
from fleetfn.position import At, Named
from fleetfn_runtime import ledger as ledger_module
from fleetfn_runtime.ledger import KEEP, SLOT, SLOTS, Ledger

AT = At("kafka:vehicle.telemetry:hVZ9yQmPTmO1T7dTz5AXvA", 3, 2**40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def crash(ledger: Ledger) -> dict[tuple[str, object], int]:
    """What the next process finds when this one dies now."""
    copy = ledger._path.with_name("found")
    shutil.copy(ledger._path, copy)
    found = Ledger(copy)
    suspects = found.suspects()
    found.close()
    return suspects


def test_what_runs_at_the_crash_is_suspect_with_its_attempts(path: Path) -> None:
    ledger = Ledger(path)
    ledger.begin("telemetry", AT, 3)
    ledger.begin("show", Named("hash"), 1)
    ledger.end(ledger.begin("telemetry", At(AT.stream, 3, 5), 1))
    assert crash(ledger) == {("telemetry", AT): 3, ("show", Named("hash")): 1}
    ledger.close()


def test_a_new_ledger_and_one_whose_runs_ended_suspect_nobody(path: Path) -> None:
    ledger = Ledger(path)
    assert ledger.suspects() == {}
    ledger.end(ledger.begin("telemetry", AT, 1))
    ledger.close()
    again = Ledger(path)
    assert again.suspects() == {}
    again.close()


def test_a_suspect_is_not_forgotten_by_a_second_crash_before_it_ran_again(path: Path) -> None:
    for _ in range(3):
        ledger = Ledger(path)
        if not ledger.suspects():
            ledger.begin("telemetry", AT, 2)
        ledger.end(ledger.begin("telemetry", At(AT.stream, 3, 5), 1))
        ledger.close()
    assert ledger.suspects() == {("telemetry", AT): 2}


def test_attempts_grow_over_crashes_and_an_end_clears_them(path: Path) -> None:
    for attempt in (1, 2, 3):
        ledger = Ledger(path)
        assert ledger.suspects() == ({("telemetry", AT): attempt - 1} if attempt > 1 else {})
        ledger.begin("telemetry", AT, attempt)
        ledger.close()
    ledger = Ledger(path)
    ledger.end(ledger.begin("telemetry", AT, 4))
    assert crash(ledger) == {}
    ledger.close()


def test_it_grows_beyond_its_slots_and_uses_them_again(path: Path) -> None:
    ledger = Ledger(path)
    slots = [ledger.begin("telemetry", At(AT.stream, 0, n), 1) for n in range(2 * SLOTS + 10)]
    assert len(set(slots)) == len(slots)
    assert len(crash(ledger)) == len(slots)
    size = path.stat().st_size
    for slot in slots:
        ledger.end(slot)
    for n in range(2 * SLOTS + 10):
        ledger.begin("telemetry", At(AT.stream, 1, n), 1)
    assert path.stat().st_size == size
    ledger.close()


def test_threads_never_share_a_slot(path: Path) -> None:
    ledger = Ledger(path)
    found: list[int] = []

    def begin(trigger: str) -> None:
        found.extend([ledger.begin(trigger, At("s", 0, n), 1) for n in range(1000)])

    threads = [threading.Thread(target=begin, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4000
    assert len(crash(ledger)) == 4000
    ledger.close()


@pytest.mark.parametrize("cut", range(2, 80, 7))
def test_a_note_torn_by_the_kill_is_no_suspect(path: Path, cut: int) -> None:
    ledger = Ledger(path)
    ledger.begin("telemetry", AT, 1)
    ledger.begin("telemetry", At(AT.stream, 3, 5), 1)
    ledger.close()
    content = bytearray(path.read_bytes())
    start = content.index(b"telemetry") // SLOT * SLOT
    content[start + cut : start + SLOT] = bytes(SLOT - cut)
    path.write_bytes(content)
    again = Ledger(path)
    assert again.suspects() == {("telemetry", At(AT.stream, 3, 5)): 1}
    assert again.begin("x", At("s", 0, 1), 1) >= 0
    again.close()


def test_a_suspect_that_nobody_came_back_to_is_dropped_after_a_week(path: Path) -> None:
    ledger = Ledger(path, clock=lambda: 1000.0)
    ledger.begin("telemetry", AT, 1)
    ledger.close()
    late = Ledger(path, clock=lambda: 1000.0 + KEEP + 1)
    assert late.suspects() == {}
    late.close()


def test_the_longest_topic_fits_and_what_is_longer_is_not_noted(path: Path) -> None:
    ledger = Ledger(path)
    longest = At(f"kafka:{'t' * 249}:hVZ9yQmPTmO1T7dTz5AXvA", 2**31, 2**62)
    ledger.begin("t" * 63, longest, 100)
    ledger.end(ledger.begin("telemetry", At("s" * 1000, 0, 1), 1))
    ledger.begin("telemetry", At("s" * 1000, 0, 2), 1)
    assert crash(ledger) == {("t" * 63, longest): 100}
    ledger.close()


def test_a_file_of_something_else_starts_over_and_says_so(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"\0" * 10_000)
    ledger = Ledger(path)
    assert ledger.suspects() == {}
    assert "is not a ledger of this version" in caplog.text
    ledger.begin("telemetry", AT, 1)
    assert crash(ledger) == {("telemetry", AT): 1}
    ledger.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ledger '.*missing/ledger' cannot be used: No such file"):
        Ledger(tmp_path / "missing" / "ledger")


def test_a_full_disk_is_an_error_and_not_a_death(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger_module.os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left"):
        ledger.begin("telemetry", AT, 1)
    ledger.close()
