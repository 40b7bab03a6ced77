"""Why a pod is not what it should be: what its status, its events and its last log lines say, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fleetfn_deploy.kubernetes import kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, name_of
from fleetfn_deploy.kubernetes.refusals import RefusedByClusterError

_TAIL = 20
"""Log lines that are shown of a pod that failed."""

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_GIVEN_UP = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff"})


@dataclass(frozen=True, slots=True)
class Trouble:
    message: str
    hint: str = ""
    final: bool = False
    """Waiting longer would not help; otherwise it may pass (a Secret on its way, a node that is being added)."""
    container: str = ""
    """Whose log may tell more; ''."""
    previous: bool = False
    """Of the run before."""


def ready(pod: Object) -> bool:
    """Takes work, and is not being ended."""
    return "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready").get("status") == "True"


def ended_well(pod: Object, container: str) -> bool:
    """Has it? A sidecar may run on."""
    found = ((pod.get("status") or {}).get("containerStatuses")) or []
    ends = [(each.get("state") or {}).get("terminated") for each in found if each["name"] == container]
    return any(each is not None and each.get("exitCode") == 0 for each in ends)


def condition(thing: Object, name: str) -> dict[str, Any]:
    """{} where it has none of that type."""
    found = (thing.get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == name), {})


def trouble(pod: Object) -> Trouble | None:
    """What keeps a pod from getting ready, or has ended it; None: nothing that it tells."""
    status = pod.get("status") or {}
    if (placed := condition(pod, "PodScheduled")).get("reason") == "Unschedulable":
        return Trouble(
            f"pod {name_of(pod)} finds no node: {placed.get('message', '')}",
            "Free room, add a node, or change what the function asks for (resources, node selector, tolerations).",
        )
    for each in _containers(status):
        if (found := _of_container(pod, each)) is not None:
            return found
    if status.get("phase") == "Failed":
        why = " ".join(each for each in (status.get("reason", ""), status.get("message", "")) if each)
        return Trouble(f"pod {name_of(pod)} failed: {why or 'it does not say why'}", final=True)
    return None


def _containers(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _of_container(pod: Object, container: dict[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    if (waiting := state.get("waiting")) is not None:
        return _waiting(pod, container, waiting.get("reason") or "", waiting.get("message") or "")
    ended = state.get("terminated")
    if ended is not None and ended.get("exitCode") != 0:
        final = ended.get("reason") == "OOMKilled" or not _is_started_again(pod)
        return Trouble(_ended(pod, container, ended), final=final, container=container["name"])
    return None


def _is_started_again(pod: Object) -> bool:
    """Its containers, when they end: what serves may just have been killed. One that ends again at once gets into
    CrashLoopBackOff.
    """
    return (pod.get("spec") or {}).get("restartPolicy") == "Always"


def _waiting(pod: Object, container: dict[str, Any], reason: str, message: str) -> Trouble | None:
    if reason in _IMAGE:
        return Trouble(
            f"image {container.get('image', '')!r} cannot be pulled ({reason}): {message}",
            "Is it in the registry, may the cluster's nodes pull it (imagePullSecrets), and do they trust its "
            "certificate?",
            final=reason in _GIVEN_UP,
        )
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return Trouble(_ended(pod, container, last), final=True, container=container["name"], previous=True)
    if reason in {"", "ContainerCreating", "PodInitializing"}:
        return None
    return Trouble(f"container {container['name']} of pod {name_of(pod)} does not start ({reason}): {message}")


def _ended(pod: Object, container: dict[str, Any], ended: dict[str, Any]) -> str:
    reason = ended.get("reason") or "Error"
    code = ended.get("exitCode", "?")
    which = f"container {container['name']} of pod {name_of(pod)}"
    if reason == "OOMKilled":
        return f"{which} needed more memory than its limit and was killed"
    return f"{which} ended with exit code {code} ({reason})"


async def told(cluster: Cluster, pod: Object, found: Trouble) -> str:
    """The trouble with the last lines of the log behind it, where there is one."""
    lines = [found.message]
    if found.container:
        lines += await _tail(cluster, name_of(pod), found.container, previous=found.previous)
    return "\n  ".join(lines)


async def _tail(cluster: Cluster, pod: str, container: str, *, previous: bool) -> list[str]:
    lines: list[str] = []
    try:
        async for line in cluster.log(pod, container, tail=_TAIL, previous=previous):
            lines += readable(line.partition(b" ")[2])
    except RefusedByClusterError as error:
        return [f"(its log cannot be had: {error.message})"]
    return lines[-_TAIL:]


def readable(line: bytes) -> list[str]:
    """A worker's JSON line as text, its traceback with it; other lines as they are."""
    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError:
        fields = None
    if not isinstance(fields, dict) or "message" not in fields:
        return [line.decode("utf-8", "replace")]
    text = f"{str(fields.get('level', '')).upper()} {fields['message']}".strip()
    if error := fields.get("exception"):
        text += f": {error}"
    return [text, *str(fields.get("traceback") or "").rstrip().splitlines()]


async def complaints(cluster: Cluster, kind: str, name: str) -> list[Object]:
    """Warnings about an object, oldest first."""
    fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
    return sorted(await cluster.list(kinds.EVENT, fields=fields), key=event_time)


def event_time(event: Object) -> str:
    """RFC 3339; sorts as text, nearly: some have microseconds."""
    series = event.get("series") or {}
    found = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(found or event["metadata"].get("creationTimestamp", ""))
