"""Certificates by which a namespace's gateway, workers and KEDA know each other, as Secrets: pure, but for keys drawn.

An authority of the namespace's own signs them. A certificate's common name says who somebody is; pods' addresses are in
none. Names of the gateway are in its certificate, since KEDA and workers reach it by name.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fleetfn.errors import TargetError
from fleetfn_spec.cluster import CA, GATEWAY, GATEWAY_TLS, SCALER, SCALER_TLS

from fleetfn_deploy.kubernetes import metadata
from fleetfn_deploy.kubernetes.metadata import Object

LIFE = timedelta(days=2 * 365)
"""Of a certificate. Nobody but `fn` renews it, so it outlives the longest pause between two deploys."""

AUTHORITY_LIFE = timedelta(days=20 * 365)

RENEW = 3
"""The last third of its life is for renewing."""

_SKEW = timedelta(minutes=10)
"""Clocks of nodes may go behind ours."""

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"


def function_tls(function: str) -> str:
    """Name of the Secret that a function's pods mount."""
    return f"{function}-tls"


def names(function: str | None = None) -> tuple[str, ...]:
    """Of the Secrets that `due` is to be told of."""
    return (CA, GATEWAY_TLS, SCALER_TLS, *((function_tls(function),) if function is not None else ()))


def due(namespace: str, live: Mapping[str, Object], now: datetime, *, function: str | None = None) -> list[Object]:
    """Secrets that are missing, do not fit or are to be renewed, the authority first. `live`: those there, by name.

    An authority that is missing is to be created, not applied: another deploy may have made one meanwhile, and what
    that signed counts. Raises TargetError where the authority there is cannot be used.
    """
    made: list[Object] = []
    authority = _authority(namespace, live.get(CA))
    if authority is None or _old(authority.certificate, now):
        authority = _new_authority(namespace, now, authority)
        made.append(_secret(namespace, CA, authority.files()))
    for name, common_name, hosts in _leaves(namespace, function):
        if not _fits(live.get(name), common_name, hosts, authority, now):
            files = _issue(authority, common_name, hosts, now)
            made.append(_secret(namespace, name, files, function if name not in names() else None))
    return made


def expiry(secret: Object) -> datetime:
    """When its certificate ends. Raises TargetError."""
    return _certificate(secret).not_valid_after_utc


def _leaves(namespace: str, function: str | None) -> list[tuple[str, str, tuple[str, ...]]]:
    """(Secret, common name, host names)"""
    service = f"{GATEWAY}.{namespace}.svc"
    gateway = (service, f"{service}.cluster.local", f"{GATEWAY}.{namespace}", GATEWAY)
    found = [(GATEWAY_TLS, GATEWAY, gateway), (SCALER_TLS, SCALER, (SCALER,))]
    if function is not None:
        found.append((function_tls(function), function, (function,)))
    return found


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def files(self) -> dict[str, bytes]:
        return {CERTIFICATE: _pem(self.certificate), KEY: _key_pem(self.key)}


def _authority(namespace: str, secret: Object | None) -> _Authority | None:
    if secret is None:
        return None
    try:
        certificate = _certificate(secret)
        key = _private(secret)
    except (ValueError, TypeError, TargetError) as error:
        raise _unusable(namespace, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _unusable(namespace, "certificate and key do not belong together")
    return _Authority(certificate, key)


def _unusable(namespace: str, why: str) -> TargetError:
    return TargetError(
        f"Secret {CA!r} in namespace {namespace!r} is no authority for certificates: {why}",
        hint="Put it back. Removed, it is made anew, and each function has to be deployed again.",
    )


def _new_authority(namespace: str, now: datetime, before: _Authority | None) -> _Authority:
    """A renewed one has the same key and name, so that what it signed before stays good."""
    key = before.key if before is not None else ec.generate_private_key(ec.SECP256R1())
    name = _name(f"FleetFn {namespace}"[:64])
    usage = _usage(signs=True)
    built = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Authority(built.sign(key, hashes.SHA256()), key)


def _issue(authority: _Authority, common_name: str, hosts: Sequence[str], now: datetime) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    built = (
        _builder(_name(common_name), authority.certificate.subject, key.public_key(), now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(both, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer, critical=False)
    )
    certificate = built.sign(authority.key, hashes.SHA256())
    return {CERTIFICATE: _pem(certificate), KEY: _key_pem(key), AUTHORITY: _pem(authority.certificate)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _SKEW,
        not_valid_after=now + life,
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _fits(secret: Object | None, common_name: str, hosts: Sequence[str], authority: _Authority, now: datetime) -> bool:
    """It says who, is signed by the authority as it is now, and has time left."""
    if secret is None:
        return False
    try:
        certificate = _certificate(secret)
        key = _private(secret)
        certificate.verify_directly_issued_by(authority.certificate)
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, TargetError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        certificate.subject == _name(common_name)
        and named.get_values_for_type(x509.DNSName) == list(hosts)
        and key.public_key() == certificate.public_key()
        and (secret.get("data") or {}).get(AUTHORITY) == _encoded(_pem(authority.certificate))
        and not _old(certificate, now)
    )


def _old(certificate: x509.Certificate, now: datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life / RENEW


def _certificate(secret: Object) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_file(secret, CERTIFICATE))
    except ValueError as error:
        name = secret["metadata"]["name"]
        raise TargetError(f"{CERTIFICATE} of Secret {name!r} is no certificate: {error}") from error


def _private(secret: Object) -> PrivateKeyTypes:
    return serialization.load_pem_private_key(_file(secret, KEY), password=None)


def _file(secret: Object, name: str) -> bytes:
    data = secret.get("data") or {}
    if name not in data:
        raise TargetError(f"it has no {name}")
    try:
        return base64.b64decode(data[name], validate=True)
    except binascii.Error as error:
        raise TargetError(f"its {name} is not base64") from error


def _secret(namespace: str, name: str, files: Mapping[str, bytes], function: str | None = None) -> Object:
    made = metadata.of_gateway(
        namespace,
        "v1",
        "Secret",
        name,
        type="kubernetes.io/tls",
        data={key: _encoded(content) for key, content in files.items()},
    )
    if function is not None:
        made["metadata"]["labels"] = metadata.plain_labels(function)
    return made


def _name(common: str) -> x509.Name:
    """At most 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


__all__ = ["due", "expiry", "function_tls", "names"]
