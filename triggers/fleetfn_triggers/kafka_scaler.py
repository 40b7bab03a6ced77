"""What KEDA's Kafka scaler is told of a trigger: the group, topic and brokers of the worker's consumer."""

from __future__ import annotations

from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.trigger import Scaler

_VERSION = "2.1.0"
"""The oldest protocol that Kafka 4 takes, and every broker since 2018 does (KIP-896). KEDA's default is older."""

_AHEAD = 2
"""Times its concurrency that one worker may have before it; the same as on a node."""

_SASL = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}


def scaler(connection: KafkaConnection, topic: str, group: str, concurrency: int) -> Scaler:
    """A partition without a committed offset is one that came later, which the consumer reads from its first record on
    (the first deploy commits where others begin): so it is for KEDA, and an empty one wakes nobody.
    """
    metadata = {
        "bootstrapServers": ",".join(connection.brokers),
        "consumerGroup": group,
        "topic": topic,
        "lagThreshold": str(_AHEAD * concurrency),
        "activationLagThreshold": "0",
        "offsetResetPolicy": "earliest",
        "allowIdleConsumers": "false",
        "version": _VERSION,
    }
    tls, sasl = connection.tls, connection.sasl
    given: dict[str, str | Secret | None] = {}
    if tls is not None:
        metadata["tls"] = "enable"
        if tls.verify == "none":
            metadata["unsafeSsl"] = "true"
        given |= {"ca": tls.ca, "cert": tls.certificate, "key": tls.key, "keyPassword": tls.key_password}
    if sasl is not None:
        metadata["sasl"] = _SASL[sasl.mechanism]
        given |= {"username": sasl.username, "password": sasl.password}
    return Scaler("kafka", metadata, {name: value for name, value in given.items() if value is not None})
