"""What workers that are gone had under way, for those that work after them or beside them.

The only worker of a function finds it in the ledger of the one before it. Of several workers each has a ledger of its
own (`ledger`, `ledger.1` ...); what a dead one's holds goes into a ledger for all, `suspects`, before its slot is
anybody's again, and from there to whoever gets the event.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from fleetfn.position import Position

from fleetfn_runtime.ledger import Ledger
from fleetfn_runtime.places import Places

log = logging.getLogger("fleetfn.ledger")

Suspects = Mapping[tuple[str, Position], int]
"""(trigger, position) -> attempts begun."""

_LEDGER = re.compile(r"ledger(?:\.(\d+))?")


class Inheritance:
    """From any thread. Raises StoreError as Ledger does."""

    def __init__(self, folder: Path, slot: int = 0, places: Places | None = None) -> None:
        """`places`: where `slot` is held and others may be; None: nobody else works."""
        self._folder = folder
        self._slot = slot
        self._places = places
        self._one_thread = threading.Lock()
        self._for_all: Ledger | None = None
        self.ledger, self.suspects = self._begin()
        """This worker's ledger, and what it has to know at its start."""

    def look(self) -> Suspects:
        """Take what the dead have left, and tell all that is suspected now."""
        with self._alone():
            return self._collect()

    def close(self) -> None:
        self.ledger.close()
        if self._for_all is not None:
            self._for_all.close()

    def _begin(self) -> tuple[Ledger, Suspects]:
        own = self._path(self._slot)
        if self._places is None and self._ledgers() <= {self._slot} and not self._path_for_all.exists():
            ledger = Ledger(own)
            return ledger, ledger.suspects()
        with self._alone():
            self._take(own)
            suspects = self._collect()
            ledger = Ledger(own)
        if self._places is None and not suspects:
            self._leave()
        else:
            ledger.forgets(self._all())
        return ledger, suspects

    def _collect(self) -> Suspects:
        for slot in self._ledgers() - {self._slot}:
            if self._places is None:
                self._take(self._path(slot))
            elif self._places.take(slot):  # else its worker lives
                self._take(self._path(slot))
                self._places.free(slot)
        self._all().read()
        return self._all().suspects()

    def _take(self, path: Path) -> None:
        """Move what this ledger holds to the one for all. Killed in between, an attempt may count twice."""
        if not path.exists():
            return
        left = Ledger(path)
        for_all = self._all()
        for_all.read()
        known = for_all.suspects()
        for (trigger, position), begun in left.suspects().items():
            before = known.get((trigger, position), 0)
            # Whoever knew of the attempts before its own has noted more than they were.
            for_all.keep(trigger, position, begun if begun > before else before + 1)
        left.close()
        path.unlink()
        if left.suspects():
            log.warning("%d events were under way when their worker ended (%s)", len(left.suspects()), path.name)

    def _leave(self) -> None:
        """The one for all is of no use to the only worker once nothing is in it."""
        self._all().close()
        self._for_all = None
        self._path_for_all.unlink()

    def _all(self) -> Ledger:
        if self._for_all is None:
            self._for_all = Ledger(self._path_for_all)
        return self._for_all

    def _ledgers(self) -> set[int]:
        """Slots that have one."""
        found = (_LEDGER.fullmatch(path.name) for path in self._folder.iterdir())
        return {int(match[1] or 0) for match in found if match is not None}

    @property
    def _path_for_all(self) -> Path:
        return self._folder / "suspects"

    def _path(self, slot: int) -> Path:
        return self._folder / (f"ledger.{slot}" if slot else "ledger")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._one_thread:
            if self._places is None:
                yield
            else:
                with self._places.alone():
                    yield
