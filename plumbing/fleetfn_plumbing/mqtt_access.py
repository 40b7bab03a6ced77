"""Where an MQTT broker is, who we are to it, and what its reasons mean, in words for people."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from fleetfn.errors import FleetError
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Resolve, Secret
from fleetfn_triggers.tls import Tls

from fleetfn_plumbing.mqtt_packets import Version

PORT, TLS_PORT = 1883, 8883


class MqttError(FleetError):
    """A broker cannot be reached, refuses us, or has ended the connection. `code`: its reason; None: it gave none."""

    def __init__(self, message: str, *, hint: str = "", code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Access:
    """A connection with its secrets resolved."""

    host: str
    port: int
    version: Version
    keepalive: int
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        return where(self.host, self.port)


def where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(connection: MqttConnection) -> tuple[str, int]:
    scheme, _, rest = connection.url.partition("://")
    host, _, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")
    return host.strip("[]"), int(port) if port else TLS_PORT if scheme == "mqtts" else PORT


def access(connection: MqttConnection, resolve: Resolve, base: Path | None = None) -> Access:
    """Reads secrets and certificates: they may change while we run. `base`: where relative paths of `tls` start.

    Raises FleetError.
    """
    host, port = address(connection)
    username, password = connection.username, connection.password
    secure = connection.url.startswith("mqtts://")
    return Access(
        host,
        port,
        5 if connection.version == "5" else 4,
        connection.keepalive,
        _context(connection.tls or Tls(), resolve, base or Path()) if secure else None,
        str(resolve(username)) if isinstance(username, Secret) else username,
        None if password is None else resolve(password).encode(),
    )


def _context(tls: Tls, resolve: Resolve, base: Path) -> ssl.SSLContext:
    authorities, certified, private = tls.path("ca"), tls.path("certificate"), tls.path("key")
    ca = None if authorities is None else base / authorities
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as exc:
        raise _unreadable("ca", str(ca), exc) from exc
    context.check_hostname = tls.verify == "hostname"
    context.verify_mode = ssl.CERT_NONE if tls.verify == "none" else ssl.CERT_REQUIRED
    if certified is not None and private is not None:
        certificate, key = base / certified, base / private
        # without a callable OpenSSL would ask the terminal for the password of an encrypted key
        password = resolve(tls.key_password) if tls.key_password is not None else ""
        try:
            context.load_cert_chain(certificate, key, lambda: str(password))
        except OSError as exc:
            raise _unreadable("certificate and key", f"{certificate}, {key}", exc) from exc
    return context


def _unreadable(what: str, path: str, exc: OSError) -> MqttError:
    why = exc.strerror if type(exc) is not ssl.SSLError and exc.strerror else getattr(exc, "reason", None) or str(exc)
    return MqttError(
        f"tls.{what} of the MQTT connection: '{path}' cannot be read: {why}",
        hint="check the paths, that they are PEM files, that this process's user may read them, and key_password",
    )


TAKEN_OVER = 0x8E
CLIENT_ID_REFUSED = 0x85
SHUTTING_DOWN = 0x8B
BAD_CREDENTIALS = 0x86
NOT_AUTHORIZED = 0x87

_OLD = {1: 0x84, 2: CLIENT_ID_REFUSED, 3: 0x88, 4: BAD_CREDENTIALS, 5: NOT_AUTHORIZED}
"""Return codes of a CONNACK of MQTT 3.1.1, as those of MQTT 5."""

_REASONS = {
    0x04: "disconnected with will",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "not acceptable to this broker",
    0x84: "it does not speak this protocol version",
    CLIENT_ID_REFUSED: "the client id is not valid",
    BAD_CREDENTIALS: "bad user name or password",
    NOT_AUTHORIZED: "not authorized",
    0x88: "the server is unavailable",
    0x89: "the server is busy",
    0x8A: "banned",
    SHUTTING_DOWN: "the server is shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep-alive timeout",
    TAKEN_OVER: "another client has taken the session over",
    0x8F: "the topic filter is not valid",
    0x90: "the topic name is not valid",
    0x93: "more was sent than it takes at a time",
    0x95: "the packet is too large",
    0x96: "messages come too fast",
    0x97: "a quota is used up",
    0x98: "an administrator has ended the connection",
    0x99: "the payload's format is not valid",
    0x9A: "it retains no messages",
    0x9B: "it does not have this QoS",
    0x9C: "use another server",
    0x9D: "the server has moved",
    0x9E: "it has no shared subscriptions",
    0x9F: "connections come too fast",
    0xA0: "the longest connection time has passed",
    0xA2: "it has no subscriptions with wildcards",
}

_HINTS = {
    0x84: "write the version that the broker speaks as `version` of the connection (5 or 3.1.1)",
    BAD_CREDENTIALS: "check username and password of the connection in environments.yaml",
    NOT_AUTHORIZED: "check username, password and client certificate, and what the broker allows them",
}


def connack_code(reason: int, version: Version) -> int:
    return _OLD.get(reason, 0x80) if version == 4 and reason else reason  # noqa: PLR2004 - 3.1.1


def reason(code: int, more: str | None = None) -> str:
    """`more`: the broker's own words."""
    said = _REASONS.get(code, f"reason code 0x{code:02x}")
    return f"{said} ({more})" if more else said


def hint(code: int) -> str:
    return _HINTS.get(code, "")
