"""environments.yaml as values: places, connections, secrets by reference. Client-side only."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from fleetfn_triggers.dapr_component import ComponentType, ComponentVersion, Fields
from fleetfn_triggers.dapr_connection import DaprConnection
from fleetfn_triggers.dapr_output import Component
from fleetfn_triggers.fields import NAME, NAME_FORM, Strict
from fleetfn_triggers.kafka import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection
from msgspec import Meta

from fleetfn_spec.kubernetes import KubernetesTarget

Name = Annotated[str, Meta(pattern=NAME, extra={"form": NAME_FORM})]


class NodeTarget(Strict, frozen=True):
    """A node: one machine."""

    name: Annotated[
        Name,
        Meta(description="Which node of this machine, as `fn -n NAME` names it.", examples=["bench"]),
    ] = "default"


class Place(Strict, frozen=True):
    """Where functions live: exactly one of `node`, `kubernetes`."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "image": "the image target is not built yet; built: node, kubernetes",
    }

    node: Annotated[NodeTarget, Meta(description="A node of this machine; `{}`: the default one.")] | None = None
    kubernetes: (
        Annotated[
            KubernetesTarget,
            Meta(
                description="A namespace of a Kubernetes cluster.",
                examples=[{"namespace": "alerts", "registry": "harbor.example/alerts"}],
            ),
        ]
        | None
    ) = None


class Connection(Strict, frozen=True):
    """A named outside system. Exactly one kind's block (`kafka`, `mqtt`, `dapr`) says how to reach it."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "http": "http needs no connection: an output names its url itself",
    }

    name: Annotated[
        Name,
        Meta(
            description="What triggers and outputs call it. One that is named like its kind (`kafka`) is "
            "taken by all that name none.",
            examples=["kafka"],
        ),
    ]
    kafka: Annotated[KafkaConnection, Meta(description="A Kafka cluster.")] | None = None
    mqtt: Annotated[MqttConnection, Meta(description="An MQTT broker.")] | None = None
    dapr: Annotated[DaprConnection, Meta(description="A Dapr sidecar, for outputs.")] | None = None

    @property
    def kind(self) -> str:
        return next(kind for kind in CONNECTION_KINDS if getattr(self, kind) is not None)


CONNECTION_KINDS = ("kafka", "mqtt", "dapr")


class DaprState(Strict, frozen=True):
    """A state store component of Dapr. With `type` each function's sidecar is given the component as it stands here,
    and keeps keys apart by namespace and function; without, the cluster's own component is meant, and Dapr's injector
    gives pods their sidecar.
    """

    component: Annotated[
        Component,
        Meta(
            description="Name of the component. It must keep etags, as redis and postgresql do.", examples=["vehicles"]
        ),
    ]
    type: ComponentType | None = None
    version: ComponentVersion = "v1"
    metadata: Fields = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.type is None and (self.metadata or self.version != "v1"):
            raise ValueError("version and metadata need a type: without one the component is the cluster's own")


class StatePlace(Strict, frozen=True):
    """Where functions keep their state."""

    dapr: Annotated[DaprState, Meta(description="In a state store of Dapr, through each function's own sidecar.")]


class Environment(Strict, frozen=True):
    """A place for functions, and what they reach from there."""

    name: Annotated[
        Name,
        Meta(description="What `fn deploy --env NAME` calls it; part of Kafka group ids.", examples=["bench"]),
    ]
    target: Annotated[Place, Meta(description="Where functions live.", examples=[{"node": {}}])] = Place(
        node=NodeTarget()
    )
    connections: Annotated[
        list[
            Annotated[
                Connection, Meta(extra_json_schema={"oneOf": [{"required": [kind]} for kind in CONNECTION_KINDS]})
            ]
        ],
        Meta(
            description="Outside systems by name.",
            examples=[[{"name": "kafka", "kafka": {"brokers": ["kafka-0:9092"]}}]],
        ),
    ] = msgspec.field(default_factory=list)
    state: (
        Annotated[
            StatePlace,
            Meta(
                description="Where functions keep their state. Absent: in the node's own files.",
                examples=[{"dapr": {"component": "vehicles"}}],
            ),
        ]
        | None
    ) = None

    def connection(self, name: str) -> Connection | None:
        return next((connection for connection in self.connections if connection.name == name), None)


class Environments(Strict, frozen=True):
    """Places that functions are deployed to."""

    apiVersion: Annotated[  # noqa: N815 - the YAML's word
        Literal["fleetfn.dev/v1alpha1"],
        Meta(description="Version of this format.", examples=["fleetfn.dev/v1alpha1"]),
    ]
    kind: Annotated[Literal["Environments"], Meta(description="What the file describes.", examples=["Environments"])]
    environments: Annotated[
        list[Environment], Meta(description="The environments.", min_length=1, examples=[[{"name": "local"}]])
    ]


LOCAL = Environment(name="local")
"""Where no environments.yaml is found: the node of this machine, embedded brokers."""
