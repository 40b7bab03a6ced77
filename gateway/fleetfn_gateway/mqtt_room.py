"""What MQTT sessions may hold of messages that are not in the inbox yet: a fair share each of what all may."""

from __future__ import annotations

ALL = 64 * 1024 * 1024
"""Bytes that the sessions of one gateway hold together, but for one message of each."""

ONE = 16 * 1024 * 1024
"""Bytes that one session holds, even if it is alone."""


class Room:
    """Those who hold something enter, and leave."""

    def __init__(self, all_: int = ALL, one: int = ONE) -> None:
        self._all = all_
        self._one = one
        self._sessions = 0

    def enter(self) -> None:
        self._sessions += 1

    def leave(self) -> None:
        self._sessions -= 1

    @property
    def share(self) -> int:
        """Bytes of each."""
        return min(self._one, self._all // max(1, self._sessions))
