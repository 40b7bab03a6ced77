"""The benchmarks run from end to end. What they measure here, in a hurry and beside other tests, means nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
TELEMETRY = ROOT / ".cache" / "bench-telemetry.jsonl"
RECORDINGS = ROOT / ".cache" / "recordings" / "bin" / "python"

OURS = {"uvicorn, bare ASGI", "FleetFn worker alone", "FleetFn, front door"}
BY_HAND = "uvicorn + SQLite, a commit per request"
HTTP = {
    "HTTP, an event of 300 B": OURS | {"FleetFn worker alone, async def"},
    "HTTP, an event of 3 KB": OURS,
    "HTTP, a connection per event": OURS,
    "HTTP with State, 1,000 vehicles": OURS - {"uvicorn, bare ASGI"} | {BY_HAND},
}

pytestmark = [pytest.mark.slow, pytest.mark.node]


def bench(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "bench", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize(("name", "tool", "lines"), [pytest.param("http", "wrk", HTTP, id="http")])
def test_a_benchmark_tells_of_all_its_lines_and_subjects(name, tool, lines, tmp_path):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: apt-get install {tool}")
    if not (TELEMETRY.exists() or RECORDINGS.exists()):
        pytest.skip("the recordings are not installed: scripts/recordings.sh .venv .cache/recordings")
    kept = tmp_path / "results.json"

    done = bench("--only", name, "--quick", "--runs", "1", "--no-peers", "--to", kept)

    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(kept.read_bytes())
    assert {each["line"]: {one["subject"] for one in found if one["line"] == each["line"]} for each in found} == lines
    assert all(each["value"] > 0 and each["ratio"] > 0 for each in found)
    assert all(each["subject"] in done.stdout for each in found)


def test_an_unknown_benchmark_is_refused_by_name():
    done = bench("--only", "htpt")

    assert done.returncode == 2
    assert "unknown benchmark 'htpt'; known: http, kafka" in done.stderr
