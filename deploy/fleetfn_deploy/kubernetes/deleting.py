"""A function goes: everything that is ours of it, and nothing else. Its Kafka groups stay, with their offsets."""

from __future__ import annotations

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import ANNOTATION_ROWS, GATEWAY, LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_PART, MANAGER

from fleetfn_deploy.kubernetes import errands, kinds, render, revisions, worker_pod
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Kind, name_of
from fleetfn_deploy.kubernetes.refusals import UnreachableError
from fleetfn_deploy.kubernetes.revisions import History
from fleetfn_deploy.kubernetes.values import Deployable
from fleetfn_deploy.kubernetes.waiting import Wait, selector
from fleetfn_deploy.target import Progress

_LEFT = frozenset({kinds.LEASE, kinds.STATEFUL_SET})
"""Not a function's own: a Lease is gone when its turn is over."""

_STARTERS = (kinds.SCALED_OBJECT, kinds.INTERCEPTOR_ROUTE, kinds.DEPLOYMENT)
"""What makes pods, or has them made."""


async def delete(cluster: Cluster, history: History, wait: Wait, progress: Progress, *, keep_state: bool) -> None:
    """With its state, what waits for it and its dead letters, unless they are kept. Broken off, it may be done again:
    the head goes when the state has gone.
    """
    name = history.head.function.name
    for kind in _STARTERS:
        await _all(cluster, kind, _ours(name, kind))
    progress(f"draining {name}")
    await _without_pods(cluster, name, wait)
    if not keep_state:
        if (keeper := history.keeper) is not None:
            progress("removing its state")
            await _forget(cluster, keeper.deployable(cluster.namespace), wait)
        await cluster.merge(kinds.CONFIG_MAP, name, {"metadata": {"annotations": {ANNOTATION_ROWS: "drop"}}})
    await remove(cluster, name, wait)


async def remove(cluster: Cluster, name: str, wait: Wait) -> None:
    """What makes pods first; returns once its pods have ended."""
    for kind in kinds.OURS:
        if kind not in _LEFT:
            await _all(cluster, kind, _ours(name, kind))
    await _without_pods(cluster, name, wait)


async def _without_pods(cluster: Cluster, name: str, wait: Wait) -> None:
    async def look() -> bool | str:
        pods = await cluster.list(kinds.POD, labels=selector({LABEL_FUNCTION: name}))
        return not pods or f"pod {name_of(pods[0])} is draining"

    await wait.until(f"pods of {name} had not ended", look, bool)


async def _forget(cluster: Cluster, keeper: Deployable, wait: Wait) -> None:
    """By a pod of its own: only a function's sidecar sees its state."""
    things = [each for each in render.objects(keeper) if each["kind"] != kinds.CONFIG_MAP.name]
    try:
        await errands.run(cluster, things, worker_pod.forget(keeper), wait)
    except UnreachableError:
        raise
    except TargetError as error:
        raise TargetError(
            f"the state of {keeper.name} could not be removed: {error.message}",
            hint=f"{error.hint} It no longer runs. Delete it again, or keep its state.".strip(),
        ) from error


async def delete_gateway(cluster: Cluster, wait: Wait, *, keep_data: bool) -> None:
    """Of a namespace without functions. Refuses while there are some, and where there is no gateway."""
    if left := await revisions.heads(cluster):
        names = ", ".join(head.function.name for head in left)
        raise TargetError(f"the gateway of namespace {cluster.namespace!r} serves {names}", hint="Delete them first.")
    labels = {LABEL_MANAGED_BY: MANAGER, LABEL_PART: "gateway"}
    of_it = kinds.OURS if keep_data else (*kinds.OURS, kinds.CLAIM)
    if not [thing for kind in of_it for thing in await cluster.list(kind, labels=selector(labels))]:
        raise TargetError(f"namespace {cluster.namespace!r} has no gateway", hint="There is nothing to delete.")
    for kind in kinds.OURS:
        await _all(cluster, kind, labels)

    async def look() -> bool | str:
        return await cluster.get(kinds.POD, f"{GATEWAY}-0") is None or f"{GATEWAY} is ending"

    await wait.until(f"{GATEWAY} had not ended", look, bool)
    if not keep_data:
        await _all(cluster, kinds.CLAIM, labels)


def _ours(name: str, kind: Kind) -> dict[str, str]:
    labels = {LABEL_FUNCTION: name}
    # Pods and endpoints are made by others, from what we say; their names and labels are ours all the same.
    return labels if kind in {kinds.POD, kinds.ENDPOINT_SLICE} else {**labels, LABEL_MANAGED_BY: MANAGER}


async def _all(cluster: Cluster, kind: Kind, labels: dict[str, str]) -> None:
    for thing in await cluster.list(kind, labels=selector(labels)):
        await cluster.delete(kind, name_of(thing))
