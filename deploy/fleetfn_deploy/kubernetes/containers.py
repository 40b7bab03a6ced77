"""What every container of ours is allowed: no root, no writing outside of its volumes, no capabilities, limits."""

from __future__ import annotations

from typing import Any

from fleetfn_spec.kubernetes import Amounts, KubernetesTarget, Resources

USER = 65532
"""User and group of our images; volumes are given to the group."""

SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Of a container."""

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}

READABLE = 0o440
"""Mode of mounted Secrets: for the group."""


def resources(wanted: Resources) -> dict[str, dict[str, str]]:
    both = {"requests": _amounts(wanted.requests), "limits": _amounts(wanted.limits)}
    return {name: amounts for name, amounts in both.items() if amounts}


def _amounts(amounts: Amounts) -> dict[str, str]:
    both = {"cpu": amounts.cpu, "memory": amounts.memory}
    return {name: amount for name, amount in both.items() if amount is not None}


def variable(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def secret_variable(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def field_variable(name: str, path: str) -> dict[str, Any]:
    """`path`: of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def scheduling(target: KubernetesTarget) -> dict[str, Any]:
    """Where pods may run, and how their images are pulled."""
    tolerations = [
        {name: value for name in each.__struct_fields__ if (value := getattr(each, name)) is not None}
        for each in target.tolerations
    ]
    found = {
        "imagePullSecrets": [{"name": name} for name in target.imagePullSecrets],
        "nodeSelector": dict(target.nodeSelector),
        "tolerations": tolerations,
    }
    return {name: value for name, value in found.items() if value}
