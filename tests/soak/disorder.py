"""Carries the schedule out, one action after the other, and writes down what was done to whom when."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from soak.brokers import Broker
from soak.functions import Functions
from soak.pace import Pace
from soak.place import Act, Place
from soak.schedule import Action

PAUSED = 2.0

MOSTLY = 0.7
"""Of what a whole function may be struck by, this share strikes `chains`."""

WHOLLY = 0.2
"""Of what may strike one trigger, this share strikes all."""


class Disorder(threading.Thread):
    """Leaves a line per action in `folder`, and one per kill of Mosquitto."""

    def __init__(
        self,
        actions: Sequence[Action],
        place: Place,
        functions: Functions,
        kafka: Broker,
        mosquitto: Broker,
        folder: Path,
        pace: Pace,
    ) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.last = ""
        self.failures: list[str] = []
        """What was not done, and why, in words."""
        self._actions = actions
        self._place = place
        self._functions = functions
        self._kafka = kafka
        self._mosquitto = mosquitto
        self._file = folder / "done.jsonl"
        self._kills = folder / "mosquitto-kills.jsonl"
        self._kills.touch()
        self._pace = pace
        self._over = threading.Event()
        everywhere: Mapping[str, Act] = {
            "kill kafka": self._kill_kafka,
            "restart mosquitto": self._restart_mosquitto,
            "kill mosquitto": self._kill_mosquitto,
            "redeploy": self._redeploy,
            "rescale": self._rescale,
            "pause": self._pause,
        }
        self._kinds = {**everywhere, **place.acts()}

    def run(self) -> None:
        with self._file.open("w", buffering=1) as out:
            for action in self._actions:
                self._over.wait(max(0.0, action.at - self._pace.now))
                if self._over.is_set():
                    return
                began = self._pace.now
                clock = time.time()
                try:
                    what = self._kinds[action.kind](action, self._pace)
                except (RuntimeError, psutil.Error, OSError) as error:
                    what = f"failed: {error}"
                    self.failures.append(f"{action.kind} failed: {_why(str(error))}")
                self.last = f"{action.kind}: {what}"
                self.done += 1
                line = {"at": action.at, "kind": action.kind, "what": what, "began": round(began, 2)}
                out.write(json.dumps({**line, "ended": round(self._pace.now, 2), "clock": clock}) + "\n")

    def stop(self) -> None:
        """Returns when what is being done is over."""
        self._over.set()
        self.join()

    def _kill_kafka(self, *_: object) -> str:
        self._kafka.kill()
        self._kafka.start()
        return "killed and started"

    def _restart_mosquitto(self, *_: object) -> str:
        self._mosquitto.stop()
        self._mosquitto.start()
        return "stopped and started"

    def _kill_mosquitto(self, *_: object) -> str:
        """Noted is when it saved last: what it acknowledged since is lost by it."""
        saved = self._mosquitto.kill_after_its_last_save()
        killed = time.time()
        self._mosquitto.start()
        with self._kills.open("a") as out:
            out.write(json.dumps({"saved": saved, "killed": killed}) + "\n")
        return f"killed {killed - saved:.2f} s after it had saved, and started"

    def _redeploy(self, action: Action, _: Pace) -> str:
        self._functions.revision += 1
        return self._deploy("chains" if action.luck < MOSTLY else self._functions.names[action.pick(3)])

    def _rescale(self, action: Action, _: Pace) -> str:
        of = self._functions
        of.most = 1 + action.pick(3)
        of.least = of.setting.least and 1 + action.pick(of.most)
        return self._deploy("chains")

    def _pause(self, action: Action, pace: Pace) -> str:
        """All triggers of a function, or one of `chains`."""
        name = "chains" if action.luck < MOSTLY else self._functions.names[action.pick(3)]
        only = ["--trigger", "kxmh"[action.pick(4)]] if name == "chains" and action.luck > WHOLLY else []
        self._place.fn("pause", name, *only)
        pace.rest(PAUSED)
        self._place.fn("resume", name)
        return " ".join([name, *only])

    def _deploy(self, name: str) -> str:
        self._functions.write()
        self._place.fn("deploy", str(self._functions.folder / name))
        of = self._functions
        return f"{name}: revision {of.revision}, {of.least} to {of.most} workers"


def _why(said: str) -> str:
    """The complaint of `fn`, without what it was doing and what follows."""
    lines = said.splitlines()
    return next((line for line in lines if line.startswith("Error:")), lines[0] if lines else "")
