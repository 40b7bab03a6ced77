"""Both sides of a connection prove who they are: certificates of one authority, in a folder as a Kubernetes Secret is
mounted. Renewed files hold for connections that are made from then on; nobody has to be started anew.

`peer_name` is who speaks: the common name of the certificate that the other side has shown.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Literal

from fleetfn.errors import UsageError

log = logging.getLogger("fleetfn.tls")

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"

_Stamp = tuple[tuple[int, int, int], ...]

_Side = Literal["server", "client", "client by name"]


class TlsFolder:
    """TLS 1.3, the other side verified against ca.crt. For any number of connections of one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamps: dict[_Side, _Stamp] = {}
        self._contexts: dict[_Side, ssl.SSLContext] = {}

    def client(self, *, names: bool) -> ssl.SSLContext:
        """For a connection that is made now. `names`: the server's name has to be in its certificate; else whoever
        connects looks at `peer_name`. Raises UsageError where the files cannot be used.
        """
        return self._newest("client by name" if names else "client")

    def server(self) -> ssl.SSLContext:
        """For as long as one likes: each connection gets the newest files. Raises UsageError, as `client` does."""
        return self._newest("server")

    def _newest(self, side: _Side) -> ssl.SSLContext:
        """While a renewal is half done, or went wrong, it is the one before."""
        known = self._contexts.get(side)
        try:
            stamp = self._stamp()
            if known is not None and self._stamps[side] == stamp:
                return known
            self._stamps[side] = stamp
            context = self._loaded(side)
        except (OSError, ssl.SSLError) as error:
            if known is None:
                raise self._unusable(error) from error
            log.warning("%s; those from before are used on", self._unusable(error).message)
            return known
        self._contexts[side] = context
        return context

    def _stamp(self) -> _Stamp:
        stats = ((self.folder / name).stat() for name in (CERTIFICATE, KEY, AUTHORITY))
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _loaded(self, side: _Side) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = side == "client by name"
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY)
        context.load_verify_locations(self.folder / AUTHORITY)
        if side == "server":
            context.num_tickets = 0  # who comes back shows its certificate again
            context.sni_callback = self._accept
        return context

    def _accept(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """It begins: OpenSSL asks whether another context is to serve it, also where no name was said."""
        connection.context = self._newest("server")

    def _unusable(self, error: Exception) -> UsageError:
        why = getattr(error, "strerror", None) or str(error)
        return UsageError(
            f"the certificates in {str(self.folder)!r} cannot be used: {why}",
            hint=f"it needs {CERTIFICATE}, its key in {KEY}, and {AUTHORITY}, as a Secret with them is mounted",
        )


def peer_name(connection: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """The common name of the other side; "" where there is none."""
    if connection is None:
        return ""
    shown = connection.getpeercert() or {}
    for part in shown.get("subject", ()):
        for pair in part:
            if pair[0] == "commonName":
                return str(pair[1])
    return ""
