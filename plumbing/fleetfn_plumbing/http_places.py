"""Where a process of ours is asked: the path of a unix socket, or https://host:port with certificates."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from fleetfn.errors import UsageError

from fleetfn_plumbing.http_client import HttpClient
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.unix_http import UnixClient

HTTPS = "https://"


def is_remote(place: Path | str) -> bool:
    return str(place).startswith(HTTPS)


def client(place: Path | str, certificates: TlsFolder | None = None, *, name: str | None = None) -> HttpClient:
    """`name`: common name that who serves at a https:// place has to show; None: its certificate has to be for the
    host. Raises UsageError for a place that is none.
    """
    if not is_remote(place):
        return UnixClient(place)
    from fleetfn_plumbing.tls_http import TlsClient  # noqa: PLC0415 - processes of one machine need none of it

    host, port = _address(str(place))
    if certificates is None:
        hint = "set FLEETFN_TLS to their folder"
        raise UsageError(f"{place} is asked with certificates, and none are named", hint=hint)
    return TlsClient(host, port, certificates, name=name)


def _address(place: str) -> tuple[str, int]:
    hint = "write https://host:port"
    try:
        parts = urlsplit(place)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{place!r} is no address: {error}", hint=hint) from error
    if not host or not port or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(f"{place!r} is no address of a host and a port", hint=hint)
    return host, port
