"""An authority of a test's own, and folders of certificates as Kubernetes mounts a Secret: links to a folder that is
replaced as a whole.
"""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fleetfn_plumbing.tls import AUTHORITY, CERTIFICATE, KEY

_versions = itertools.count()


class Authority:
    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.BasicConstraints(ca=True, path_length=0)
        self._made = _builder(name, self._key.public_key(), name).add_extension(usage, critical=True)
        self._certificate = self._made.sign(self._key, hashes.SHA256())
        self.name = name

    def issue(self, folder: Path, name: str, *dns: str, trusted: Authority | None = None) -> Path:
        """`folder` holds a certificate of `name` from now on, and trusts this authority, or `trusted`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(name, key.public_key(), self.name).add_extension(usages, critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns or (name,)])
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _mount(folder, {CERTIFICATE: _pem(certificate), KEY: private, AUTHORITY: (trusted or self).pem})
        return folder

    @property
    def pem(self) -> bytes:
        return _pem(self._certificate)


def _builder(name: str, key: ec.EllipticCurvePublicKey, issuer: str) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _mount(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    version = folder / f"..{next(_versions)}"
    version.mkdir()
    for name, data in files.items():
        (version / name).write_bytes(data)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    fresh = folder / "..new"
    fresh.symlink_to(version.name)
    fresh.replace(folder / "..data")
