"""TLS towards brokers of any kind: authorities, a client's certificate, what is checked."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret

_Path = Annotated[str, Meta(min_length=1)]


class Tls(Strict, frozen=True):
    """TLS towards a broker; `tls: {}` is enough where its certificate is signed by a known authority. In a cluster the
    files are Secrets: `{secret: name/key}`.
    """

    ca: (
        Annotated[
            _Path | Secret,
            Meta(
                description="PEM file with the authorities that may sign the broker's certificate. Without it: those "
                "that the system trusts.",
                examples=["/etc/ssl/fleet-ca.pem"],
            ),
        ]
        | None
    ) = None
    certificate: (
        Annotated[
            _Path | Secret,
            Meta(
                description="PEM file with the client's own certificate, where the broker asks for one. Needs `key`.",
                examples=["/etc/fleetfn/client.pem"],
            ),
        ]
        | None
    ) = None
    key: (
        Annotated[
            _Path | Secret,
            Meta(description="PEM file with the private key of `certificate`.", examples=["/etc/fleetfn/client.key"]),
        ]
        | None
    ) = None
    key_password: Annotated[Secret, Meta(description="Password of `key`, where it is encrypted.")] | None = None
    verify: Annotated[
        Literal["hostname", "certificate", "none"],
        Meta(
            description="What is checked of the broker: its certificate and that it is made out to the host name; the "
            "certificate alone; or nothing, which lets anybody pose as the broker: for test benches only.",
            examples=["certificate"],
        ),
    ] = "hostname"

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or none")
        if self.key_password is not None and self.key is None:
            raise ValueError("key_password without a key")
        for field in ("ca", "certificate", "key"):
            where = getattr(self, field)
            if isinstance(where, Secret) and where.path is None:
                raise ValueError(f"{field} is a file: write its path, or in a cluster {{secret: name/key}}")

    def path(self, field: Literal["ca", "certificate", "key"]) -> str | None:
        """Of the file."""
        where: str | Secret | None = getattr(self, field)
        return where.path if isinstance(where, Secret) else where
