"""Triggers paused by hand: the head says so to the gateway, and through it to workers; KEDA no longer asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from fleetfn.errors import TargetError

from fleetfn_deploy.kubernetes import applying, kinds, render
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.revisions import History


async def pause(cluster: Cluster, history: History, triggers: Sequence[str], *, stop: bool, force: bool) -> None:
    """Those named, or all; `stop` False resumes them. Raises TargetError where there is none of that name."""
    known = [each.name for each in history.head.function.spec.triggers]
    if unknown := [each for each in triggers if each not in known]:
        raise TargetError(
            f"{history.head.function.name!r} has no trigger {unknown[0]!r}", hint=f"It has: {', '.join(known)}."
        )
    named = set(triggers or known)
    before = set(history.head.paused)
    paused = before | named if stop else before - named
    serving = history.now(cluster.namespace, paused=tuple(each for each in known if each in paused))
    things = render.objects(serving)
    told = [*(each for each in things if each["kind"] == kinds.SCALED_OBJECT.name), things[-1]]
    await applying.compare(cluster, told, force=force)  # what is refused of one must not leave the others changed
    await applying.apply(cluster, told, force=force)
