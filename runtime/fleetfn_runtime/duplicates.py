"""What the caller of a request that was taken already gets: the reply of the first time."""

from __future__ import annotations

from fleetfn.http import Response
from fleetfn.position import Reply

HEADER = "fn-duplicate"


def remembered(response: Response | None) -> Reply | None:
    """A handler's reply (its body is bytes by now) as a record keeps it."""
    if response is None or not isinstance(response.body, bytes):
        return None
    return Reply(response.status, list(response.headers.items()), response.body)


def reply(kept: Reply | None) -> Response:
    """The remembered reply, or 200 where it was too large or is too old."""
    if kept is None:
        return Response(200, b"", {HEADER: "true"})
    return Response(kept.status, kept.body, {**dict(kept.headers), HEADER: "true"})
