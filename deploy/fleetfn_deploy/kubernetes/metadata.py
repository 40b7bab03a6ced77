"""Names, labels and annotations of the objects that are ours."""

from __future__ import annotations

from functools import cache
from importlib import metadata as packages
from typing import Any

from fleetfn_spec.cluster import GATEWAY, LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_PART, LABEL_REVISION, MANAGER, Part

from fleetfn_deploy.kubernetes.values import Deployable

Object = dict[str, Any]
"""An object of the API as JSON."""

VERSION = "fleetfn.dev/version"
"""Annotation: of the FleetFn that wrote the object. Not on pods, which a new version need not replace."""

APP = "app.kubernetes.io/name"


@cache
def version() -> str:
    return packages.version("fleetfn")


def of_function(
    deployable: Deployable,
    api: str,
    kind: str,
    name: str | None = None,
    *,
    part: Part = "function",
    revision: bool = False,
    **content: Any,
) -> Object:
    """An object of a function. `name`: the function's own where it is left out."""
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": name or deployable.name,
            "namespace": deployable.namespace,
            "labels": labels(deployable, part, revision=revision),
            "annotations": {VERSION: version()},
        },
        **content,
    }


def of_gateway(namespace: str, api: str, kind: str, name: str = GATEWAY, **content: Any) -> Object:
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": gateway_labels(),
            "annotations": {VERSION: version()},
        },
        **content,
    }


def labels(deployable: Deployable, part: Part, *, revision: bool = False) -> dict[str, str]:
    """The user's own, and ours."""
    revised = {LABEL_REVISION: deployable.short} if revision else {}
    return deployable.function.metadata.labels | plain_labels(deployable.name, part) | revised


def plain_labels(function: str, part: Part = "function") -> dict[str, str]:
    return {APP: function, LABEL_MANAGED_BY: MANAGER, LABEL_FUNCTION: function, LABEL_PART: part}


def gateway_labels() -> dict[str, str]:
    return {APP: GATEWAY, LABEL_MANAGED_BY: MANAGER, LABEL_PART: "gateway"}


def selector(deployable: Deployable) -> dict[str, Any]:
    """Of a function's workers; never changes, since a Deployment's cannot."""
    return {"matchLabels": {LABEL_FUNCTION: deployable.name, LABEL_PART: "worker"}}


def gateway_selector() -> dict[str, Any]:
    return {"matchLabels": {LABEL_PART: "gateway"}}
