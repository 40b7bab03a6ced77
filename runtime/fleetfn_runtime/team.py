"""The workers of a function on one node that work beside each other, as one of them knows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleetfn_runtime.inheritance import Inheritance
from fleetfn_runtime.places import Places


@dataclass(slots=True)
class Team:
    """Written on the loop, read on any thread."""

    slot: int
    """This worker's."""
    most: int = 1
    """Slots that there are."""
    slots: tuple[int, ...] = ()
    """Of all that take work, this one included; empty: nothing was said yet."""
    places: Places | None = None
    """Locks that they share, once this worker owns its slot."""
    inheritance: Inheritance | None = None
    """Likewise, what those that are gone had under way."""
    _alive: set[int] = field(default_factory=set)

    def bereaved(self) -> bool:
        """A worker beside this one has ended since this was asked before. Its node says so, too, but who pushes rows
        may be quicker to push those of a dead one to this one.
        """
        if self.places is None:
            return False
        alive = {slot for slot in range(self.most) if slot != self.slot and self.places.is_taken(slot)}
        died = bool(self._alive - alive)
        self._alive = alive
        return died
