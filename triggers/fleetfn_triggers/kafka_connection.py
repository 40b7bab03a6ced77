"""How to reach a Kafka cluster: brokers, TLS and SASL, in the words that Kafka's users know."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls

Broker = Annotated[
    str,
    Meta(
        pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        examples=["kafka-0:9092"],
        extra={"form": "host:port, e.g. kafka-0:9092"},
    ),
]


class KafkaSasl(Strict, frozen=True):
    """Who we are towards the brokers."""

    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(
            description="As the brokers are set up. PLAIN sends the password itself: use it with `tls` only.",
            examples=["SCRAM-SHA-512"],
            extra={
                "not_built": {
                    "OAUTHBEARER": "OAUTHBEARER is not built yet; built: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
                    "GSSAPI": "GSSAPI (Kerberos) is not built yet; built: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
                }
            },
        ),
    ]
    username: Annotated[
        str | Secret,
        Meta(description="The user's name, or a reference to where it is.", examples=["fn"]),
    ]
    password: Annotated[
        Secret,
        Meta(description="Where the password is; never the password itself.", examples=[{"env": "KAFKA_PASSWORD"}]),
    ]


_OURS = {
    "bootstrap.servers": "write it as `brokers`",
    "metadata.broker.list": "write it as `brokers`",
    "security.protocol": "it follows from `tls` and `sasl`",
    "group.id": "it is environment/node/function/trigger",
    "group.instance.id": "FleetFn sets it",
    "client.id": "it is environment/node/function/trigger",
    "group.protocol": "FleetFn takes the newest that the brokers have",
    "partition.assignment.strategy": "FleetFn needs cooperative-sticky",
    "enable.auto.commit": "FleetFn commits what is handled, nothing else",
    "enable.auto.offset.store": "FleetFn commits what is handled, nothing else",
    "auto.commit.interval.ms": "FleetFn commits what is handled, nothing else",
    "auto.offset.reset": "write it as `start` of the trigger",
    "enable.partition.eof": "FleetFn sets it",
    "enable.idempotence": "FleetFn needs it on",
    "transactional.id": "FleetFn does not use transactions",
    "acks": "FleetFn needs all",
    "request.required.acks": "FleetFn needs all",
}
_PREFIXES = {
    "ssl.": "write it under `tls`",
    "sasl.": "write it under `sasl`",
    "enable.ssl.": "write it as `verify` under `tls`",
    "plugin.": "code is not loaded from an environment",
    "debug": "FleetFn sets it",
    "test.": "it is librdkafka's own",
}


def refusal(name: str) -> str | None:
    """Why the librdkafka property `name` may not be given, or None where it may."""
    if name in _OURS:
        return _OURS[name]
    return next((why for prefix, why in _PREFIXES.items() if name.startswith(prefix)), None)


class KafkaConnection(Strict, frozen=True):
    """A Kafka cluster."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "schema_registry": "schema registries are not built yet; a trigger's `decode` may do it",
    }

    brokers: Annotated[
        list[Broker],
        Meta(
            description="Addresses to begin with, `host:port`; the cluster tells the others. None: the node's embedded "
            "Kafka, in memory, for demos and development only.",
            examples=[["kafka-0:9092", "kafka-1:9092"]],
        ),
    ] = msgspec.field(default_factory=list)
    tls: (
        Annotated[
            Tls,
            Meta(
                description="Present: speak TLS; `{}` takes the defaults. Librdkafka calls its fields ssl.ca.location, "
                "ssl.certificate.location, ssl.key.location, ssl.key.password; `verify` stands for two of its settings."
            ),
        ]
        | None
    ) = None
    sasl: Annotated[KafkaSasl, Meta(description="Present: log in.")] | None = None
    properties: Annotated[
        dict[str, str | int | float | bool],
        Meta(
            description="More of librdkafka's settings by their own names, for consumers and producers alike. Those "
            "that FleetFn sets itself (group.id, enable.auto.commit, ssl.*, sasl.* ...) are refused.",
            examples=[{"socket.keepalive.enable": True, "fetch.wait.max.ms": 50}],
        ),
    ] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.properties:
            why = refusal(name)
            if why is not None:
                raise ValueError(f'the property "{name}" is not yours to set: {why}')
        if not self.brokers and (self.tls or self.sasl or self.properties):
            raise ValueError("tls, sasl and properties need brokers: the embedded Kafka has none of them")
