"""What a run left behind, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]
"""Of a JSON Lines file."""


@dataclass(frozen=True, slots=True)
class Record:
    """Of a Kafka topic. `id`: its CloudEvents id, if it has one."""

    topic: str
    partition: int
    offset: int
    key: str
    id: str | None
    value: bytes
    time: float = 0.0
    """Unix seconds, by the broker."""

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    function: str
    trigger: str
    key: str | None
    reason: str
    attempts: int
    data: bytes
    created: float = 0.0
    """Unix seconds: when the inbox had its event first."""


@dataclass(frozen=True, slots=True)
class Offset:
    group: str
    topic: str
    partition: int
    committed: int
    end: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Of Mosquitto, which acknowledges before it saves. Unix seconds."""

    saved: float
    killed: float


@dataclass
class Evidence:
    plan: dict[str, Line]
    """By event id; see soak/plan.py."""
    attempts: dict[str, int]
    """Trigger -> after how many an event that fails each time is given up."""
    log: dict[str, list[Record]] = field(default_factory=dict)
    """By topic, each partition in its order."""
    sent_kafka: list[Line] = field(default_factory=list)
    sent_mqtt: list[Line] = field(default_factory=list)
    answers: list[Line] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    """What Mosquitto acknowledged, or heard to be acknowledged, between `saved` and `killed` it has forgotten."""
    out_mqtt: list[Line] = field(default_factory=list)
    out_http: list[Line] = field(default_factory=list)
    chains: dict[str, Any] = field(default_factory=dict)
    """Vehicle -> state of `chains`."""
    audit: dict[str, Any] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Rows of the inbox that are neither done nor dead, in words."""
    unsent: list[str] = field(default_factory=list)
    """Records that hold emits not known to be sent, in words."""
    offsets: list[Offset] = field(default_factory=list)
