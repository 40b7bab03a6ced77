"""What all workers that run by themselves need, in an image, in a pod or from a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fleetfn.errors import FleetError, UsageError
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec import secrets
from fleetfn_spec.function import Function

REVISION = "FLEETFN_REVISION"
"""Environment variable: names the revision, of which logs and dead letters show the first digits."""

_SHOWN = 12
"""Digits of a revision."""

_MEASURING = 5.0
"""Seconds for a process to tell its figures."""


def serves(function: Function) -> bool:
    return any(trigger.http is not None for trigger in function.spec.triggers)


async def figures(socket: Path) -> bytes:
    client = UnixClient(socket)
    try:
        return (await client.request("GET", "/metrics", limit=_MEASURING)).body
    except UnreachableError:
        return b""
    finally:
        await client.close()


def read_env_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f'the env file "{path}" cannot be read: {error.strerror}') from error
    return secrets.parse_env_file(text, str(path))


def revision(folder: Path) -> str:
    """As shown to people."""
    return (os.environ.get(REVISION) or _digest(folder))[:_SHOWN]


def _digest(folder: Path) -> str:
    """Names the source in logs and dead letters: a hash over its files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            digest.update("/".join(parts).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def describe(error: FleetError) -> str:
    return f"Error: {error.message}" + (f"\n\nHint: {error.hint}" if error.hint else "")
