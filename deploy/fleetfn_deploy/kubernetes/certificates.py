"""A namespace's certificates, made with its first function and renewed by whoever deploys: see pki.py."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import CA

from fleetfn_deploy.kubernetes import applying, kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, name_of
from fleetfn_deploy.kubernetes.refusals import RefusedByClusterError

_TRIES = 3


async def ensure(cluster: Cluster, function: str | None = None) -> None:
    """Of the gateway and KEDA, and of a function. An authority that another deploy makes at the same moment counts."""
    from fleetfn_deploy.kubernetes import pki  # noqa: PLC0415 - cryptography takes 0.2 s

    names = pki.names(function)
    for _ in range(_TRIES):
        live = await _live(cluster, names)
        due = pki.due(cluster.namespace, live, dt.datetime.now(dt.UTC), function=function)
        shared = [each for each in due if name_of(each) in pki.names()]
        await applying.check_owners(cluster, shared, None)
        await applying.check_owners(cluster, [each for each in due if each not in shared], function)
        try:
            for secret in due:
                if name_of(secret) == CA and CA not in live:
                    await cluster.create(secret)
                else:
                    await cluster.apply(secret)
        except RefusedByClusterError as error:
            if error.reason != "AlreadyExists":
                raise
        else:
            return
    raise TargetError(f"Secret {CA} comes and goes", hint="Somebody else makes and removes it: deploy again.")


async def _live(cluster: Cluster, names: Iterable[str]) -> dict[str, Object]:
    found = {name: await cluster.get(kinds.SECRET, name) for name in names}
    return {name: secret for name, secret in found.items() if secret is not None}
