"""Getting into a broker: TLS, certificates, passwords; what is said where it does not let us in."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access, mqtt_link
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls
from kafka_doubles import until
from mqtt_broker import Mosquitto, OwnMosquitto, Sent, publish
from mqtt_doubles import Bench

pytestmark = pytest.mark.mqtt


@pytest.fixture
def tls(own_mosquitto: OwnMosquitto) -> Path:
    """Folder of ca.pem, client.pem and client.key."""
    return own_mosquitto.folder / "tls"


@pytest.fixture
async def bench(own_mosquitto: OwnMosquitto, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(own_mosquitto.address, folder=tmp_path)
    yield made
    await made.close()


def by_tls(broker: Mosquitto, **fields: Any) -> dict[str, Any]:
    return {"url": f"mqtts://127.0.0.1:{broker.port + 1}", "tls": Tls(**fields)}


def by_password(broker: Mosquitto, file: str) -> dict[str, Any]:
    url = f"mqtt://127.0.0.1:{broker.port + 2}"
    return {"url": url, "username": "fn", "password": Secret(file=file)}


async def test_messages_come_over_tls_with_a_client_certificate(
    bench: Bench, own_mosquitto: OwnMosquitto, tls: Path
) -> None:
    files = {"ca": str(tls / "ca.pem"), "certificate": str(tls / "client.pem"), "key": str(tls / "client.key")}
    bench.connection = by_tls(own_mosquitto, **files)
    bridge = await bench.start()
    assert bridge.problem == ""
    sent = [Sent(f"{bench.topic}/v1/battery", str(n).encode()) for n in range(100)]
    await asyncio.to_thread(publish, own_mosquitto.address, sent)
    await until(lambda: len(bench.rows) == 100)
    assert bench.data() == [each.payload for each in sent]


async def test_relative_paths_start_at_the_functions_folder(
    bench: Bench, own_mosquitto: OwnMosquitto, tls: Path, tmp_path: Path
) -> None:
    folder = tls.relative_to(tmp_path)
    files = {"ca": str(folder / "ca.pem"), "certificate": str(folder / "client.pem"), "key": str(folder / "client.key")}
    bench.connection = by_tls(own_mosquitto, **files)
    assert (await bench.start()).problem == ""


async def test_an_encrypted_key_is_opened_by_its_password(
    bench: Bench, own_mosquitto: OwnMosquitto, tls: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes128", "-in", tls / "client.key", "-out", locked, "-passout", "pass:sesame"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    (tmp_path / "sesame").write_text("sesame\n")
    files = {"ca": str(tls / "ca.pem"), "certificate": str(tls / "client.pem"), "key": str(locked)}
    bench.connection = by_tls(own_mosquitto, **files)
    assert "cannot be read" in (await bench.start()).problem
    bench.connection = by_tls(own_mosquitto, **files, key_password=Secret(file="sesame"))
    assert (await bench.start()).problem == ""


async def test_without_a_client_certificate_it_is_said_that_one_is_wanted(
    bench: Bench, own_mosquitto: OwnMosquitto, tls: Path
) -> None:
    bench.connection = by_tls(own_mosquitto, ca=str(tls / "ca.pem"))
    problem = (await bench.start()).problem
    assert "does it want a client's certificate?" in problem or "certificate required" in problem


async def test_a_broker_whose_authority_is_unknown_is_not_trusted(bench: Bench, own_mosquitto: OwnMosquitto) -> None:
    bench.connection = by_tls(own_mosquitto)
    problem = (await bench.start()).problem
    assert "its certificate is not accepted: self-signed certificate" in problem
    assert "check tls of the connection" in problem


async def test_a_certificate_made_out_to_another_name_is_refused_unless_only_the_certificate_counts(
    own_mosquitto: OwnMosquitto, tls: Path
) -> None:
    files = {"ca": str(tls / "ca.pem"), "certificate": str(tls / "client.pem"), "key": str(tls / "client.key")}

    async def connect(**more: Any) -> None:
        url = f"mqtts://localhost:{own_mosquitto.port + 1}"
        connection = MqttConnection(url=url, tls=Tls(**files, **more))
        link = await mqtt_link.connect(mqtt_access.access(connection, str), "t")
        await link.close()

    with pytest.raises(FleetError, match=r"certificate is not accepted: .*localhost"):
        await connect()
    await connect(verify="certificate")


async def test_plain_towards_a_port_of_tls_is_said_in_words(bench: Bench, own_mosquitto: OwnMosquitto) -> None:
    bench.connection = {"url": f"mqtt://127.0.0.1:{own_mosquitto.port + 1}"}
    assert "does it want TLS (mqtts://)?" in (await bench.start()).problem


async def test_tls_towards_a_port_without_is_said_in_words(bench: Bench, own_mosquitto: OwnMosquitto) -> None:
    bench.connection = {"url": f"mqtts://127.0.0.1:{own_mosquitto.port}"}
    assert "no TLS with it" in (await bench.start()).problem


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_password_is_read_at_each_connecting(
    bench: Bench, own_mosquitto: OwnMosquitto, tmp_path: Path, version: str
) -> None:
    bench.connection = by_password(own_mosquitto, "password") | {"version": version}
    bridge = await bench.start()
    assert f"{{file: password}}: {tmp_path}/password cannot be read" in bridge.problem
    (tmp_path / "password").write_text("wrong")
    await until(lambda: "refuses us: " in bridge.problem)
    assert "environments.yaml" in bridge.problem or "check username" in bridge.problem
    assert "wrong" not in bridge.problem
    (tmp_path / "password").write_text("fn-secret\n")
    await until(lambda: bridge.problem == "")
    await asyncio.to_thread(publish, own_mosquitto.address, [Sent(f"{bench.topic}/v1/battery", b"1")])
    await until(lambda: bench.rows)
