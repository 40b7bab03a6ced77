"""The gateway's wire types: what a node (or a cluster's deploy), workers and a gateway say to each other.

The gateway serves HTTP on a unix socket of this user. With workers it speaks MessagePack, with its owner JSON:

    POST   /v1/put [Arrival] -> [int]     POST /v1/offer [Offer] -> [Answer]     POST /v1/bury [Letter] -> [int]
    POST   /v1/claim Claim -> Claimed     POST /v1/passed Passed -> 204          (types: fleetfn_triggers.inbox)
    GET    /v1/gateway -> GatewayStatus
    PUT    /v1/functions [GatewayFunction]            all there are: others end
    PUT    /v1/functions/{name} GatewayFunction
    DELETE /v1/functions/{name}?rows=keep|drop
    GET    /v1/functions/{name}/paused -> Triggers    those that are paused by hand
    POST   /v1/functions/{name}/ready Here -> Triggers      likewise, to a pod that takes work (fleetfn_spec.cluster)
    POST   /v1/functions/{name}/fire FireRequest -> Fired
    POST   /v1/functions/{name}/figures Figures -> 204      of a pod that ends (fleetfn_spec.cluster)
    GET    /v1/dlq?function=&trigger=&key=&reason=&before=&after=&limit= -> {"rows": [Row], "after": int | null}
    GET    /v1/dlq/{sequence} -> Row
    POST   /v1/dlq/redrive Redrive -> {"redriven": n}     POST /v1/dlq/discard Which -> {"discarded": n}
    GET    /metrics -> Prometheus text
    GET    /healthz -> 200 once it holds its data folder and serves

The gateway asks its owner (a node) on the owner's control socket:

    POST   /v1/functions/{name}/wake Wake -> Awake; 503 with Retry-After where there is no worker now

Every answer >= 400 is a `fleetfn_spec.control.Refusal`, in JSON. 507: the inbox takes no more (disk or quota).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from fleetfn_triggers.inbox import Which
from fleetfn_triggers.mqtt_connection import MqttConnection

from fleetfn_spec.control import Counters, Refusal
from fleetfn_spec.function import Function


class GatewayFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A function as the gateway has to know it."""

    function: Function
    revision: str
    """As shown to people."""
    environment: str
    place: str
    """Node id or namespace: part of MQTT client ids."""
    mqtt: dict[str, MqttConnection] = {}
    """Connections by name, addresses filled in (embedded broker included); secrets are still references."""
    source: Path
    """Folder that relative {file:} references start from."""
    paused: tuple[str, ...] = ()
    """Triggers that accept and do not deliver, by hand."""

    @property
    def name(self) -> str:
        return self.function.name


class Triggers(msgspec.Struct, frozen=True, kw_only=True):
    """Names of some of a function's."""

    triggers: tuple[str, ...] = ()


class TriggerRows(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger in the gateway."""

    waiting: int = 0
    """Rows to be delivered, those due later and those held included."""
    held: int = 0
    """Keys whose lane waits: for a later retry, or behind a dead letter."""
    parked: int = 0
    """Of these, behind a dead letter: until somebody redrives or discards it."""
    in_flight: int = 0
    dead: int = 0
    problem: str = ""
    """What is wrong now, for people: `mqtt broker 127.0.0.1:1883 refuses the connection since 12:00:03`."""
    oldest: float | None = None
    """Unix seconds: when the oldest waiting row came."""
    next_due: float | None = None
    next_fire: float | None = None
    last_fire: float | None = None


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, as it said last."""

    in_flight: int
    rss: int
    """Bytes."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Of a function's pods past and present. Times are Unix seconds."""

    counters: Counters
    last_error: str = ""
    last_error_time: float | None = None
    last_activation: float | None = None
    workers: dict[str, WorkerFigures] = {}
    """Of those there are, by pod."""


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    data: str
    bytes: int
    """Of the inbox on disk."""
    quota: int
    accepting: bool = True
    problem: str = ""
    """Why it takes no more, and what to do."""
    functions: dict[str, dict[str, TriggerRows]] = {}
    """By function, by trigger."""
    problems: dict[str, str] = {}
    """By function, for people: why what it was told of it last is not so, on a cluster."""
    sums: dict[str, Sums] = {}
    """By function, on a cluster."""


class SendRecord(msgspec.Struct, frozen=True, array_like=True):
    """A Kafka record that is about to be written."""

    key: str | None
    value: bytes | None
    """None: a tombstone."""
    headers: dict[str, str]


class SendRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker in a pod writes to the topic of a Kafka trigger of its own, for its gateway: POST /send, as
    MessagePack.
    """

    trigger: str
    records: list[SendRecord]
    lag: bool = False
    """Count what the function has not handled, too."""


class SendReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, once the broker has acknowledged all, or some were not taken."""

    written: int
    """Records that it has acknowledged."""
    lag: int | None = None
    """None: not asked for, or nobody can tell now."""
    refusal: Refusal | None = None


class FireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Fire a cron trigger by hand. `at`: the instant that the Tick tells (Unix seconds); None: now."""

    trigger: str
    at: float | None = None


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    sequence: int
    id: str
    at: float


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """`rate`: events a second at most; None: all at once. A dry run only counts."""

    which: Which
    rate: float | None = None
    dry_run: bool = False


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    function: str
    trigger: str
    stream: str
    offsets: dict[int, int]


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    """Something waits for this function. `waiting`: rows that could run now, by which the owner may scale."""

    waiting: int


class Awake(msgspec.Struct, frozen=True, kw_only=True):
    """Delivery sockets of the workers that take work now; at least one."""

    workers: list[str]
