"""The bearer key that callers present where a node or a lone worker has one."""

from __future__ import annotations

import hmac
from pathlib import Path

from fleetfn.errors import UsageError
from fleetfn.http import Response

from fleetfn_runtime import http_replies
from fleetfn_runtime.http_head import Head


def read(path: Path) -> bytes:
    """The key in a file, without the space around it. Raises UsageError."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f'the key file "{path}" cannot be read: {error.strerror}') from error
    if not key:
        raise UsageError(f'the key file "{path}" is empty', hint="write a long random key into it")
    return key


def refusal(head: Head, key: bytes | None) -> Response | None:
    """What a caller without the key gets; None: it may go on. Takes equally long for every wrong key."""
    if key is None:
        return None
    scheme, _, given = head.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), key):
        return None
    hint = "send the header `Authorization: Bearer <key>`"
    return http_replies.problem(401, "the key is missing or wrong", hint, headers={"www-authenticate": "Bearer"})
