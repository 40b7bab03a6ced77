"""Where a run's functions live: a node (node_place.py) or a namespace of a cluster (cluster_place.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from soak.functions import Setting
from soak.pace import Pace
from soak.plan import Size
from soak.schedule import Action

Act = Callable[[Action, Pace], str]
"""What was done to whom, in words."""


class Place(Protocol):
    """Methods raise RuntimeError where something fails."""

    sizes: Mapping[str, Size]
    host: str
    """Address of this machine as functions reach it: where brokers and receivers listen."""

    def deck(self, size: str) -> Sequence[str]:
        """Kinds of disorder; see schedule.py."""
        ...

    def acts(self) -> Mapping[str, Act]:
        """Those of its own."""
        ...

    def setting(self) -> Setting: ...

    def start(self) -> None:
        """Before functions are deployed, and again after disorder; what runs already goes on."""
        ...

    def fn(self, *arguments: str) -> str:
        """As a user types it; what it prints."""
        ...

    def front(self) -> str:
        """Where HTTP triggers of `chains` are asked, host:port."""
        ...

    def group(self, function: str, trigger: str) -> str:
        """Of Kafka's consumers."""
        ...

    def left(self) -> dict[str, int]:
        """What waits beside Kafka, by where; -1: it cannot be told now."""
        ...

    def facts(self) -> dict[str, Any]:
        """For the judge."""
        ...

    def end(self, folder: Path) -> None:
        """Of a run that went well so far: what the judge reads is there when this returns."""
        ...

    def down(self) -> None:
        """Whatever is left of it."""
        ...
