"""What the cluster complains of about a function: its own warnings, KEDA's and Dapr's."""

from __future__ import annotations

import datetime as dt

from fleetfn_deploy.kubernetes import kinds, pods
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object
from fleetfn_deploy.kubernetes.refusals import FORBIDDEN, RefusedByClusterError

_RECENT = 3600
"""Seconds that a warning of the cluster is worth telling."""
_PASSING = {"ScaledObject": 360, "HorizontalPodAutoscaler": 360}
"""Those who complain again and again while something is wrong, noted once in five minutes at least: after so many
seconds without, it has passed.
"""
_LONGEST = 300
"""Characters of a warning: an autoscaler's says the same thing three times, each within the other."""
_OF_FUNCTION = ("ScaledObject", "Deployment", "HorizontalPodAutoscaler", "ReplicaSet", "Pod")
_MOST = 5
"""Warnings that are told."""
_SOMEBODY_WAS_FASTER = "the object has been modified; please apply your changes to the latest version"
"""A controller's write, which it does again at once."""


async def of(cluster: Cluster, name: str, *, since: str = "") -> list[str]:
    """Recent ones, newest first, each kind of complaint once. `since`: when the function came to be, in RFC 3339; what
    was told of an earlier one of its name is left out.
    """
    try:
        events = await cluster.list(kinds.EVENT, fields="type=Warning")
    except RefusedByClusterError as error:
        if error.status == FORBIDDEN:
            return ["the cluster's events may not be read with these rights"]
        raise
    now = dt.datetime.now(dt.UTC)
    about_it = [each for each in events if _is_about(each, name) and pods.event_time(each) >= since]
    found = [each for each in about_it if _is_recent(each, now)]
    found.sort(key=pods.event_time, reverse=True)
    lines: dict[str, str] = {}
    for each in found:
        about = each["involvedObject"]
        said = _short(str(each.get("message", "")).strip())
        text = f"{about['kind']} {about['name']}: {each.get('reason', '')}: {said}"
        lines.setdefault(f"{about['kind']} {each.get('reason')}", text)
    return list(lines.values())[:_MOST]


def _is_recent(event: Object, now: dt.datetime) -> bool:
    age = _PASSING.get((event.get("involvedObject") or {}).get("kind", ""), _RECENT)
    return pods.event_time(event) > (now - dt.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S")


def _short(text: str) -> str:
    """Without its middle: the cause is at the end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def _is_about(event: Object, name: str) -> bool:
    about = event.get("involvedObject") or {}
    named = str(about.get("name", ""))
    if event.get("reason") == "Unhealthy" and not str(event.get("message", "")).startswith("Liveness"):
        return False  # so is each pod that starts or ends
    if _SOMEBODY_WAS_FASTER in str(event.get("message", "")):
        return False
    return about.get("kind") in _OF_FUNCTION and (named in {name, f"keda-hpa-{name}"} or named.startswith(f"{name}-"))
