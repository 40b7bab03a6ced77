"""One run of a subject of the Kafka benchmark: a process of its own that reads a topic from its beginning.

What is measured ends with the last record handled; the run counts only once the broker has it committed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from kafka_topics import PARTITIONS, Topic
from setting import Setting
from turns import say

BENCH = Path(__file__).parent
LIMIT = 600.0
"""Seconds that a run may take, and then until all is committed."""


class Result(msgspec.Struct):
    rate: float
    """Records per second."""
    cpu: float
    """Microseconds of the process' CPU per record, threads of its Kafka client included."""


class Subjects:
    """Each measures one run: `topic`, a group and a folder of its own."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._runs = 0

    def bare(self, topic: Topic, *how: str) -> float:
        return self._run([sys.executable, BENCH / "kafka_bare.py", *how], topic, self._folder(), topic.count)

    def quix(self, topic: Topic, state: str = "none") -> float:
        command = [self._setting.peers, BENCH / "kafka_quix.py"]
        return self._run(command, topic, self._folder(), topic.count, state=state)

    def faust(self, topic: Topic, state: str = "none") -> float:
        """The first tenth of the topic, or hundredth where it keeps a table: it would take minutes."""
        count = topic.count // (10 if state == "none" else 100)
        command = [self._setting.peers, "-W", "ignore", BENCH / "kafka_faust.py", "worker", "--loglevel", "error"]
        return self._run(command, topic, self._folder(), count, state=state)

    def fleetfn(self, topic: Topic, handler: str, key: str | None = None) -> float:
        """A worker by itself (and its gateway, which has nothing to do); `key`: a key expression."""
        folder = self._folder()
        source = folder / "function"
        source.mkdir()
        shutil.copy(BENCH / "kafka_handlers.py", source / "handler.py")
        trigger = {"name": "telemetry", "kafka": {"topic": topic.name, "start": "earliest"}}
        if key is not None:
            trigger["key"] = key
        function = {
            "apiVersion": "fleetfn.dev/v1alpha1",
            "kind": "Function",
            "metadata": {"name": folder.name},
            "spec": {"handler": f"handler:{handler}", "triggers": [trigger]},
        }
        (source / "function.yaml").write_bytes(msgspec.yaml.encode(function))
        local = {"name": "local", "connections": [{"name": "kafka", "kafka": {"brokers": [topic.broker]}}]}
        environments = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments", "environments": [local]}
        (source / "environments.yaml").write_bytes(msgspec.yaml.encode(environments))
        command = [sys.executable, "-m", "fleetfn_runtime", "--folder", source, "--data", folder / "data"]
        group = f"local/lone/{folder.name}/telemetry"
        return self._run(command, topic, folder, topic.count, group=group)

    def _folder(self) -> Path:
        self._runs += 1
        folder = self._setting.folder / f"kafka-{self._runs}"
        folder.mkdir()
        return folder

    def _run(
        self,
        command: Sequence[str | Path],
        topic: Topic,
        folder: Path,
        count: int,
        *,
        state: str = "none",
        group: str | None = None,
    ) -> float:
        group = group or f"{topic.name}-{folder.name}"
        told = {
            "BENCH_BROKER": topic.broker,
            "BENCH_TOPIC": topic.name,
            "BENCH_PARTITIONS": str(PARTITIONS),
            "BENCH_PAYLOAD": topic.payload,
            "BENCH_GROUP": group,
            "BENCH_COUNT": str(count),
            "BENCH_STATE": state,
            "BENCH_FOLDER": str(folder),
            "PYTHONPATH": str(BENCH),
        }
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env={**os.environ, **told}, stdout=output, stderr=subprocess.STDOUT, cwd=folder
            )
        try:
            result = _result(process, folder, log)
            _await_commits(topic, group, count)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        say(f"{result.rate:,.0f} records/s, {result.cpu:.2f} us of CPU each")
        shutil.rmtree(folder)
        return result.rate


def _result(process: subprocess.Popen[bytes], folder: Path, log: Path) -> Result:
    path = folder / "result.json"
    limit = time.monotonic() + LIMIT
    while not path.exists():
        if process.poll() is not None or time.monotonic() > limit:
            what = "did not end in time" if process.poll() is None else f"ended with exit code {process.returncode}"
            raise RuntimeError(f"{process.args!r} {what}:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)
    return msgspec.json.decode(path.read_bytes(), type=Result)


def _await_commits(topic: Topic, group: str, count: int) -> None:
    limit = time.monotonic() + LIMIT
    while (committed := topic.committed(group)) < count:
        if time.monotonic() > limit:
            raise RuntimeError(f"group {group} has committed {committed} of {count} records")
        time.sleep(0.1)
