"""function.yaml as values. Loading and its problems: load.py; rules across fields: check.py."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from fleetfn_triggers import kinds
from fleetfn_triggers.cron import Cron
from fleetfn_triggers.dapr_output import DaprOutput
from fleetfn_triggers.fields import CALLABLE, CALLABLE_FORM, NAME, NAME_FORM, Strict
from fleetfn_triggers.http import Http
from fleetfn_triggers.http_output import HttpOutput
from fleetfn_triggers.kafka import Kafka, KafkaOutput
from fleetfn_triggers.mqtt import Mqtt, MqttOutput
from fleetfn_triggers.trigger import EventFields, Kind
from msgspec import UNSET, Meta, UnsetType

from fleetfn_spec.durations import Duration, between, seconds
from fleetfn_spec.kubernetes import Resources

Name = Annotated[str, Meta(pattern=NAME, extra={"form": NAME_FORM})]

Handler = Annotated[str, Meta(pattern=CALLABLE, extra={"form": CALLABLE_FORM})]

ConnectionName = Annotated[
    Name,
    Meta(description="Connection of the environment. Absent: the one named like the kind.", examples=["plant-kafka"]),
]


def _range(least: str, most: str) -> dict[str, Any]:
    return {"check": between(least, most), "range": f"{least} to {most}"}


Timeout = Annotated[Duration, Meta(extra=_range("10ms", "24h"))]
_Delay = Annotated[Duration, Meta(extra=_range("1ms", "24h"))]


class RetryPolicy(Strict, frozen=True):
    """How often an event is tried, and how long to wait between: `initial`, times `factor` each time, up to `max`,
    each with jitter. After the last attempt the event becomes a dead letter.
    """

    attempts: Annotated[
        int,
        Meta(description="Runs of the handler in all, the first included.", examples=[3], ge=1, le=100),
    ] = 5
    initial: Annotated[_Delay, Meta(description="Wait before the second attempt.", examples=["500ms"])] = "1s"
    factor: Annotated[
        float, Meta(description="Each wait is the one before times this.", examples=[1.5], ge=1, le=10)
    ] = 2.0
    max: Annotated[_Delay, Meta(description="No wait is longer.", examples=["5m"])] = "60s"


class BatchPolicy(Strict, frozen=True):
    """How events are gathered for a handler that takes a `Batch[T]`."""

    size: Annotated[int, Meta(description="Events of a batch at most.", examples=[500], ge=1, le=10_000)] = 100
    wait: Annotated[
        Duration,
        Meta(
            description="A batch that is not full begins once its first event has waited this long. `0s`: with what is "
            "there.",
            examples=["1s"],
            extra=_range("0s", "10m"),
        ),
    ] = "100ms"
    by: Annotated[
        Literal["any", "key"],
        Meta(
            description="`any`: a batch has events of any keys. `key`: of one key, in their order; handlers with state "
            "need it.",
            examples=["key"],
        ),
    ] = "any"


class Trigger(Strict, frozen=True):
    """A reason to run. Exactly one kind's block (`http`, `kafka`, `mqtt`, `cron`) says which."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "onDeadLetter": "onDeadLetter is the function's: write it below spec",
    }

    name: Annotated[
        Name,
        Meta(
            description="Names the trigger in commands, logs and the consumer group; unique in the function. A Kafka "
            "trigger that is renamed begins anew.",
            examples=["telemetry"],
        ),
    ]
    handler: (
        Annotated[
            Handler,
            Meta(description="Another handler than the function's own for this trigger.", examples=["handler:show"]),
        ]
        | None
    ) = None
    key: Annotated[
        str | None | UnsetType,
        Meta(
            description="Expression for what an event is about: order and state are per key. `data.<path>` in the "
            "JSON payload, `subject`, `source`, `partitionkey`, `kafka.key`, `topic.<name>`, "
            "`path.<name>`, `header.<name>`. `null`: events have no key. Absent: `kafka.key` for kafka, one key for "
            "all fires of a cron trigger (leave it so), no key for the others. An event whose key is missing is "
            "rejected.",
            examples=["data.vehicle"],
        ),
    ] = UNSET
    event: Annotated[
        EventFields, Meta(description="Where a payload that is no CloudEvent carries its own id and time.")
    ] = EventFields()
    decode: (
        Annotated[
            Handler,
            Meta(
                description="Callable that turns foreign bytes into data that JSON knows (or into bytes of JSON), "
                "in the worker. `key` must then come from elsewhere than `data`.",
                examples=["frames:decode"],
            ),
        ]
        | None
    ) = None
    returns: Annotated[
        str | None | UnsetType,
        Meta(
            description="Output that gets the handler's return value; `null`: none, even where the function names one. "
            "Absent: as the function says.",
            examples=["alerts"],
        ),
    ] = UNSET
    connection: ConnectionName | None = None
    retry: (
        Annotated[
            RetryPolicy,
            Meta(
                description="Instead of the function's `retry`, as a whole. Of http it is for requests that prefer "
                "`respond-async`; a caller who waits decides himself."
            ),
        ]
        | None
    ) = None
    timeout: Annotated[Timeout, Meta(description="Instead of the function's `timeout`.", examples=["5s"])] | None = None
    batch: (
        Annotated[
            BatchPolicy,
            Meta(
                description="How large a `Batch[T]` is, for a handler that takes one; of kafka and mqtt. Absent: as "
                "the defaults below say.",
                examples=[{"size": 500, "wait": "1s"}],
            ),
        ]
        | None
    ) = None
    http: Annotated[Http, Meta(description="An HTTP trigger.")] | None = None
    kafka: Annotated[Kafka, Meta(description="A Kafka trigger.")] | None = None
    mqtt: Annotated[Mqtt, Meta(description="An MQTT trigger.")] | None = None
    cron: Annotated[Cron, Meta(description="A clock.")] | None = None

    @property
    def kind(self) -> Kind:
        """The kind whose block is there."""
        return next(kind for name, kind in kinds.KINDS.items() if getattr(self, name) is not None)

    @property
    def block(self) -> Any:
        """The kind's own fields: Http, Kafka, Mqtt or Cron."""
        return getattr(self, self.kind.name)

    @property
    def key_expression(self) -> str | None:
        """`key`, or the kind's natural one where it is absent."""
        return self.kind.natural_key if isinstance(self.key, UnsetType) else self.key


class Output(Strict, frozen=True):
    """A place for what a handler returns or emits. Exactly one kind's block (`kafka`, `mqtt`, `http`, `dapr`) says
    which.
    """

    name: Annotated[
        Name,
        Meta(description="What `returns` and `ctx.emit` call it; unique in the function.", examples=["alerts"]),
    ]
    connection: ConnectionName | None = None
    kafka: Annotated[KafkaOutput, Meta(description="Write to a Kafka topic.")] | None = None
    mqtt: Annotated[MqttOutput, Meta(description="Publish to an MQTT topic.")] | None = None
    http: Annotated[HttpOutput, Meta(description="Send to a URL.")] | None = None
    dapr: Annotated[DaprOutput, Meta(description="Hand to a component of a Dapr sidecar.")] | None = None


OUTPUT_KINDS = ("kafka", "mqtt", "http", "dapr")


class Breaker(Strict, frozen=True):
    """When runs of many keys fail alike, something they all need is down: their trigger is paused and probed, and no
    event loses an attempt by it.
    """

    keys: Annotated[
        int, Meta(description="Different keys that must fail alike within `window`.", examples=[20], ge=2, le=10_000)
    ] = 5
    window: Annotated[
        Duration,
        Meta(
            description="How long failures are counted; a last failure waits as long before it dead-letters.",
            examples=["10s"],
            extra=_range("100ms", "10m"),
        ),
    ] = "5s"


class StatePolicy(Strict, frozen=True):
    """How long the state of a key is kept."""

    ttl: (
        Annotated[
            Duration,
            Meta(
                description="A key's state is gone this long after it was last saved. Absent: it is kept.",
                examples=["90d"],
                extra=_range("1s", "36500d"),
            ),
        ]
        | None
    ) = None


class Scale(Strict, frozen=True):
    """When workers come and go, and how much one does at a time."""

    min: Annotated[
        int,
        Meta(description="Workers that are kept while there is nothing to do. 0: sleep.", examples=[1], ge=0, le=64),
    ] = 0
    max: Annotated[
        int,
        Meta(
            description="Workers at most; more than one are started while more waits than one handles.",
            examples=[4],
            ge=1,
            le=64,
        ),
    ] = 1
    idle: Annotated[
        Duration,
        Meta(
            description="A worker that has had nothing to do for this long goes to sleep.",
            examples=["10s"],
            extra=_range("1s", "24h"),
        ),
    ] = "30s"
    concurrency: Annotated[
        int,
        Meta(
            description="Keys that one worker handles at the same time. 64 keeps a waiting handler's clients busy "
            "without flooding them.",
            examples=[8],
            ge=1,
            le=10_000,
        ),
    ] = 64
    warm: Annotated[
        Literal["runtime", "imports"],
        Meta(
            description="What is loaded before an event comes: the worker's own code, or the handler's imports too (in "
            "a parent process of the function's own: memory for a shorter cold start).",
            examples=["imports"],
        ),
    ] = "runtime"


class Spec(Strict, frozen=True):
    """What the function runs, when, and where results go."""

    handler: Annotated[
        Handler,
        Meta(description="What runs: `module:callable`, a file in the function's folder.", examples=["handler:watch"]),
    ]
    triggers: Annotated[
        list[
            Annotated[
                Trigger,
                Meta(extra_json_schema={"oneOf": [{"required": [name]} for name in kinds.KINDS]}),
            ]
        ],
        Meta(
            description="Reasons to run.",
            min_length=1,
            examples=[[{"name": "telemetry", "kafka": {"topic": "vehicle.telemetry"}}]],
        ),
    ]
    lifespan: (
        Annotated[
            Handler,
            Meta(
                description="Generator or context manager, run in the worker before it is ready: opens clients, loads "
                "models. What it yields is `ctx.resources`.",
                examples=["handler:resources"],
            ),
        ]
        | None
    ) = None
    config: Annotated[
        dict[str, Any],
        Meta(
            description="Values for the handler's `Config[T]`, checked against T when the function is deployed. "
            "`{env: NAME}` and `{file: path}`, at any depth, are replaced by the process that runs the handler.",
            examples=[{"hot": 60, "token": {"env": "MAP_TOKEN"}}],
        ),
    ] = msgspec.field(default_factory=dict)
    outputs: Annotated[
        list[Annotated[Output, Meta(extra_json_schema={"oneOf": [{"required": [name]} for name in OUTPUT_KINDS]})]],
        Meta(description="Places for what handlers return or emit."),
    ] = msgspec.field(default_factory=list)
    returns: (
        Annotated[
            str,
            Meta(description="Output that gets the handlers' return values. Absent: none.", examples=["alerts"]),
        ]
        | None
    ) = None
    state: Annotated[StatePolicy, Meta(description="How long state is kept.")] = StatePolicy()
    scale: Annotated[Scale, Meta(description="When workers come and go.")] = Scale()
    retry: Annotated[
        RetryPolicy, Meta(description="How failed events are tried again; a trigger may have its own.")
    ] = RetryPolicy()
    onDeadLetter: Annotated[  # noqa: N815 - the YAML's word
        Literal["continue", "park"],
        Meta(
            description="After a dead letter the key's later events of that trigger go on, or are held until somebody "
            "redrives or discards the letter.",
            examples=["park"],
        ),
    ] = "continue"
    breaker: (
        Annotated[
            Breaker,
            Meta(description="When an outage is assumed; `null`: never.", examples=[{"keys": 20}], extra={"off": True}),
        ]
        | None
    ) = Breaker()
    resources: Annotated[
        Resources,
        Meta(
            description="What each worker gets in a cluster; what is absent, the environment says. On a node workers "
            "share their machine, and this is not looked at.",
            examples=[{"limits": {"memory": "1Gi"}}],
        ),
    ] = Resources()
    timeout: Annotated[
        Timeout,
        Meta(
            description="A run that takes longer has failed: it is tried again, and an HTTP caller gets 504.",
            examples=["5s"],
        ),
    ] = "30s"

    def handler_of(self, trigger: Trigger) -> str:
        return trigger.handler or self.handler

    def returns_of(self, trigger: Trigger) -> str | None:
        """The output for what the trigger's handler returns; None: none."""
        return self.returns if isinstance(trigger.returns, UnsetType) else trigger.returns

    def retry_of(self, trigger: Trigger) -> RetryPolicy:
        return trigger.retry or self.retry

    def timeout_of(self, trigger: Trigger) -> float:
        """Seconds."""
        return seconds(trigger.timeout or self.timeout)


class Metadata(Strict, frozen=True):
    """What the function is called."""

    NOT_BUILT: ClassVar[dict[str, str]] = {"namespace": "a namespace belongs to an environment's target"}

    name: Annotated[
        Name,
        Meta(description="Names the function everywhere; unique on a node.", examples=["battery-alert"]),
    ]
    labels: Annotated[
        dict[str, str], Meta(description="Your own notes: team, owner.", examples=[{"team": "battery"}])
    ] = msgspec.field(default_factory=dict)


class Function(Strict, frozen=True):
    """A function: what runs, when, and where its results go."""

    apiVersion: Annotated[  # noqa: N815 - the YAML's word
        Literal["fleetfn.dev/v1alpha1"],
        Meta(description="Version of this format.", examples=["fleetfn.dev/v1alpha1"]),
    ]
    kind: Annotated[Literal["Function"], Meta(description="What the file describes.", examples=["Function"])]
    metadata: Annotated[Metadata, Meta(description="Name and labels.", examples=[{"name": "battery-alert"}])]
    spec: Annotated[Spec, Meta(description="What runs, and when.")]

    @property
    def name(self) -> str:
        return self.metadata.name
