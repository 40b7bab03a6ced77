"""Getting in touch with brokers: TLS, SASL, and what is said where it fails. The script's broker has both listeners."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fleetfn.errors import FleetError
from fleetfn_triggers.kafka_client import BrokerError, backlog, check_connection, commit_start_offsets
from fleetfn_triggers.kafka_connection import KafkaConnection, KafkaSasl
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls
from kafka_broker import SCRIPT, fresh_name, produce, run_script
from kafka_doubles import FakeRoad, no_secrets, running, source, until

PASSWORD = Secret(env="KAFKA_PASSWORD")
LONG = 60.0
"""Seconds: who is told at once needs a small part of them, however slow the machine."""


def right(_: Secret) -> str:
    return "fn-secret"


def wrong(_: Secret) -> str:
    return "not it"


@pytest.fixture
def script_broker(kafka: str) -> str:
    """The host of the broker that scripts/kafka.sh started: its other listeners are at the next ports."""
    if kafka != run_script("address"):
        pytest.skip("FN_TEST_KAFKA names a broker whose listeners are not known")
    return kafka


def sasl(kafka: str, mechanism: str = "PLAIN") -> KafkaConnection:
    port = int(kafka.rpartition(":")[2]) + 2
    how = KafkaSasl(mechanism="PLAIN" if mechanism == "PLAIN" else "SCRAM-SHA-512", username="fn", password=PASSWORD)
    return KafkaConnection(brokers=[f"127.0.0.1:{port}"], sasl=how)


def tls(kafka: str, ca: Path | None) -> KafkaConnection:
    port = int(kafka.rpartition(":")[2]) + 3
    return KafkaConnection(brokers=[f"127.0.0.1:{port}"], tls=Tls(ca=str(ca) if ca else None))


def script_ca() -> Path:
    return Path(os.environ.get("FN_KAFKA_DIR", SCRIPT.parent.parent / ".cache" / "kafka")) / "tls" / "ca.pem"


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_logs_in_and_consumes(script_broker: str, topic: str, mechanism: str) -> None:
    connection = sasl(script_broker, mechanism)
    await check_connection(connection, resolve=right)
    road = FakeRoad()
    made = source("", topic, fresh_name(), road, connection=connection, resolve=right)
    await made.connect()
    async with running(made):
        produce(script_broker, topic, [("k", b"1")])
        await until(lambda: road.taken)


@pytest.mark.kafka
async def test_a_wrong_password_is_told_at_once(script_broker: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokerError, match=r"refuse us: .*[Aa]uthentication failed") as caught:
        await check_connection(sasl(script_broker), resolve=wrong, limit=LONG)
    assert "sasl" in caught.value.hint
    assert time.monotonic() - begun < LONG / 2


@pytest.mark.kafka
async def test_a_running_source_tells_of_a_wrong_password(script_broker: str, topic: str) -> None:
    made = source("", topic, fresh_name(), FakeRoad(), connection=sasl(script_broker), resolve=wrong)
    async with running(made):
        await until(lambda: "refuse us" in made.problem)


@pytest.mark.kafka
async def test_speaks_tls_with_brokers_of_a_named_authority(script_broker: str) -> None:
    await check_connection(tls(script_broker, script_ca()), resolve=no_secrets)


@pytest.mark.kafka
async def test_a_certificate_of_nobody_we_know_is_told_at_once(script_broker: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokerError, match=r"refuse us: .*certificate"):
        await check_connection(tls(script_broker, None), resolve=no_secrets, limit=LONG)
    assert time.monotonic() - begun < LONG / 2


async def test_a_missing_authority_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    with pytest.raises(FleetError, match=r"tls\.ca .*ca\.pem.* cannot be read: No such file"):
        await check_connection(tls("127.0.0.1:1", missing), resolve=no_secrets)


async def test_brokers_that_are_not_there_are_told_within_the_limit(unused_tcp_port: int) -> None:
    connection = KafkaConnection(brokers=[f"127.0.0.1:{unused_tcp_port}"])
    with pytest.raises(BrokerError, match=f"brokers 127.0.0.1:{unused_tcp_port} do not answer within 3 s: .*refused"):
        await check_connection(connection, resolve=no_secrets, limit=3)


@pytest.mark.kafka
async def test_a_missing_topic_is_named_with_the_next_step(kafka: str) -> None:
    connection = KafkaConnection(brokers=[kafka])
    name = fresh_name()
    with pytest.raises(BrokerError, match=f"topic '{name}' does not exist on {kafka}") as caught:
        await commit_start_offsets(connection, name, "g", "latest", resolve=no_secrets)
    assert "create it" in caught.value.hint


async def test_backlog_counts_what_is_not_committed(broker: str, either_topic: str) -> None:
    connection = KafkaConnection(brokers=[broker])
    group = fresh_name("local/node/f/t")
    await commit_start_offsets(connection, either_topic, group, "latest", resolve=no_secrets)
    assert await backlog(connection, either_topic, group, resolve=no_secrets, limit=60) == 0
    produce(broker, either_topic, [(f"k{n}", b"1") for n in range(7)])
    assert await backlog(connection, either_topic, group, resolve=no_secrets, limit=60) == 7


async def test_backlog_is_unknown_where_nobody_answers(unused_tcp_port: int) -> None:
    connection = KafkaConnection(brokers=[f"127.0.0.1:{unused_tcp_port}"])
    assert await backlog(connection, "t", "g", resolve=no_secrets, limit=0.5) is None
