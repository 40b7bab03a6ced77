"""Callers over HTTP with ids of their own, who try again until they are answered. Each of a vehicle's requests follows
the answer to the one before it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from soak.pace import Pace
from soak.plan import Planned

FINAL = frozenset({200, 202, 204, 400, 422})
"""Any other answer, or none, is tried again."""

TIMEOUT = 20.0
AGAIN = 0.3


class HttpLoad(threading.Thread):
    """`file`: a line per answer, {"id", "status", "body", "duplicate", "tries"}."""

    def __init__(self, address: str, events: Sequence[Planned], file: Path, pace: Pace) -> None:
        super().__init__(daemon=True)
        self.planned = len(events)
        self.confirmed = 0
        self.problem = ""
        self._address = address
        self._events = events
        self._file = file
        self._pace = pace
        self._connection = self._connect()

    def run(self) -> None:
        with self._file.open("w") as out:
            for event in self._events:
                self._pace.until(event.at)
                if not self._ask(event, out):
                    self.problem = "the run ended before all was answered"
                    break
        self._connection.close()

    def _ask(self, event: Planned, out: TextIO) -> bool:
        tries = 0
        began = time.time()
        while not self._pace.ended:
            tries += 1
            try:
                status, headers, body = self._once(event)
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self._connection = self._connect()
            else:
                if status in FINAL:
                    self._note(event, status, headers, body, tries, began, out)
                    return True
            self._pace.rest(AGAIN)
        self._note(event, 0, {}, b"", tries, began, out)
        return False

    def _once(self, event: Planned) -> tuple[int, dict[str, str], bytes]:
        headers = {"content-type": "application/json", "idempotency-key": event.id}
        if event.source == "async":
            headers["prefer"] = "respond-async"
        self._connection.request("POST", f"/soak/{event.vehicle}", event.payload, headers)
        response = self._connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def _note(
        self, event: Planned, status: int, headers: dict[str, str], body: bytes, tries: int, began: float, out: TextIO
    ) -> None:
        self.confirmed += status != 0
        answer = {"id": event.id, "status": status, "body": body.decode(errors="replace"), "tries": tries}
        more = {"duplicate": "fn-duplicate" in headers, "began": began, "ended": time.time()}
        out.write(json.dumps(answer | more) + "\n")

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT)
