"""A component of Dapr, as its own files describe one: for sidecars that are given their components."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret

ComponentType = Annotated[
    str,
    Meta(
        pattern=r"^[a-z]+(\.[a-z0-9-]+)+$",
        description="Its type, as Dapr names it.",
        examples=["state.redis"],
        extra={"form": "a type of Dapr's components, e.g. state.redis"},
    ),
]

ComponentVersion = Annotated[
    str,
    Meta(
        pattern=r"^v[0-9]+([a-z0-9]+)?$",
        description="The type's version.",
        examples=["v2"],
        extra={"form": "v1, v2 ..."},
    ),
]


class Metadata(Strict, frozen=True):
    """A field of a component."""

    name: Annotated[str, Meta(description="The field.", examples=["redisHost"], min_length=1)]
    value: Annotated[
        str | int | float | bool | Secret,
        Meta(description="Its value; secrets by reference.", examples=["redis.stores.svc:6379"]),
    ]

    @property
    def text(self) -> str | None:
        """As Dapr takes it; None: it is a secret."""
        match self.value:
            case Secret():
                return None
            case bool():
                return str(self.value).lower()
            case _:
                return str(self.value)


Fields = Annotated[
    list[Metadata],
    Meta(
        description="Its fields, as Dapr documents them for the type.",
        examples=[[{"name": "redisPassword", "value": {"secret": "redis/password"}}]],
    ),
]


class Component(Strict, frozen=True):
    """A component of Dapr: a pub/sub, or an output binding."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            description="What outputs call it.",
            examples=["fleet-pubsub"],
            extra={"form": "letters, digits, '.', '_' and '-', beginning with a letter or digit"},
        ),
    ]
    type: ComponentType
    version: ComponentVersion = "v1"
    metadata: Fields = msgspec.field(default_factory=list)
