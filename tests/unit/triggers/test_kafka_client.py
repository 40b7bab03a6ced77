"""A connection in librdkafka's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleetfn_triggers.kafka_client import BrokerError, client_settings
from fleetfn_triggers.kafka_connection import KafkaConnection, KafkaSasl
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls

BROKERS = ["kafka-0:9092", "kafka-1:9092"]
PASSWORD = Secret(env="KAFKA_PASSWORD")


def settings(connection: KafkaConnection) -> dict[str, Any]:
    return client_settings(connection, lambda reference: f"value of {reference.env}", "local/node/f/t")


def test_names_brokers_and_client() -> None:
    found = settings(KafkaConnection(brokers=BROKERS))
    assert found["bootstrap.servers"] == "kafka-0:9092,kafka-1:9092"
    assert found["client.id"] == "local/node/f/t"
    assert found["security.protocol"] == "PLAINTEXT"


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [
        pytest.param(Tls(), KafkaSasl(mechanism="PLAIN", username="u", password=PASSWORD), "SASL_SSL", id="both"),
        pytest.param(Tls(), None, "SSL", id="tls"),
        pytest.param(
            None, KafkaSasl(mechanism="SCRAM-SHA-512", username="u", password=PASSWORD), "SASL_PLAINTEXT", id="sasl"
        ),
    ],
)
def test_security_protocol_follows_from_tls_and_sasl(tls: Tls | None, sasl: KafkaSasl | None, protocol: str) -> None:
    assert settings(KafkaConnection(brokers=BROKERS, tls=tls, sasl=sasl))["security.protocol"] == protocol


def test_sasl_with_name_and_password_by_reference() -> None:
    sasl = KafkaSasl(mechanism="SCRAM-SHA-256", username=Secret(env="KAFKA_USER"), password=PASSWORD)
    found = settings(KafkaConnection(brokers=BROKERS, sasl=sasl))
    assert found["sasl.mechanism"] == "SCRAM-SHA-256"
    assert found["sasl.username"] == "value of KAFKA_USER"
    assert found["sasl.password"] == "value of KAFKA_PASSWORD"


def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    ca, certificate, key = (str(tmp_path / name) for name in ("ca.pem", "c.pem", "k.pem"))
    for name in (ca, certificate, key):
        Path(name).touch()
    tls = Tls(ca=ca, certificate=certificate, key=key, key_password=PASSWORD)
    found = settings(KafkaConnection(brokers=BROKERS, tls=tls))
    assert {name: value for name, value in found.items() if "ssl" in name} == {
        "ssl.ca.location": ca,
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
        "ssl.key.password": "value of KAFKA_PASSWORD",
        "ssl.endpoint.identification.algorithm": "https",
        "enable.ssl.certificate.verification": "true",
    }


@pytest.mark.parametrize(
    ("verify", "algorithm", "verification"),
    [("hostname", "https", "true"), ("certificate", "none", "true"), ("none", "none", "false")],
)
def test_what_is_verified_of_a_broker(verify: Any, algorithm: str, verification: str) -> None:
    found = settings(KafkaConnection(brokers=BROKERS, tls=Tls(verify=verify)))
    assert found["ssl.endpoint.identification.algorithm"] == algorithm
    assert found["enable.ssl.certificate.verification"] == verification


def test_properties_pass_through_as_librdkafka_spells_them() -> None:
    connection = KafkaConnection(brokers=BROKERS, properties={"socket.keepalive.enable": True, "fetch.wait.max.ms": 50})
    found = settings(connection)
    assert found["socket.keepalive.enable"] == "true"
    assert found["fetch.wait.max.ms"] == 50


def test_a_connection_without_brokers_is_refused() -> None:
    with pytest.raises(BrokerError, match="no brokers"):
        settings(KafkaConnection())
