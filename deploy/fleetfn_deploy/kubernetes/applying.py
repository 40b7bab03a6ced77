"""Objects become true, one after the other, by server-side apply as the field manager `fleetfn`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_PART, MANAGER
from fleetfn_spec.control import Change

from fleetfn_deploy.kubernetes import comparing, kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, labels_of, name_of, shown
from fleetfn_deploy.kubernetes.refusals import UnreachableError

_REPLICAS_MANAGER = "fleetfn-replicas"
"""Keeps `spec.replicas` of a new Deployment at 0 until KEDA takes the field: nobody's field would be 1 by default."""


async def check_owners(cluster: Cluster, things: Iterable[Object], function: str | None) -> None:
    """Refuses all objects of the same names that are somebody else's. `function` None: the gateway's objects."""
    others = []
    for thing in things:
        live = await cluster.get(kinds.of(thing), name_of(thing))
        if live is not None and (owner := _other(live, function)):
            others.append(f"{shown(thing)}: {owner}")
    if others:
        raise TargetError(
            f"namespace {cluster.namespace!r} has objects of the same name that are not FleetFn's:\n  "
            + "\n  ".join(others),
            hint="Give the function another name, or remove them. Nothing was changed.",
        )


def _other(live: Object, function: str | None) -> str:
    labels = labels_of(live)
    manager = labels.get(LABEL_MANAGED_BY)
    if manager != MANAGER:
        return f"managed by {manager}" if manager else f"it has no label {LABEL_MANAGED_BY}={MANAGER}"
    if labels.get(LABEL_FUNCTION) != function:
        return f"it belongs to function {labels[LABEL_FUNCTION]}" if LABEL_FUNCTION in labels else "the gateway's"
    return ""


async def apply(cluster: Cluster, things: Sequence[Object], *, force: bool = False) -> None:
    """In order. Where it breaks off, the error says what is applied and what is not; run again, it goes on."""
    for done, thing in enumerate(things):
        try:
            await _apply(cluster, thing, force=force)
        except TargetError as error:
            raise _broken_off(error, things, done) from error


async def _apply(cluster: Cluster, thing: Object, *, force: bool) -> None:
    if thing["kind"] != kinds.DEPLOYMENT.name:
        await cluster.apply(thing, force=force)
        return
    without = _without_replicas(thing)
    live = await cluster.get(kinds.DEPLOYMENT, name_of(thing))
    if live is None or _keeps_replicas(live):
        # A field that its only manager gives up falls back to its default, so another one takes it first.
        if live is None:
            await cluster.apply({**without, "spec": {**without["spec"], "replicas": 0}}, force=force)
        await cluster.apply(_replicas_alone(thing, live), manager=_REPLICAS_MANAGER, force=True)
    await cluster.apply(without, force=force)


def _without_replicas(thing: Object) -> Object:
    return {**thing, "spec": {field: value for field, value in thing["spec"].items() if field != "replicas"}}


def _keeps_replicas(live: Object) -> bool:
    """Are they ours, as after a first deploy that broke off?"""
    return any(
        each.get("manager") == MANAGER and "f:replicas" in (each.get("fieldsV1") or {}).get("f:spec", {})
        for each in live["metadata"].get("managedFields") or []
    )


def _replicas_alone(thing: Object, live: Object | None) -> Object:
    return {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        "metadata": {"name": name_of(thing)},
        "spec": {"replicas": live["spec"].get("replicas", 0) if live is not None else 0},
    }


def _broken_off(error: TargetError, things: Sequence[Object], done: int) -> TargetError:
    if len(things) == 1:
        return error
    applied = ", ".join(shown(each) for each in things[:done]) or "nothing"
    rest = ", ".join(shown(each) for each in things[done:])
    message = f"{error.message}\n  applied: {applied}\n  not applied: {rest}"
    kind = UnreachableError if isinstance(error, UnreachableError) else TargetError
    return kind(message, hint=error.hint)


async def sweep(cluster: Cluster, function: str, things: Iterable[Object]) -> None:
    """What is the function's, and no longer among its objects, goes: a login of a connection that it had, say."""
    kept = {(each["kind"], name_of(each)) for each in things}
    labels = f"{LABEL_MANAGED_BY}={MANAGER},{LABEL_FUNCTION}={function},{LABEL_PART}=function"
    for kind in kinds.RENDERED:
        for live in await cluster.list(kind, labels=labels):
            if (kind.name, name_of(live)) not in kept:
                await cluster.delete(kind, name_of(live))


async def compare(cluster: Cluster, things: Iterable[Object], *, force: bool = False) -> list[Change]:
    """What applying would change, by the server's dry run; changes nothing."""
    found: list[Change] = []
    for thing in things:
        live = await cluster.get(kinds.of(thing), name_of(thing))
        asked = _without_replicas(thing) if thing["kind"] == kinds.DEPLOYMENT.name else thing
        would = await cluster.apply(asked, force=force, dry_run=True)
        found += comparing.changes(live, {**would, "apiVersion": thing["apiVersion"], "kind": thing["kind"]})
    return found
