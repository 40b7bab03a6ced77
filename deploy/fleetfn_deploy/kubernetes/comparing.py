"""What an apply would change of an object: the server's own dry run against what is there."""

from __future__ import annotations

import hashlib
from typing import Any

from fleetfn_spec.control import Change
from fleetfn_spec.differences import differences

from fleetfn_deploy.kubernetes.kinds import Object, shown

_SERVERS = frozenset(
    {"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "deletionTimestamp"}
)
"""Metadata that the server writes."""

_OTHERS = ("deployment.kubernetes.io/", "kubectl.kubernetes.io/", "autoscaling.keda.sh/", "scaledobject.keda.sh/")
"""Annotations of those who run it."""


def changes(live: Object | None, would: Object) -> list[Change]:
    """`would`: the answer of a dry run, so that defaults stand on both sides. Values of secrets are never shown."""
    name = shown(would)
    if live is None:
        return [Change(name, None, "made")]
    found = differences("", _plain(live), _plain(would))
    return [Change(f"{name} {each.field}", each.old, each.new) for each in found]


def _plain(thing: Object) -> dict[str, Any]:
    kept = {field: value for field, value in thing.items() if field not in {"status", "apiVersion", "kind"}}
    metadata = {field: value for field, value in thing["metadata"].items() if field not in _SERVERS}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {name: value for name, value in annotations.items() if not name.startswith(_OTHERS)}
    if thing["kind"] == "Secret":
        for field in ("data", "stringData"):
            if field in kept:
                kept[field] = {name: _veiled(value) for name, value in (kept[field] or {}).items()}
    return {**kept, "metadata": metadata}


def _veiled(value: Any) -> str:
    """Tells whether it changes, and not what it is."""
    return f"secret ({hashlib.sha256(str(value).encode()).hexdigest()[:6]})"
