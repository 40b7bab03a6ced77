"""Whether brokers can be reached, in words for people. What changes is logged once, however often it is tried."""

from __future__ import annotations

import logging
import time
from typing import Any

from fleetfn_triggers.kafka_client import address, explain, is_refusal
from fleetfn_triggers.kafka_connection import KafkaConnection


class Reach:
    """Used on the thread of one client; `problem` may be read on any."""

    def __init__(self, connection: KafkaConnection, log: logging.Logger, who: str) -> None:
        """`who`: begins the lines of the log, e.g. `topic alerts`."""
        self.problem = ""
        """What is wrong now; '' where nothing is known to be."""
        self.doubt: Any = None
        """The client's own hint that something is wrong, which need not last."""
        self._where = address(connection)
        self._log = log
        self._who = who
        self._since = ""

    @property
    def doubtful(self) -> bool:
        """Find out (by asking for metadata) and then call `failed` or `back`."""
        return self.doubt is not None or bool(self.problem)

    def note(self, error: Any) -> None:
        """The client's error_cb."""
        if is_refusal(error) or (error.name() == "_ALL_BROKERS_DOWN" and self.doubt is None):
            self.doubt = error

    def failed(self, error: Any) -> None:
        """A question was not answered."""
        why = self.doubt if self.doubt is not None and is_refusal(self.doubt) else error
        if is_refusal(why):
            self.away(f"brokers {self._where} refuse us: {explain(why)}")
        else:
            self._since = self._since or time.strftime("%H:%M:%S", time.gmtime())
            self.away(f"brokers {self._where} are unreachable since {self._since} UTC")

    def away(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._log.warning("%s: %s; trying on", self._who, problem)

    def back(self) -> None:
        """A question was answered."""
        self.doubt = None
        self._since = ""
        if self.problem:
            self.problem = ""
            self._log.info("%s: brokers %s answer again", self._who, self._where)
