"""What servers of tests that answer on threads have in common."""

from __future__ import annotations

import socketserver
import sys
from http.server import ThreadingHTTPServer
from typing import Any


class CallersMayLeave(socketserver.BaseServer):
    """A caller who has read enough closes the connection, and what is still written fails: that is nobody's error."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class ThreadedServer(CallersMayLeave, ThreadingHTTPServer): ...
