"""One deploy of a function at a time: a Lease says whose turn it is. Who dies in his turn loses it after a while."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import getpass
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import LABEL_FUNCTION, LABEL_MANAGED_BY, MANAGER

from fleetfn_deploy.kubernetes import kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import LEASE, Object
from fleetfn_deploy.kubernetes.refusals import RefusedByClusterError

LASTS = 60
"""Seconds without a sign of life after which a turn is anybody's. Clocks of two machines may differ by some of it."""
_RENEW = 15.0


@contextlib.asynccontextmanager
async def turn(cluster: Cluster, function: str) -> AsyncIterator[None]:
    """Refuses with who has it and since when. The Lease is gone afterwards."""
    name = f"fleetfn-{function}"
    lease = await _take(cluster, function, name)
    renewing = asyncio.create_task(_renew(cluster, lease))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(TargetError):  # it ends by itself
            await cluster.delete(LEASE, name)


async def _take(cluster: Cluster, function: str, name: str) -> Object:
    live = await cluster.get(LEASE, name)
    try:
        if live is None:
            return await cluster.create(_lease(function, name))
        if not _over(live):
            raise _taken(function, live)
        version = live["metadata"]["resourceVersion"]
        return await cluster.replace(_lease(function, name, version))
    except RefusedByClusterError as error:
        if error.reason not in {"AlreadyExists", "Conflict"}:
            raise
    live = await cluster.get(LEASE, name)
    raise _taken(function, live)


async def _renew(cluster: Cluster, lease: Object) -> None:
    """A renewal that fails is not the deploy's end: the others that it makes will tell, or the next one succeeds."""
    while True:
        await asyncio.sleep(_RENEW)
        with contextlib.suppress(TargetError):
            await cluster.merge(LEASE, kinds.name_of(lease), {"spec": {"renewTime": _now()}})


def _lease(function: str, name: str, version: str | None = None) -> Object:
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {LABEL_MANAGED_BY: MANAGER, LABEL_FUNCTION: function},
    }
    if version is not None:
        metadata["resourceVersion"] = version
    now = _now()
    spec = {"holderIdentity": _who(), "leaseDurationSeconds": LASTS, "acquireTime": now, "renewTime": now}
    return {"apiVersion": LEASE.api, "kind": LEASE.name, "metadata": metadata, "spec": spec}


def _over(lease: Object) -> bool:
    spec = lease.get("spec") or {}
    renewed = dt.datetime.fromisoformat(spec["renewTime"]) if spec.get("renewTime") else None
    if renewed is None:
        return True
    lasts = dt.timedelta(seconds=spec.get("leaseDurationSeconds") or LASTS)
    return dt.datetime.now(dt.UTC) > renewed + lasts


def _taken(function: str, lease: Object | None) -> TargetError:
    spec = (lease or {}).get("spec") or {}
    who, since = spec.get("holderIdentity", "somebody else"), str(spec.get("acquireTime", ""))[11:19]
    return TargetError(
        f"{function} is being deployed by {who}" + (f" since {since} UTC" if since else ""),
        hint=f"Wait until that is done. If it was killed, its turn is over {LASTS} s after its last sign of life.",
    )


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
