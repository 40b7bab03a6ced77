"""Real brokers of the run's own, by the scripts that tests use: own folders, own ports, pid files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

LOOPBACK = "127.0.0.1"


def _kafka(host: str, port: int) -> dict[str, str]:
    """A group's first member waits for no others, and who was killed is missed after 10 s, not 45: workers come and
    go, so that a run is not mostly waiting.
    """
    lines = (
        f"listeners=PLAINTEXT://0.0.0.0:{port},CONTROLLER://{LOOPBACK}:{port + 1}",
        f"advertised.listeners=PLAINTEXT://{host}:{port}",
        "group.initial.rebalance.delay.ms=0",
        "group.consumer.min.session.timeout.ms=6000",
        "group.consumer.session.timeout.ms=10000",
        "group.consumer.min.heartbeat.interval.ms=2000",
        "group.consumer.heartbeat.interval.ms=2000",
    )
    return {"FN_KAFKA_PROPERTIES": "\n".join(lines)}


def _mosquitto(host: str, port: int) -> dict[str, str]:
    return {"FN_MOSQUITTO_SETTINGS": f"listener {port} {host}\nallow_anonymous true"}


_OPEN = {"kafka": _kafka, "mosquitto": _mosquitto}
"""What has a broker listen on an address of this machine, too: settings of its script."""


class Broker:
    """`start` returns when it answers."""

    def __init__(self, name: str, folder: Path, port: int, host: str = LOOPBACK) -> None:
        """`name`: kafka or mosquitto. It uses `port` and up to three after it, on loopback and on `host`."""
        self._script = SCRIPTS / f"{name}.sh"
        kind = name.upper()
        self._env = {**os.environ, f"FN_{kind}_DIR": str(folder), f"FN_{kind}_PORT": str(port)}
        if host != LOOPBACK:
            self._env |= _OPEN[name](host, port)
        self.name = name
        self.folder = folder
        self.address = f"{host}:{port}"

    def start(self) -> None:
        self._run("start")
        self._run("wait")

    def stop(self) -> None:
        self._run("stop")

    def kill(self) -> None:
        """Its process is gone when this returns; nothing is saved on the way out."""
        process = psutil.Process(int(self._run("status")))
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.wait(20)
        self.stop()  # its pid file

    def kill_after_its_last_save(self) -> float:
        """Of Mosquitto, which acknowledges before it saves: when it saved last, in Unix seconds."""
        process = psutil.Process(int(self._run("status")))
        process.suspend()
        saved = (self.folder / "data" / "mosquitto.db").stat().st_mtime
        self.kill()
        return saved

    def _run(self, command: str) -> str:
        done = subprocess.run(
            [str(self._script), command], env=self._env, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} {command}: {done.stderr.strip()}")
        return done.stdout.strip()
