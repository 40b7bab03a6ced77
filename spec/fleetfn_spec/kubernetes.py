"""The kubernetes target of environments.yaml: which cluster, and what pods of functions are given there."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret
from msgspec import Meta

from fleetfn_spec.durations import Duration, between

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?"

Namespace = Annotated[
    str,
    Meta(
        pattern=f"^{_LABEL}$",
        extra={"form": "lower-case letters, digits and '-', at most 63"},
    ),
]

_ObjectName = Annotated[
    str,
    Meta(
        pattern=rf"^{_LABEL}(\.{_LABEL})*$",
        extra={"form": "lower-case letters, digits, '-' and '.'"},
    ),
]

Cpu = Annotated[
    str, Meta(pattern=_QUANTITY + "m?$", extra={"form": 'cores, or thousandths with m, in quotes, e.g. 250m or "2"'})
]

Memory = Annotated[
    str, Meta(pattern=_QUANTITY + "([kMGT]|[KMGT]i)?$", extra={"form": "bytes, e.g. 256Mi, 1Gi or 500M"})
]

_UNITS = {"": 1, **{f"{letter}i": 1024**n for n, letter in enumerate("KMGT", 1)}}
_UNITS |= {letter: 1000**n for n, letter in enumerate("kMGT", 1)}


def in_bytes(memory: str) -> int:
    """`10Gi` -> 10737418240: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
    number = memory.rstrip("kKMGTi")
    return int(float(number) * _UNITS[memory[len(number) :]])


_Image = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$",
        extra={"form": "an image, e.g. harbor.example/tools/daprd:1.14.4"},
    ),
]

_Key = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        extra={"form": "a label's key, e.g. topology.kubernetes.io/zone"},
    ),
]


class Amounts(Strict, frozen=True):
    """Amounts of what a container uses."""

    cpu: Annotated[Cpu, Meta(description="Processor time.", examples=["250m"])] | None = None
    memory: Annotated[Memory, Meta(description="Memory.", examples=["256Mi"])] | None = None


class Resources(Strict, frozen=True):
    """What a container is promised, and what it may take at most, as Kubernetes counts it."""

    requests: Annotated[Amounts, Meta(description="What is kept free for it.", examples=[{"memory": "128Mi"}])] = (
        Amounts()
    )
    limits: Annotated[
        Amounts,
        Meta(
            description="What it may take at most. A limit of `cpu` also slows its start.",
            examples=[{"memory": "512Mi"}],
        ),
    ] = Amounts()

    def over(self, below: Resources) -> Resources:
        """These, and those below where nothing is said here."""

        def amounts(mine: Amounts, theirs: Amounts) -> Amounts:
            return Amounts(cpu=mine.cpu or theirs.cpu, memory=mine.memory or theirs.memory)

        return Resources(requests=amounts(self.requests, below.requests), limits=amounts(self.limits, below.limits))


def _resources(cpu: str, memory: str, most: str) -> Resources:
    return Resources(requests=Amounts(cpu=cpu, memory=memory), limits=Amounts(memory=most))


WORKER = _resources("100m", "128Mi", "512Mi")
GATEWAY = _resources("100m", "128Mi", "1Gi")
SIDECAR = _resources("50m", "96Mi", "384Mi")
"""What is taken where nothing is said."""


class Toleration(Strict, frozen=True):
    """A taint of nodes that does not keep pods away."""

    key: Annotated[_Key, Meta(description="The taint's key. Absent: any.", examples=["dedicated"])] | None = None
    operator: Annotated[
        Literal["Equal", "Exists"],
        Meta(description="The taint has `value`, or any.", examples=["Exists"]),
    ] = "Equal"
    value: Annotated[str, Meta(description="The taint's value.", examples=["fleet"])] | None = None
    effect: (
        Annotated[
            Literal["NoSchedule", "PreferNoSchedule", "NoExecute"],
            Meta(description="The taint's effect. Absent: any.", examples=["NoSchedule"]),
        ]
        | None
    ) = None
    tolerationSeconds: (  # noqa: N815 - Kubernetes' word
        Annotated[
            int,
            Meta(description="Seconds that a pod stays where `NoExecute` came up.", examples=[300], ge=0, le=2**31),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        if self.key is None and self.operator == "Equal":
            raise ValueError("a toleration without key needs operator: Exists")


class Egress(Strict, frozen=True):
    """Where functions' pods may connect to: addresses (`cidr`) or a namespace's pods."""

    cidr: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$",
                description="Addresses outside of the cluster.",
                examples=["10.20.0.0/16"],
                extra={"form": "addresses as CIDR, e.g. 10.20.0.0/16"},
            ),
        ]
        | None
    ) = None
    namespace: Annotated[Namespace, Meta(description="All pods of a namespace.", examples=["kafka"])] | None = None
    ports: Annotated[
        list[Annotated[int, Meta(ge=1, le=65535)]],
        Meta(description="TCP ports, those of the pods themselves. Absent: all.", examples=[[9092, 9093]]),
    ] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.cidr is None) == (self.namespace is None):
            raise ValueError("give it exactly one of cidr, namespace")
        if self.cidr is not None:
            ipaddress.ip_network(self.cidr)


class GatewayPlace(Strict, frozen=True):
    """The namespace's gateway."""

    storage: Annotated[
        Memory, Meta(description="Size of its volume: what waits, and dead letters.", examples=["50Gi"])
    ] = "10Gi"
    storageClass: (  # noqa: N815 - Kubernetes' word
        Annotated[
            _ObjectName,
            Meta(
                description="Class of its volume; what it keeps must outlive a node. Absent: the cluster's default.",
                examples=["ssd"],
            ),
        ]
        | None
    ) = None
    resources: Annotated[Resources, Meta(description="What its container gets. Absent: 100m, 128Mi to 1Gi.")] = (
        Resources()
    )


class Keda(Strict, frozen=True):
    """KEDA, which scales functions."""

    namespace: Annotated[
        Namespace, Meta(description="Where its operator runs: it may ask the gateway.", examples=["keda"])
    ] = "keda"
    polling: Annotated[
        Duration,
        Meta(
            description="How often Kafka is asked whether a sleeping function has something to do; whole seconds. All "
            "else is pushed at once.",
            examples=["1s"],
            extra={"check": between("1s", "1h"), "range": "1s to 1h"},
        ),
    ] = "5s"


class Dapr(Strict, frozen=True):
    """Dapr's sidecars, in pods of functions that keep state or have outputs of kind dapr."""

    image: Annotated[
        _Image,
        Meta(
            description="Of sidecars whose components are in this file; Dapr's injector takes its own.",
            examples=["harbor.example/tools/daprd:1.14.4"],
        ),
    ] = "daprio/daprd:1.14.4"
    namespace: Annotated[
        Namespace, Meta(description="Where Dapr's control plane runs, for its injector.", examples=["dapr-system"])
    ] = "dapr-system"
    resources: Annotated[Resources, Meta(description="What a sidecar gets. Absent: 50m, 96Mi to 384Mi.")] = Resources()


class AddOn(Strict, frozen=True):
    """KEDA's http-add-on: requests come through its proxy, which wakes functions."""

    hosts: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="Hosts that its proxy knows a function by; `{function}` stands for its name. Absent: "
            "`{function}.` and the namespace.",
            examples=[["{function}.fleet.example"]],
        ),
    ] = msgspec.field(default_factory=list)
    scaler: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9.-]+:[0-9]{1,5}$",
            description="Address of its external scaler.",
            examples=["keda-add-ons-http-external-scaler.keda:9090"],
            extra={"form": "host:port"},
        ),
    ] = "keda-add-ons-http-external-scaler.keda:9090"


class KubernetesTarget(Strict, frozen=True):
    """A namespace of a Kubernetes cluster that has KEDA."""

    namespace: Annotated[
        Namespace,
        Meta(description="Where functions and their gateway live; it must be there.", examples=["alerts"]),
    ]
    registry: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$",
            description="Where images are pushed to and pulled from: a function's is `REGISTRY/NAME`.",
            examples=["harbor.example/alerts"],
            extra={"form": "host, or host:port, and perhaps a path, e.g. harbor.example/alerts"},
        ),
    ]
    insecure: Annotated[
        bool,
        Meta(
            description="The registry speaks plain HTTP, or its certificate is signed by nobody; the cluster's nodes "
            "have to be told by themselves.",
            examples=[True],
        ),
    ] = False
    context: (
        Annotated[
            str,
            Meta(
                description="Context of the kubeconfig. Absent: the current one.",
                examples=["fleet-prod"],
                min_length=1,
            ),
        ]
        | None
    ) = None
    base: (
        Annotated[
            _Image,
            Meta(
                description="Image that functions' images are built on. Absent: as `fn build` has it.",
                examples=["harbor.example/base/python:3.12"],
            ),
        ]
        | None
    ) = None
    imagePullSecrets: Annotated[  # noqa: N815 - Kubernetes' word
        list[_ObjectName],
        Meta(description="Secrets by which nodes pull images.", examples=[["harbor"]]),
    ] = msgspec.field(default_factory=list)
    resources: Annotated[
        Resources,
        Meta(
            description="What a worker gets where its function says nothing. Absent: 100m, 128Mi to 512Mi.",
            examples=[{"limits": {"memory": "1Gi"}}],
        ),
    ] = Resources()
    nodeSelector: Annotated[  # noqa: N815 - Kubernetes' word
        dict[str, str], Meta(description="Labels of the nodes that pods run on.", examples=[{"pool": "functions"}])
    ] = msgspec.field(default_factory=dict)
    tolerations: Annotated[
        list[Toleration],
        Meta(
            description="Taints that do not keep pods away.",
            examples=[[{"key": "dedicated", "value": "functions", "effect": "NoSchedule"}]],
        ),
    ] = msgspec.field(default_factory=list)
    zoneSpread: Annotated[  # noqa: N815 - in the manner of its neighbours
        bool | _Key,
        Meta(
            description="Workers of a function with `max` above 1 are spread over zones where that can be had; text: "
            "the label of nodes to spread over.",
            examples=["kubernetes.io/hostname"],
        ),
    ] = True
    runtimeClassName: (  # noqa: N815 - Kubernetes' word
        Annotated[_ObjectName, Meta(description="Runtime of functions' pods.", examples=["kata"])] | None
    ) = None
    env: Annotated[
        dict[str, str | Secret],
        Meta(
            description="What `{env: NAME}` of a function stands for here, as variables of its workers. Text is given "
            "to all functions, secrets to those that name them.",
            examples=[{"MAP_TOKEN": {"secret": "maps/token"}}],
        ),
    ] = msgspec.field(default_factory=dict)
    egress: (
        Annotated[
            list[Egress],
            Meta(
                description="Where functions may connect to, beside DNS, their gateway, and what connections name by "
                "address or as a Service. Absent: all addresses, at the ports of connections and http outputs that "
                "name hosts outside of the cluster. `[]`: nowhere else.",
                examples=[[{"cidr": "10.20.0.0/16", "ports": [9092]}]],
            ),
        ]
        | None
    ) = None
    gateway: Annotated[
        GatewayPlace, Meta(description="The gateway, made with the first function.", examples=[{"storage": "50Gi"}])
    ] = GatewayPlace()
    keda: Annotated[Keda, Meta(description="KEDA: how it is found, and how often it looks.")] = Keda()
    dapr: Annotated[Dapr, Meta(description="Dapr's sidecars.")] = Dapr()
    addOn: (  # noqa: N815 - in the manner of its neighbours
        Annotated[
            AddOn,
            Meta(
                description="Present: HTTP requests wake functions by KEDA's http-add-on instead of the gateway.",
                examples=[{"hosts": ["{function}.fleet.example"]}],
            ),
        ]
        | None
    ) = None
