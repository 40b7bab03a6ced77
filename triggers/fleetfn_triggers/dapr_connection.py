"""How to reach a Dapr sidecar, for outputs by its components."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fleetfn_triggers.dapr_component import Component
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret


class DaprConnection(Strict, frozen=True):
    """A Dapr sidecar. In a cluster each pod has its own: with `components` it is given those, without it has the
    cluster's own, by Dapr's injector.
    """

    url: (
        Annotated[
            str,
            Meta(
                pattern=r"^http://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$",
                description="Where the sidecar listens for HTTP. Absent: on this machine, at the port that the "
                "worker's environment variable DAPR_HTTP_PORT says.",
                examples=["http://127.0.0.1:3500"],
                extra={"form": "http://host:port"},
            ),
        ]
        | None
    ) = None
    token: (
        Annotated[
            Secret,
            Meta(
                description="Where the sidecar's API token is. Absent: DAPR_API_TOKEN of the worker's environment, "
                "if it is set.",
                examples=[{"env": "DAPR_API_TOKEN"}],
            ),
        ]
        | None
    ) = None
    components: Annotated[
        list[Component],
        Meta(
            description="Components that sidecars of a cluster's pods are given.",
            examples=[[{"name": "fleet-pubsub", "type": "pubsub.redis"}]],
        ),
    ] = msgspec.field(default_factory=list)
