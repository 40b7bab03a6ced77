"""Text that can be encoded: Python strings may hold lone surrogates (undecodable bytes), which UTF-8 cannot."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> str:
    """A lone surrogate becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def plain_all(value: Any) -> Any:
    """The same for all text within dicts and lists."""
    match value:
        case str():
            return plain(value)
        case dict():
            return {plain_all(key): plain_all(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_all(item) for item in value]
        case _:
            return value
