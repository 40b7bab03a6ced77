"""What a handler returned, as the reply to an HTTP caller: always with a body of bytes and a content type."""

from __future__ import annotations

from typing import Any

from fleetfn.emits import JSON, encode_data
from fleetfn.event import Event
from fleetfn.http import Response
from fleetfn.values import encode

_JSON = {"content-type": JSON}
_NOTHING = Response(204, b"", {})
_AS_IT_IS = (str, bytes, bytearray, memoryview)


def reply(value: Any) -> Response:
    """None: 204; Response: as it is; str: text; bytes: octets; Event: its data; the rest: JSON. Raises TypeError."""
    if value is None:
        return _NOTHING
    if isinstance(value, Response):
        return _response(value)
    if isinstance(value, Event):
        body, media = encode_data(value.data)
        return Response(200, body or b"", {"content-type": value.datacontenttype or media or JSON})
    if isinstance(value, _AS_IT_IS):
        body, media = encode_data(value)
        return Response(200, body, {"content-type": media or JSON})
    return Response(200, encode(value), _JSON)


def _response(response: Response) -> Response:
    body, media = encode_data(response.body)
    headers = {name.lower(): value for name, value in response.headers.items()}
    if media is not None:
        headers.setdefault("content-type", media)
    return Response(response.status, body or b"", headers)
