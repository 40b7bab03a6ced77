"""What is sent, and what must come of it: drawn from the seed alone.

An event's `do` is what its handler is to do with it:

ok       take it                                   slow     take it after a while
reject   raise Reject                              bad      its payload is no JSON
fail     raise each time                           flaky<n> raise n times, then take it
later<n> raise Retry(after=3) n times, then take it
exit     kill the worker each time                 exit1    kill it once, then take it

Its `source` is what it comes through, within which a vehicle's events keep their order: k<partition> and x<partition>
(two topics of Kafka; the second one's trigger gives up sooner, since it brings what kills workers), mqtt, http (the
caller waits), async (he does not), raw (to the function without state).
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

LATER = 3.0
"""Seconds of Retry(after=...): beyond what a lane waits by itself, so the key's events go through the inbox."""

COMMON = {"ok": 9600, "slow": 60, "reject": 80, "bad": 60, "flaky1": 60, "flaky2": 40, "later1": 60, "later2": 20}
RARE = {"fail": 12}
"""Of ten thousand events."""

KILLERS = {"exit": 30_000, "exit1": 6_000}
"""One event in so many, and at least one in a run: each costs a crash loop, or a death."""

SOURCES = {"k": 63, "x": 3, "mqtt": 20, "http": 4, "async": 4, "raw": 6}
"""Shares of a hundred."""

TOPICS = {"k": "in", "x": "risky", "r": "raw"}
"""Of Kafka, by the first letter of the source."""

REPEATED = 0.01
"""Share of events that their producer sends again at once: events of their own."""

STRAY = 0.1
"""Share of Kafka's events that go to the vehicle's second partition, so that its key lies in two."""


@dataclass(frozen=True, slots=True)
class Size:
    events: int
    vehicles: int
    seconds: float
    """In which they are sent."""
    partitions: int
    decks: int
    """How often each kind of disorder is drawn."""
    gap: tuple[float, float]
    """Seconds between two of them."""
    killers: tuple[str, ...] = tuple(KILLERS)


SIZES = {
    "short": Size(events=3_000, vehicles=50, seconds=25, partitions=4, decks=1, gap=(0.5, 2.0)),
    "medium": Size(events=15_000, vehicles=200, seconds=75, partitions=6, decks=2, gap=(1.0, 4.0)),
    "long": Size(events=100_000, vehicles=1_000, seconds=260, partitions=8, decks=4, gap=(2.5, 6.0)),
}

# A worker that is killed again and again is started again later and later there: up to two minutes for one event.
CLUSTER_SIZES = {
    "short": Size(events=1_000, vehicles=30, seconds=45, partitions=3, decks=1, gap=(2.0, 5.0), killers=("exit1",)),
    "full": Size(events=10_000, vehicles=100, seconds=300, partitions=4, decks=2, gap=(2.0, 7.0)),
}


@dataclass(frozen=True, slots=True)
class Planned:
    id: str
    at: float
    """Seconds after the start."""
    vehicle: str
    source: str
    do: str
    also: str = ""
    """The output beside Kafka's that gets its emit: mqtt or http."""
    times: int = 1
    """How often its producer sends it."""
    ts: int = 0
    """Milliseconds: when it happened, which is not when it is sent."""

    @property
    def payload(self) -> bytes:
        data = {"id": self.id, "vehicle": self.vehicle, "source": self.source, "do": self.do, "also": self.also}
        text = json.dumps({**data, "ts": self.ts})
        return (text[:-1] + ", broken" if self.do == "bad" else text).encode()


def draw(seed: int, size: Size) -> list[Planned]:
    """In order of `at`."""
    chance = random.Random(f"events {seed}")
    killers = {
        chance.randrange(size.events): do
        for do, share in KILLERS.items()
        if do in size.killers
        for _ in range(max(1, size.events // share))
    }
    return [_event(chance, size, number, killers.get(number, "")) for number in range(size.events)]


def _event(chance: random.Random, size: Size, number: int, killer: str) -> Planned:
    vehicle = chance.randrange(size.vehicles)
    kind = "x" if killer else _weighed(chance, SOURCES)
    at = number * size.seconds / size.events
    return Planned(
        id=f"e{number}",
        at=at,
        vehicle=f"V{vehicle:04}",
        source=_source(chance, kind, vehicle, size.partitions),
        do=killer or _do(chance, kind),
        also=chance.choice(["mqtt", "http"]) if chance.random() < 0.1 and kind != "raw" else "",
        times=2 if chance.random() < REPEATED and kind in {"k", "x", "mqtt"} and not killer else 1,
        ts=1_700_000_000_000 + int((at + chance.gauss(0, 20)) * 1000),
    )


def _source(chance: random.Random, kind: str, vehicle: int, partitions: int) -> str:
    if kind not in {"k", "x"}:
        return kind
    return f"{kind}{(vehicle + (chance.random() < STRAY)) % partitions}"


def _do(chance: random.Random, kind: str) -> str:
    """A caller who waits tries again himself, so that attempts mean nothing; without state, nothing is kept of them."""
    do = _weighed(chance, COMMON | RARE)
    if kind == "http" and do not in {"ok", "slow", "reject", "bad"}:
        return "ok"
    return "ok" if kind == "raw" and do != "slow" else do


def _weighed(chance: random.Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


def write(events: list[Planned], file: Path) -> None:
    with file.open("w") as out:
        out.writelines(json.dumps(asdict(event)) + "\n" for event in events)


def topic_of(source: str) -> str | None:
    """None: it does not come through Kafka."""
    return TOPICS.get(source[0])
