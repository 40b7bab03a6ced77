"""Many contents into one store, several at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

from fleetfn_builder.builder import BuildError
from fleetfn_builder.image_store import Bytes, ImageStore, nobody
from fleetfn_builder.images import Descriptor
from fleetfn_builder.references import Reference

AT_ONCE = 4
"""Uploads: what browsers and other registry clients allow themselves, near enough."""

_GRACE = 0.5
"""Seconds that are given to the others to break off."""


@dataclass(frozen=True, slots=True)
class Part:
    """A layer or config on its way, as ImageStore.put takes it."""

    descriptor: Descriptor
    open: Callable[[], IO[bytes]]
    mount_from: Reference | None = None


def put_all(store: ImageStore, parts: Sequence[Part], progress: Bytes = nobody) -> None:
    """Raises the first BuildError; then, and on Ctrl-C, the others break off. One that waits for a silent registry is
    not waited for: its thread ends with the process.
    """
    stop = threading.Event()

    def watched(count: int) -> None:
        if stop.is_set():
            raise BuildError("broken off", hint="Another part has failed.")
        progress(count)

    distinct = {part.descriptor.digest: part for part in parts}
    todo: queue.SimpleQueue[Part] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for part in distinct.values():
        todo.put(part)
    work = partial(_work, store, todo, ended, watched)
    threads = [threading.Thread(target=work, name="upload", daemon=True) for _ in range(min(AT_ONCE, len(distinct)))]
    try:
        for thread in threads:
            thread.start()
        for _ in distinct:
            if (error := ended.get()) is not None:
                raise error
    finally:
        stop.set()
        _wait(threads)


def _work(
    store: ImageStore,
    todo: queue.SimpleQueue[Part],
    ended: queue.SimpleQueue[BaseException | None],
    watched: Bytes,
) -> None:
    """One part after the other; `ended` learns how."""
    with suppress(queue.Empty):
        while True:
            part = todo.get_nowait()
            try:
                watched(0)
                store.put(part.descriptor, part.open, part.mount_from, watched)
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                ended.put(error)
            else:
                ended.put(None)


def _wait(threads: Sequence[threading.Thread]) -> None:
    end = time.monotonic() + _GRACE
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, end - time.monotonic()))
