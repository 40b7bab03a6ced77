"""Every sample is run: its own tests in a process of their own, its recordings, and the demo that plays it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
RECORDINGS = SAMPLES.parent / ".cache" / "recordings" / "bin" / "python"

FUNCTIONS = sorted(file.parent for file in SAMPLES.glob("*/function.yaml"))


@pytest.fixture
def recorder() -> Path:
    """The interpreter that has the package of recordings."""
    if not RECORDINGS.exists():
        text = "the recordings are not installed: scripts/recordings.sh .venv .cache/recordings"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return RECORDINGS


def run(*command: str | Path, folder: Path = SAMPLES, limit: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=limit, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_a_sample_passes_its_own_tests_and_the_check(folder: Path) -> None:
    tests = run(sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-p", "no:cacheprovider", folder=folder)
    assert tests.returncode == 0, tests.stdout
    checked = run(Path(sys.executable).parent / "fn", "check", folder)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_a_recording_is_the_same_every_time_and_tells_what_was_put_in(recorder: Path, tmp_path: Path) -> None:
    command = [recorder, SAMPLES / "recordings" / "record.py", "--vehicles", "4", "--every", "30", "--faults", "heat"]
    options = ["--late", "0.05", "--duplicates", "0.05", "--truth", tmp_path / "truth.json"]
    first, second = run(*command, *options), run(*command, *options)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    ids = [line["data"]["id"] for line in lines]
    assert len({line["key"] for line in lines}) == 4
    assert any(line["data"]["resent"] for line in lines)
    assert len(set(ids)) < len(ids)
    (fault,) = json.loads((tmp_path / "truth.json").read_text())
    hottest = max(lines, key=lambda line: line["data"]["temperature_max"])
    assert hottest["key"] == fault["vehicle"]
    assert f"put in on purpose: heat in {fault['vehicle']}" in first.stderr


@pytest.mark.slow
@pytest.mark.node
def test_the_demo_ends_by_itself_with_every_alert(recorder: Path) -> None:
    done = run(sys.executable, SAMPLES / "demo.py", recorder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers in the process table: 0" in done.stdout
    assert "workers in the process table: 1" in done.stdout
    assert "thermal runaway" in done.stdout
    assert "cold start" in done.stdout
