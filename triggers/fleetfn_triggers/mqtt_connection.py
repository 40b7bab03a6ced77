"""How to reach an MQTT broker: its URL, TLS, who we are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls


class MqttConnection(Strict, frozen=True):
    """An MQTT broker."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^mqtts?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$",
            description="`mqtt://host:port`, or `mqtts://` with TLS. Without a port: 1883, with TLS 8883.",
            examples=["mqtts://broker:8883"],
            extra={"form": "mqtt://host:port or mqtts://host:port"},
        ),
    ]
    username: (
        Annotated[str | Secret, Meta(description="The user's name, or a reference to where it is.", examples=["fn"])]
        | None
    ) = None
    password: (
        Annotated[
            Secret,
            Meta(description="Where the password is; never the password itself.", examples=[{"env": "MQTT_PASSWORD"}]),
        ]
        | None
    ) = None
    tls: Annotated[Tls, Meta(description="Authorities, a client's certificate; `mqtts://` only.")] | None = None
    version: Annotated[
        Literal["5", "3.1.1"],
        Meta(description="Protocol version that the broker speaks.", examples=["3.1.1"]),
    ] = "5"
    keepalive: Annotated[
        int,
        Meta(
            description="Seconds after which a silent connection is probed; a broker that is gone is noticed within "
            "twice that.",
            examples=[20],
            ge=5,
            le=3600,
        ),
    ] = 30

    def __post_init__(self) -> None:
        if self.tls is not None and not self.url.startswith("mqtts://"):
            raise ValueError("tls needs a url that begins with mqtts://")
        if self.password is not None and self.username is None:
            raise ValueError("password without a username")
