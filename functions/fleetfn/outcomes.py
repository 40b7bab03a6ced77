"""The two words a handler may end in beside returning: Retry and Reject.

They are exceptions so that they leave from anywhere in the handler's code, and no errors: nothing is broken.
"""

from __future__ import annotations

import math
from datetime import timedelta


class Retry(Exception):  # noqa: N818 - a word of the handler's, not an error
    """Run this event again later.

    `after`: seconds (or a timedelta) to wait; None: the trigger's backoff. Uses up one of the trigger's attempts; an
    HTTP caller gets 503 with Retry-After.
    """

    def __init__(self, reason: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(reason)
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"Retry(after={after!r}): say seconds, 0 or more")
        self.reason = reason
        self.after = seconds


class Reject(Exception):  # noqa: N818 - a word of the handler's, no error
    """Never run this event again: it becomes a dead letter with this reason. An HTTP caller gets 422."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = str(reason)
