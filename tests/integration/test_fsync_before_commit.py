"""A trace of the worker's system calls: state is on the disk before its offset is committed to Kafka."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleetfn_runtime.settings import group_id
from kafka_broker import committed, create_topic, eventually, fresh_name, produce
from machine import use_broker

pytestmark = [pytest.mark.kafka, pytest.mark.node, pytest.mark.slow]

OFFSET_COMMIT = 8
"""Key of the OffsetCommit request in Kafka's protocol: bytes 5 and 6 of a request, after its size."""

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: traced}}
spec:
  handler: handler:count
  triggers:
  - {{name: in, key: data.vehicle, kafka: {{topic: {topic}, start: earliest}}}}
"""

HANDLER = """
from typing import Any

from fleetfn import State


def count(record: dict[str, Any], state: State[dict[str, Any]]) -> None:
    state.value["n"] = state.value.get("n", 0) + 1
"""


@pytest.fixture
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        text = "strace is not installed: apt-get install strace"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return found


def test_the_store_is_synced_before_the_offset_is_committed(tmp_path: Path, kafka: str, strace: str) -> None:
    topic = fresh_name("traced")
    create_topic(kafka, topic, partitions=1)
    folder, data, trace = tmp_path / "traced", tmp_path / "data", tmp_path / "trace.txt"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION.format(topic=topic))
    (folder / "handler.py").write_text(HANDLER)
    use_broker(tmp_path, kafka)
    worker = subprocess.Popen(
        [
            strace,
            "-f",
            "-y",
            "-xx",
            "-ttt",
            "-s",
            "8",
            "-e",
            "trace=fsync,fdatasync,sendto,sendmsg,write,writev",
            "-o",
            str(trace),
            sys.executable,
            "-m",
            "fleetfn_runtime",
            "--folder",
            str(folder),
            "--data",
            str(data),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    group = group_id("local", "lone", "traced", "in")
    try:
        eventually(lambda: committed(kafka, group, topic, 1) == [0], 60)  # it is ready: its start offset is kept
        written = time.time()
        produce(kafka, topic, [("V1", b'{"vehicle": "V1"}')])
        eventually(lambda: committed(kafka, group, topic, 1) == [1], 60)
    finally:
        stop(worker)
    calls = [what for line in trace.read_text().splitlines() if (what := meaning(line, since=written))]
    assert "commit" in calls, calls
    assert "state synced" in calls[: calls.index("commit")], calls


def meaning(line: str, *, since: float) -> str | None:
    """What a call of the trace is about, if it matters: a sync of the state's log, or an OffsetCommit request."""
    _, moment, call = line.split(maxsplit=2)
    if float(moment) < since:
        return None
    synced = re.match(r"f(?:data)?sync\(\d+<((?:\\x[0-9a-f]{2})+)", call)
    if synced:
        return "state synced" if unhexed(synced[1]).endswith(b"state.db-wal") else None
    sent = re.search(r'(?:iov_base=|>, )"((?:\\x[0-9a-f]{2}){8})"', call)
    if sent and call.startswith("send") and int.from_bytes(unhexed(sent[1])[4:6]) == OFFSET_COMMIT:
        return "commit"
    return None


def unhexed(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def stop(tracer: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    tracer.wait(60)
