"""The one error of this folder; whoever calls turns it into its own."""

from __future__ import annotations


class AssemblyError(Exception):
    """What failed, with the value quoted (`message`), and the next step (`hint`)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
