"""Certificates of a namespace: who they say somebody is, that TLS takes them, and when they are renewed."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fleetfn.errors import TargetError
from fleetfn_deploy.kubernetes import pki
from fleetfn_plumbing.tls import TlsFolder, peer_name
from fleetfn_spec.cluster import CA, GATEWAY, GATEWAY_TLS, LABEL_FUNCTION, LABEL_MANAGED_BY, MANAGER, SCALER_TLS

NOW = datetime(2026, 3, 1, tzinfo=UTC)

Secrets = dict[str, dict[str, Any]]


def made(live: Secrets | None = None, now: datetime = NOW, function: str | None = "battery-alert") -> Secrets:
    return {each["metadata"]["name"]: each for each in pki.due("alerts", live or {}, now, function=function)}


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return made()


def test_a_namespace_without_any_gets_them_all_the_authority_first(secrets: Secrets) -> None:
    assert list(secrets) == [CA, GATEWAY_TLS, SCALER_TLS, "battery-alert-tls"]
    assert set(secrets[CA]["data"]) == {"tls.crt", "tls.key"}
    assert all(set(secrets[name]["data"]) == {"tls.crt", "tls.key", "ca.crt"} for name in list(secrets)[1:])


def test_each_is_labelled_as_what_it_belongs_to(secrets: Secrets) -> None:
    assert all(each["metadata"]["labels"][LABEL_MANAGED_BY] == MANAGER for each in secrets.values())
    owners = {name: each["metadata"]["labels"].get(LABEL_FUNCTION) for name, each in secrets.items()}
    assert owners == {CA: None, GATEWAY_TLS: None, SCALER_TLS: None, "battery-alert-tls": "battery-alert"}


def test_what_is_there_and_good_stays(secrets: Secrets) -> None:
    assert made(secrets) == {}


def test_a_second_function_is_signed_by_the_same_authority(secrets: Secrets) -> None:
    found = made(secrets, function="trip-report")
    assert list(found) == ["trip-report-tls"]
    assert found["trip-report-tls"]["data"]["ca.crt"] == secrets[CA]["data"]["tls.crt"]


def test_they_are_renewed_in_the_last_third_of_their_life(secrets: Secrets) -> None:
    assert made(secrets, NOW + pki.LIFE * 2 / 3 - timedelta(days=1)) == {}
    late = made(secrets, NOW + pki.LIFE * 2 / 3 + timedelta(days=1))
    assert list(late) == [GATEWAY_TLS, SCALER_TLS, "battery-alert-tls"]
    assert pki.expiry(late[GATEWAY_TLS]) - pki.expiry(secrets[GATEWAY_TLS]) > pki.LIFE / 2


def test_a_renewed_authority_keeps_its_key_so_that_old_certificates_stay_good(secrets: Secrets) -> None:
    late = made(secrets, NOW + pki.AUTHORITY_LIFE * 2 / 3 + timedelta(days=1))
    assert list(late) == list(secrets)
    assert late[CA]["data"]["tls.key"] == secrets[CA]["data"]["tls.key"]
    assert late[CA]["data"]["tls.crt"] != secrets[CA]["data"]["tls.crt"]
    certificate(secrets[GATEWAY_TLS]).verify_directly_issued_by(certificate(late[CA]))


def certificate(secret: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


@pytest.mark.parametrize("lost", ["tls.crt", "tls.key", "ca.crt"])
def test_one_that_lacks_a_part_is_made_anew(secrets: Secrets, lost: str) -> None:
    whole = secrets["battery-alert-tls"]
    broken = {**whole, "data": {name: value for name, value in whole["data"].items() if name != lost}}
    assert list(made({**secrets, "battery-alert-tls": broken})) == ["battery-alert-tls"]


def test_one_of_another_function_or_authority_is_made_anew(secrets: Secrets) -> None:
    other = made(secrets, function="other")["other-tls"]
    stranger = made()["battery-alert-tls"]
    for wrong in (other, stranger):
        assert list(made({**secrets, "battery-alert-tls": wrong})) == ["battery-alert-tls"]


def test_an_authority_that_is_none_is_told_and_not_replaced(secrets: Secrets) -> None:
    key = made()[CA]["data"]["tls.key"]
    for data, why in (
        ({**secrets[CA]["data"], "tls.key": key}, "certificate and key do not belong together"),
        ({"tls.crt": secrets[CA]["data"]["tls.crt"]}, "it has no tls.key"),
        ({**secrets[CA]["data"], "tls.crt": "!"}, "its tls.crt is not base64"),
    ):
        with pytest.raises(TargetError, match=f"'fleetfn-ca' in namespace 'alerts' is no authority.*{why}") as caught:
            made({**secrets, CA: {**secrets[CA], "data": data}})
        assert "Put it back" in caught.value.hint


def folder(path: Path, data: dict[str, str]) -> TlsFolder:
    path.mkdir()
    for name, value in data.items():
        (path / name).write_bytes(base64.b64decode(value))
    return TlsFolder(path)


def shake(server: TlsFolder, client: TlsFolder, name: str) -> tuple[str, str]:
    """Who the server and who the client are, as the other one sees it. `name`: that the server has to have."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_server = server.server().wrap_bio(to_server, to_client, server_side=True)
    at_client = client.client(names=bool(name)).wrap_bio(to_client, to_server, server_hostname=name or None)
    waiting = [at_client, at_server]
    for _ in range(10):
        for each in list(waiting):
            try:
                each.do_handshake()
                waiting.remove(each)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    return peer_name(at_server), peer_name(at_client)


@pytest.fixture
def now_made(tmp_path: Path) -> dict[str, TlsFolder]:
    found = made(now=datetime.now(UTC))
    return {name: folder(tmp_path / name, each["data"]) for name, each in found.items() if name != CA}


def test_a_worker_finds_the_gateway_by_its_name_and_is_known_by_its_own(now_made: dict[str, TlsFolder]) -> None:
    for name in ("fleetfn-gateway.alerts.svc", "fleetfn-gateway.alerts.svc.cluster.local"):
        assert shake(now_made[GATEWAY_TLS], now_made["battery-alert-tls"], name) == ("battery-alert", GATEWAY)


def test_the_gateway_reaches_a_worker_by_any_address_and_knows_its_function(now_made: dict[str, TlsFolder]) -> None:
    assert shake(now_made["battery-alert-tls"], now_made[GATEWAY_TLS], "") == (GATEWAY, "battery-alert")


def test_keda_is_known_as_itself(now_made: dict[str, TlsFolder]) -> None:
    assert shake(now_made[GATEWAY_TLS], now_made[SCALER_TLS], "fleetfn-gateway.alerts.svc") == ("keda", GATEWAY)


def test_a_worker_cannot_pose_as_the_gateway(now_made: dict[str, TlsFolder]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(now_made["battery-alert-tls"], now_made[SCALER_TLS], "fleetfn-gateway.alerts.svc")


def test_one_of_another_namespace_is_a_stranger(now_made: dict[str, TlsFolder], tmp_path: Path) -> None:
    elsewhere = folder(tmp_path / "elsewhere", made(now=datetime.now(UTC))[GATEWAY_TLS]["data"])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(now_made["battery-alert-tls"], elsewhere, "")
