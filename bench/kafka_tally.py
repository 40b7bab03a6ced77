"""How far a subject is, in its own process: when it handled the first record and when the last, by its own clock.

What a subject is told comes by environment variables, since each kind of program has its own command line.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

BROKER = os.environ["BENCH_BROKER"]
TOPIC = os.environ["BENCH_TOPIC"]
GROUP = os.environ["BENCH_GROUP"]
LARGE = os.environ["BENCH_PAYLOAD"] == "large"
COUNT = int(os.environ["BENCH_COUNT"])
"""Records after which the measurement ends."""
FOLDER = Path(os.environ["BENCH_FOLDER"])
"""For the subject's own files, on disk."""


class Tally:
    def __init__(self) -> None:
        self._next = itertools.count(1).__next__  # one step, whichever thread calls
        self._begun = self._cpu = 0.0
        self._done = self._first = 0

    def one(self) -> None:
        """A record is handled."""
        number = self._next()
        if number == 1:
            self._begin()
        elif number == COUNT:
            self._end(COUNT - 1)

    def many(self, count: int) -> None:
        """So many are handled, by a loop that counts itself: its first chunk is its first record."""
        self._done += count
        if self._done == count:
            self._first = count
            self._begin()
        elif self._done >= COUNT > self._done - count:
            self._end(self._done - self._first)

    def _begin(self) -> None:
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def _end(self, count: int) -> None:
        seconds, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
        writing = FOLDER / "result.part"
        writing.write_text(json.dumps({"rate": count / seconds, "cpu": cpu / count * 1e6}))
        writing.rename(FOLDER / "result.json")
