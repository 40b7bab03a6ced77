"""A pod of a function that is none of its workers: it does one thing, says how it went, and is removed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import LABEL_FUNCTION, LABEL_PART

from fleetfn_deploy.kubernetes import applying, kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, labels_of, name_of
from fleetfn_deploy.kubernetes.waiting import Wait


async def run(cluster: Cluster, things: list[Object], pod: Object, wait: Wait, *, force: bool = False) -> None:
    """`things`: all objects of its revision, without those that must stay as they are. Raises TargetError: why it did
    not end well, with the end of its log.
    """
    needed = list(_needed(things, name_of(pod)))
    try:
        await applying.apply(cluster, needed, force=force)
        await cluster.delete(kinds.POD, name_of(pod), grace=0)  # of a command that was killed
        await _until_gone(cluster, name_of(pod), wait)
        await cluster.create(pod)
        await wait.check_pod(name_of(pod))
    finally:
        with contextlib.suppress(TargetError):  # the first reason is the one to tell
            for thing in [pod, *needed]:
                if labels_of(thing).get(LABEL_PART) == "check":
                    await cluster.delete(kinds.of(thing), name_of(thing), grace=0)


async def _until_gone(cluster: Cluster, pod: str, wait: Wait) -> None:
    async def look() -> bool | str:
        return await cluster.get(kinds.POD, pod) is None or f"pod {pod} is ending"

    await wait.until(f"pod {pod} of an earlier command was still there", look, bool)


def _needed(things: list[Object], pod: str) -> Iterator[Object]:
    """Beside its certificate. What serves keeps its own network policy; this pod gets the revision's for itself."""
    for thing in things:
        if thing["kind"] == kinds.SERVICE_ACCOUNT.name or labels_of(thing).get(LABEL_PART) == "revision":
            yield thing
        elif thing["kind"] == kinds.NETWORK_POLICY.name:
            labels = {**labels_of(thing), LABEL_PART: "check"}
            chosen = {LABEL_FUNCTION: labels[LABEL_FUNCTION], LABEL_PART: "check"}
            metadata = {**thing["metadata"], "name": pod, "labels": labels}
            yield {**thing, "metadata": metadata, "spec": {**thing["spec"], "podSelector": {"matchLabels": chosen}}}
