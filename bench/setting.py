"""What a run of benchmarks has: how long it may take, brokers of its own, other libraries to compare with."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent
KAFKA_PORT = 19700
MOSQUITTO_PORT = 18970


class Setting:
    """Brokers start with the first benchmark that asks for them, and end with the run."""

    def __init__(self, *, runs: int, quick: bool, with_peers: bool = True) -> None:
        self.runs = runs
        self.quick = quick
        self.with_peers = with_peers
        """False: `peers` is not to be asked for; lines have FleetFn and its floor only."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fn-bench-")))
        """For files of this run; short enough for sockets."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def count(self, full: int) -> int:
        """Events of a line: a tenth where it has to be quick."""
        return max(1, full // 10) if self.quick else full

    @cached_property
    def kafka(self) -> str:
        """host:port of a real Kafka."""
        env = {"FN_KAFKA_DIR": str(ROOT / ".cache" / "bench-kafka"), "FN_KAFKA_PORT": str(KAFKA_PORT)}
        return self._broker("kafka.sh", env)

    @cached_property
    def mosquitto(self) -> str:
        """host:port of a real Mosquitto, which keeps sessions in memory: its disk is none of what is measured."""
        env = {
            "FN_MOSQUITTO_DIR": str(ROOT / ".cache" / "bench-mosquitto"),
            "FN_MOSQUITTO_PORT": str(MOSQUITTO_PORT),
            "FN_MOSQUITTO_SETTINGS": "persistence false",
        }
        return self._broker("mosquitto.sh", env)

    @cached_property
    def peers(self) -> Path:
        """The Python that has what one would use instead (requirements-peers.txt)."""
        folder = ROOT / ".cache" / "bench-peers"
        subprocess.run([ROOT / "bench" / "peers.sh", folder], check=True)
        return folder / "bin" / "python"

    def _broker(self, script: str, settings: dict[str, str]) -> str:
        env = {**os.environ, **settings}

        def run(*words: str) -> str:
            return subprocess.run(
                [ROOT / "scripts" / script, *words], env=env, check=True, stdout=subprocess.PIPE, text=True
            ).stdout

        run("start")
        self._stack.callback(run, "stop")
        run("wait")
        return run("address").strip()
