"""What manifests are made of: a function as it is to be in a namespace, and the namespace's gateway."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from fleetfn.errors import TargetError
from fleetfn_spec import check_kubernetes, secrets
from fleetfn_spec.cluster import Head
from fleetfn_spec.environments import CONNECTION_KINDS, Connection, Environment
from fleetfn_spec.function import Function, Output, Trigger
from fleetfn_spec.kubernetes import GatewayPlace, KubernetesTarget

SHOWN = 12
"""Digits of a revision in names and labels."""


@dataclass(frozen=True, slots=True)
class Deployable:
    """One revision of a function, for a namespace. `number`, `created` and `image` belong to the revision: one that is
    made to serve again keeps them, since its ConfigMap cannot be changed.
    """

    function: Function
    environment: Environment
    """Without `state` where no handler keeps any: its workers then need no sidecar for it."""
    namespace: str
    image: str
    """With its digest, as nodes pull it."""
    revision: str
    """64 hex digits: `digest` of image and environment."""
    number: int
    created: float
    """Unix seconds."""
    paused: tuple[str, ...] = ()
    """Triggers paused by hand."""
    apart: tuple[str, ...] = ()
    """Addresses of the cluster's API servers: pods are not let through to them, where that can be said."""

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def target(self) -> KubernetesTarget:
        return target_of(self.environment)

    @property
    def short(self) -> str:
        return self.revision[:SHOWN]

    @property
    def revision_name(self) -> str:
        """Of the revision's ConfigMap."""
        return f"{self.name}-r{self.short}"

    @property
    def serves_http(self) -> bool:
        return any(trigger.http is not None for trigger in self.function.spec.triggers)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that the function uses, in the order of the environment."""
        uses: list[Trigger | Output] = [*self.function.spec.triggers, *self.function.spec.outputs]
        used = {each.connection or kind for each in uses if (kind := _kind(each)) is not None}
        return tuple(each for each in self.environment.connections if each.name in used)

    def connection_of(self, used: Trigger | Output) -> Connection | None:
        kind = _kind(used)
        return self.environment.connection(used.connection or kind) if kind is not None else None

    @property
    def secrets(self) -> tuple[tuple[str, str], ...]:
        """(name, key) of the Secrets that its workers read, sorted."""
        found = [reference for each in self.connections for _, reference in secrets.in_struct(_worker_s(each))]
        found += [reference for _, reference in check_kubernetes.of_function(self.function)]
        return tuple(sorted({split(each.secret) for each in found if each.secret is not None}))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that `{env: NAME}` of the function has."""
        found = (reference.env for _, reference in check_kubernetes.of_function(self.function))
        return tuple(sorted({name for name in found if name is not None}))

    @property
    def needed(self) -> Environment:
        """The environment as far as the function needs it: what concerns others is no reason for a new revision."""
        named = self.variables
        env = {name: value for name, value in self.target.env.items() if isinstance(value, str) or name in named}
        target = msgspec.structs.replace(self.target, context=None, base=None, gateway=GatewayPlace(), env=env)
        place = msgspec.structs.replace(self.environment.target, kubernetes=target)
        return msgspec.structs.replace(self.environment, target=place, connections=list(self.connections))

    @property
    def head(self) -> Head:
        """What the gateway and `fn` are told."""
        mqtt = {
            connection.name: connection.mqtt
            for trigger in self.function.spec.triggers
            if trigger.mqtt is not None
            and (connection := self.connection_of(trigger)) is not None
            and connection.mqtt is not None
        }
        return Head(
            function=self.function,
            revision=self.revision,
            number=self.number,
            image=self.image,
            environment=self.environment.name,
            mqtt=mqtt,
            paused=self.paused,
            activates=self.target.addOn is None,
            created=self.created,
        )


@dataclass(frozen=True, slots=True)
class Installation:
    """The gateway of a namespace."""

    namespace: str
    gateway_image: str
    """With its digest."""
    target: KubernetesTarget
    """Of the environment by which it is made: its `gateway`, `keda`, node selectors, pull secrets."""


def target_of(environment: Environment) -> KubernetesTarget:
    """Raises TargetError."""
    if environment.target.kubernetes is None:
        raise TargetError(
            f'the environment "{environment.name}" is no cluster', hint="name one whose target is kubernetes"
        )
    return environment.target.kubernetes


def split(secret: str) -> tuple[str, str]:
    """`name/key` of a Kubernetes Secret."""
    name, _, key = secret.partition("/")
    return name, key


def digest(image: str, needed: Environment) -> str:
    """Names a revision: over the image's content and `Deployable.needed`, which are all that its pods are made of."""
    content = image.rpartition("@")[2]
    data = msgspec.json.encode([content, msgspec.to_builtins(needed)], order="sorted")
    return hashlib.sha256(data).hexdigest()


def _kind(used: Trigger | Output) -> str | None:
    return next((kind for kind in CONNECTION_KINDS if getattr(used, kind, None) is not None), None)


def _worker_s(connection: Connection) -> Connection:
    """Without what only the sidecar reads."""
    if connection.dapr is None:
        return connection
    return msgspec.structs.replace(connection, dapr=msgspec.structs.replace(connection.dapr, components=[]))
