"""What goes wrong, and when: drawn from the seed alone. Whom it strikes is drawn, too, among those who are there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from soak.plan import Size

DECK = (
    "kill worker",
    "kill worker",
    "kill worker",
    "kill parent",
    "kill gateway",
    "kill node",
    "kill all",
    "kill kafka",
    "restart mosquitto",
    "kill mosquitto",
    "stop gateway",
    "stop worker",
    "redeploy",
    "rescale",
    "pause",
)
"""Each is drawn once before any comes again."""

SHORT = (
    "kill worker",
    "kill worker",
    "kill gateway",
    "kill all",
    "kill kafka",
    "restart mosquitto",
    "kill mosquitto",
    "stop gateway",
    "redeploy",
    "pause",
)
"""The same for a short run, which has time for some."""

CLUSTER = (
    "kill worker",
    "kill worker",
    "delete worker",
    "delete worker",
    "kill sidecar",
    "kill gateway",
    "delete gateway",
    "delete scaler",
    "kill kafka",
    "restart mosquitto",
    "kill mosquitto",
    "kill store",
    "stop gateway",
    "stop worker",
    "freeze worker",
    "redeploy",
    "rescale",
    "pause",
    "sleep",
)
"""On a cluster, where things take longer."""

CLUSTER_SHORT = (
    "kill worker",
    "delete worker",
    "kill sidecar",
    "kill gateway",
    "delete scaler",
    "redeploy",
    "sleep",
)


@dataclass(frozen=True, slots=True)
class Action:
    at: float
    """Seconds after the start, or as soon as the one before it is over."""
    kind: str
    luck: float
    """0 to 1: who, or how many."""

    def pick(self, count: int) -> int:
        return min(count - 1, int(self.luck * count))

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind} ({self.luck:.3f})"


def draw(seed: int, size: Size, kinds: Sequence[str]) -> list[Action]:
    """`kinds`: a deck."""
    chance = random.Random(f"disorder {seed}")
    actions: list[Action] = []
    at = 3.0
    for _ in range(size.decks):
        deck = list(kinds)
        chance.shuffle(deck)
        for kind in deck:
            actions.append(Action(round(at, 1), kind, chance.random()))
            at += chance.uniform(*size.gap)
    return actions
