"""Raw HTTP for handlers that ask for it: Request in, Response out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. Header names are lower-case; `path_params` are the `{name}` parts of the trigger's path."""

    method: str
    path: str
    path_params: Mapping[str, str] = {}
    query: Mapping[str, list[str]] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Response(msgspec.Struct, frozen=True):
    """The reply to an HTTP caller. `body`: bytes and str as they are, anything else as JSON."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = {}
