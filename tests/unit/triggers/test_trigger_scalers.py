"""What each kind says to KEDA: kafka of its group's lag, the others that their gateway knows."""

import pytest
from fleetfn_triggers import kinds
from fleetfn_triggers.cron import Cron
from fleetfn_triggers.http import Http
from fleetfn_triggers.kafka import Kafka, KafkaConnection, KafkaSasl
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls

PASSWORD = Secret(secret="kafka/password")  # noqa: S106 - a reference


@pytest.mark.parametrize("spec", [Http(path="/x"), Mqtt(topic="x"), Cron(schedule="@daily")], ids=type)
def test_what_waits_in_the_gateway_only_the_gateway_tells(spec: Http | Mqtt | Cron) -> None:
    (kind,) = [each for each in kinds.KINDS.values() if isinstance(spec, each.spec)]
    assert kind.scaler(spec, connection=None, group="g", concurrency=1) is None


@pytest.mark.parametrize("start", ["latest", "earliest"])
def test_a_partition_without_an_offset_has_its_first_record_to_come(start: str) -> None:
    """As the consumer has it: the first deploy commits where it begins, whatever `start` says."""
    spec = Kafka(topic="t", start=start)  # type: ignore[arg-type]  # a literal
    connection = KafkaConnection(brokers=["a:1", "b:2"])
    found = kinds.KINDS["kafka"].scaler(spec, connection=connection, group="g", concurrency=5)
    assert found is not None
    assert found.metadata["offsetResetPolicy"] == "earliest"
    assert found.metadata["bootstrapServers"] == "a:1,b:2"
    assert found.metadata["lagThreshold"] == "10"
    assert not found.credentials


def test_credentials_are_kept_as_references() -> None:
    connection = KafkaConnection(
        brokers=["a:1"], tls=Tls(), sasl=KafkaSasl(mechanism="PLAIN", username="fn", password=PASSWORD)
    )
    found = kinds.KINDS["kafka"].scaler(Kafka(topic="t"), connection=connection, group="g", concurrency=1)
    assert found is not None
    assert found.credentials == {"username": "fn", "password": PASSWORD}
    assert found.metadata["tls"] == "enable"
