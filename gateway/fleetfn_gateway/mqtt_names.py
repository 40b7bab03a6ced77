"""Client ids: the name of a session at its broker, the same for as long as its trigger lives."""

from __future__ import annotations

import hashlib

LIMIT = 128
"""Bytes of a client id. MQTT has no limit; some brokers in the cloud take no longer ones."""

SHORT = 23
"""Characters, letters and digits only, that every broker of MQTT 3.1.1 has to take."""


def client_id(environment: str, place: str, function: str, trigger: str) -> str:
    """Readable, since operators see it in the broker's own lists."""
    name = f"fleetfn/{environment}/{place}/{function}/{trigger}"
    if len(name.encode()) <= LIMIT:
        return name
    mark = _mark(name, 16)
    return f"{name.encode()[: LIMIT - len(mark) - 1].decode(errors='ignore')}-{mark}"


def short(name: str) -> str:
    """For a broker that refuses the long one."""
    return "fleetfn" + _mark(name, SHORT - 7)


def _mark(name: str, size: int) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:size]
