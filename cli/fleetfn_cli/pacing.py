"""Handing items over at a steady rate, by a monotonic clock: late items are caught up with, not forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def paced(
    items: Iterable[T],
    rate: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """`rate`: items a second; None: as fast as they are taken."""
    if rate is None:
        yield from items
        return
    begin = clock()
    for number, item in enumerate(items):
        wait = begin + number / rate - clock()
        if wait > 0:
            sleep(wait)
        yield item
