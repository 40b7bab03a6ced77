"""The control API's wire types: what `fn` and a node say to each other (JSON over HTTP on a user-only unix socket).

`API` is major.minor: majors must be equal, a newer minor only adds. Both sides send it as `fleetfn-api`.
Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function

API = "1.0"
API_HEADER = "fleetfn-api"

TAKEN = 3
"""Exit code of a node whose data folder another one holds: who started it may wait for that one."""

Phase = Literal["sleeping", "waking", "running", "draining", "paused", "backing-off", "failed"]


class Refusal(msgspec.Struct, frozen=True):
    """Every answer with status >= 400."""

    message: str
    hint: str = ""
    problems: list[str] = []
    """All of them, where a deploy is wrong in several places: `file:line: text`."""


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Sent as multipart-free frames: one JSON line of this, then the source as a gzipped tar; or `digest` alone."""

    function: Function
    environment: Environment
    digest: str | None = None
    dry_run: bool = False


class Change(msgspec.Struct, frozen=True):
    field: str
    old: Any = None
    new: Any = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    serving: str | None
    """Digest of the serving revision; None: first deploy."""
    changes: list[Change] = []
    notes: list[str] = []
    """What else becomes of things: events that wait for a trigger which is removed, say."""


class DeployLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deploy answers with JSON lines: steps while they happen, then exactly one of revision, plan or refusal."""

    step: str | None = None
    revision: RevisionInfo | None = None
    plan: Plan | None = None
    refusal: Refusal | None = None


class RevisionInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    number: int
    created: float
    serving: bool
    environment: str
    urls: list[str] = []


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a node, or a pod of a cluster."""

    pid: int
    """0 where it is a pod."""
    name: str = ""
    """Of the pod."""
    revision: str
    started: float
    ready: bool
    in_flight: int = 0
    rss: int = 0
    restarts: int = 0
    """Of the pod's containers."""
    problem: str = ""
    """What keeps the pod from getting ready."""


class TriggerStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    where: str
    """`POST http://127.0.0.1:8080/battery/{vehicle}`, `kafka topic vehicle.telemetry (embedded)`."""
    paused: bool = False
    backlog: int | None = None
    """Messages at its source that nobody has taken yet."""
    waiting: int = 0
    """Events in the inbox that are to be run, those due later and those held included; for http: requests that wait
    for a worker, too.
    """
    held: int = 0
    """Keys whose events wait for a later retry, or behind a dead letter."""
    parked: int = 0
    """Of these, behind a dead letter: until somebody redrives or discards it."""
    in_flight: int = 0
    """Of those in the inbox: with a worker now."""
    dead: int = 0
    oldest: float | None = None
    """Since when the oldest waiting event is in the inbox."""
    next_due: float | None = None
    """When the next of those that wait for later may run."""
    next_fire: float | None = None
    last_fire: float | None = None
    problem: str = ""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Since the function's first deploy, of workers past and present."""

    done: int = 0
    retried: int = 0
    rejected: int = 0
    dead: int = 0
    emitted: int = 0
    cold_starts: int = 0


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    phase: Phase
    reason: str
    """One sentence: why it is in this phase, and what would change it."""
    revision: RevisionInfo
    triggers: list[TriggerStatus]
    workers: list[WorkerInfo] = []
    counters: Counters | None = None
    """None: a cluster's gateway, which sums them up, is away."""
    dead_letters: int = 0
    last_error: str = ""
    last_error_time: float | None = None
    last_activation: float | None = None
    cold_start: float | None = None
    """Seconds from activation to ready, the last time."""
    problems: list[str] = []
    """What is wrong with the gateway, and what waits for triggers that it no longer has: for people."""


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api: str
    pid: int
    data: str
    log: str
    url: str
    started: float
    embedded_kafka: str | None = None
    """Its bootstrap address: demo and development only."""
    embedded_mqtt: str | None = None
    """Its host:port: demo and development only."""
    gateway: str = ""
    """What is wrong with the gateway, for people; '' where nothing is."""


class InvokeRequest(msgspec.Struct, frozen=True, kw_only=True):
    trigger: str | None = None
    key: str | None = None
    event: dict[str, Any]
    """A structured CloudEvent; missing attributes are filled in. Of a cron trigger its `time` is the instant that the
    Tick tells; absent: now.
    """
    topic: str | None = None
    """MQTT triggers: as if it had come on this topic; None: the trigger's own, its key's level filled in."""


class InvokeReply(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Literal["done", "retry", "reject"]
    reply: Any = None
    emits: list[dict[str, Any]] = []
    reason: str = ""
    traceback: str = ""
    invocation: str = ""
    duration: float = 0.0


class StateEntry(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    value: Any = None
    exists: bool = True
    expires: float | None = None
    unsent: int = 0
    marks: dict[str, int] = {}


class StatePage(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[str]
    after: str | None = None


class SendItem(msgspec.Struct, frozen=True, kw_only=True):
    """One message for a trigger's source. `event` null or absent: a bare payload `data` (JSON) or `base64`."""

    key: str | None = None
    event: dict[str, Any] | None = None
    data: Any = None
    base64: str | None = None
    headers: dict[str, str] = {}
    topic: str | None = None
    """MQTT triggers: where to; None: the trigger's own topic, its key's level filled in."""


class SendLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Progress about once a second; the last line has `finished`."""

    sent: int = 0
    lag: int | None = None
    finished: bool = False
    reply: dict[str, Any] | None = None
    """HTTP triggers: status, headers, body of the last reply."""
    refusal: Refusal | None = None
