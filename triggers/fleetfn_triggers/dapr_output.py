"""The dapr output: events go to a pub/sub component or a binding of a Dapr sidecar. Its fields, and what may not stand
in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from fleetfn_triggers.fields import Strict

_NAME = Meta(
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$",
    extra={"form": "letters, digits, '.', '_' and '-', beginning with a letter or digit"},
)

Component = Annotated[str, _NAME]
"""The name of a Dapr component."""


class DaprOutput(Strict, frozen=True):
    """Events go to a component of a Dapr sidecar: to a topic of a pub/sub component (`pubsub` and `topic`), as
    CloudEvents with their own ids; or to an output binding (`binding` and `operation`), which gets their data.
    """

    pubsub: Annotated[Component, Meta(description="Name of a pub/sub component.", examples=["fleet-pubsub"])] | None = (
        None
    )
    topic: (
        Annotated[
            str,
            Meta(description="Its topic. `{key}` stands for the event's key.", examples=["alerts"], min_length=1),
        ]
        | None
    ) = None
    binding: Annotated[Component, Meta(description="Name of an output binding.", examples=["alerts-bucket"])] | None = (
        None
    )
    operation: (
        Annotated[
            str, Meta(description="What the binding does with each event. Absent: `create`.", examples=["create"])
        ]
        | None
    ) = None
    metadata: Annotated[
        dict[str, str],
        Meta(
            description="The component's own fields for each event; `{key}` and `{id}` stand for the event's.",
            examples=[{"blobName": "{id}.json"}],
        ),
    ] = msgspec.field(default_factory=dict)
    timeout: Annotated[
        float, Meta(description="Seconds until a request has failed.", examples=[5], ge=0.01, le=300)
    ] = 10.0


def problems(output: DaprOutput) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(field, message, hint) of what the types do not say."""
    if (output.pubsub is None) == (output.binding is None):
        wrong = "names a pubsub and a binding" if output.pubsub is not None else "names neither pubsub nor binding"
        yield (), wrong, "write {pubsub: NAME, topic: TOPIC} or {binding: NAME, operation: create}"
    elif output.pubsub is not None:
        if output.topic is None:
            yield (), f'"{output.pubsub}" needs a topic', "write {pubsub: NAME, topic: TOPIC}"
        if output.operation is not None:
            yield ("operation",), "a pub/sub component has no operations", "leave it out"
    elif output.topic is not None:
        yield ("topic",), "a binding has no topic", "leave it out, or name it in metadata as the binding wants it"
    for name, value in output.metadata.items():
        if not name or not name.isascii() or not name.isprintable():
            yield ("metadata", name), f"{name!a} is no name of a field", "write it as the component's own page does"
        if not value.isprintable():
            yield ("metadata", name), "the value is not printable", "write one line of text"
