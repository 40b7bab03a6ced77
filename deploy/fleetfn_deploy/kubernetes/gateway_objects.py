"""The gateway of a namespace: one pod with a volume, what it may read and write, and how it is reached."""

from __future__ import annotations

from typing import Any

from fleetfn_spec.cluster import (
    ACTIVATOR_PORTS,
    GATEWAY,
    GATEWAY_TLS,
    HEALTH_PORT,
    INBOX_PORT,
    LABEL_PART,
    SCALER_PORT,
    SECRETS_FOLDER,
    TLS_FOLDER,
)
from fleetfn_spec.kubernetes import GATEWAY as AMOUNTS
from fleetfn_spec.kubernetes import in_bytes

from fleetfn_deploy.kubernetes import containers, metadata
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Installation

DATA = "/data"

_RBAC = "rbac.authorization.k8s.io"

_COMMAND = ["/layers/fleetfn_python/dependencies/bin/python", "-m", "fleetfn_gateway.cluster"]
"""Its image is built as those of functions are; this is where their Python lies."""

_TRIAL_LIMIT = 900
"""Seconds until a trial is ended by the cluster: for one whose `fn` was killed."""

INBOX_SHARE = 0.9
"""Of its volume that the inbox may fill: file systems need room, and what is full has to be worked off."""

_WATCH = ["get", "list", "watch"]


def rights(namespace: str) -> list[Object]:
    """Secrets are not among them: each function brings a Role for those that it names."""
    rules = [
        {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": _WATCH},
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": [*_WATCH, "create", "patch", "delete"],
        },
    ]
    subjects = [{"kind": "ServiceAccount", "name": GATEWAY, "namespace": namespace}]
    role = {"apiGroup": _RBAC, "kind": "Role", "name": GATEWAY}
    return [
        metadata.of_gateway(namespace, "v1", "ServiceAccount", automountServiceAccountToken=False),
        metadata.of_gateway(namespace, f"{_RBAC}/v1", "Role", rules=rules),
        metadata.of_gateway(namespace, f"{_RBAC}/v1", "RoleBinding", roleRef=role, subjects=subjects),
    ]


def service(namespace: str) -> Object:
    """One address for workers and KEDA, which stays when the pod is another."""
    ports = [
        {"name": "inbox", "protocol": "TCP", "port": INBOX_PORT, "targetPort": INBOX_PORT},
        {"name": "scaler", "protocol": "TCP", "port": SCALER_PORT, "targetPort": SCALER_PORT},
        {"name": "health", "protocol": "TCP", "port": HEALTH_PORT, "targetPort": HEALTH_PORT},
    ]
    spec = {"type": "ClusterIP", "selector": metadata.gateway_labels(), "ports": ports}
    return metadata.of_gateway(namespace, "v1", "Service", spec=spec)


def stateful_set(installation: Installation) -> Object:
    """One pod: what waits is in one volume, and has one writer. Volume claims of a set cannot be changed later."""
    wanted = installation.target.gateway
    claim = {
        "accessModes": ["ReadWriteOnce"],
        **({"storageClassName": wanted.storageClass} if wanted.storageClass else {}),
        "resources": {"requests": {"storage": wanted.storage}},
    }
    spec = {
        "replicas": 1,
        "serviceName": GATEWAY,
        "selector": metadata.gateway_selector(),
        "template": {
            "metadata": {"labels": metadata.gateway_labels()},
            "spec": {
                "serviceAccountName": GATEWAY,
                "automountServiceAccountToken": True,
                "enableServiceLinks": False,
                "securityContext": containers.POD_SECURITY,
                **containers.scheduling(installation.target),
                "terminationGracePeriodSeconds": 30,
                "containers": [_container(installation)],
                "volumes": _volumes(),
            },
        },
        "volumeClaimTemplates": [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "labels": metadata.gateway_labels()},
                "spec": claim,
            }
        ],
    }
    return metadata.of_gateway(installation.namespace, "apps/v1", "StatefulSet", spec=spec)


def trial(installation: Installation) -> Object:
    """A pod that says how the gateway is started, and ends: its image can be pulled, and what it needs is in it."""
    container = _container(installation)
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": containers.POD_SECURITY,
        **containers.scheduling(installation.target),
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _TRIAL_LIMIT,
        "containers": [
            {
                **{name: container[name] for name in ("name", "image", "imagePullPolicy", "resources")},
                "securityContext": dict(containers.SECURITY),
                "command": [*_COMMAND, "--help"],
            }
        ],
    }
    pod = metadata.of_gateway(installation.namespace, "v1", "Pod", f"{GATEWAY}-check", spec=spec)
    pod["metadata"]["labels"][LABEL_PART] = "check"
    return pod


def _container(installation: Installation) -> Object:
    return {
        "name": "gateway",
        "image": installation.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*_COMMAND, "--data", DATA, "--namespace", installation.namespace, "--quota", _quota(installation)],
        "ports": [
            {"name": "inbox", "containerPort": INBOX_PORT},
            {"name": "scaler", "containerPort": SCALER_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
            {"name": "activator", "containerPort": ACTIVATOR_PORTS[0]},  # and those after it, one per function
        ],
        "resources": containers.resources(installation.target.gateway.resources.over(AMOUNTS)),
        "securityContext": dict(containers.SECURITY),
        "readinessProbe": {**_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True},
            {"name": "secrets", "mountPath": SECRETS_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the pod alone
        ],
    }


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "health"}, "timeoutSeconds": 5}


def _volumes() -> list[dict[str, Any]]:
    return [
        {"name": "tls", "secret": {"secretName": GATEWAY_TLS, "defaultMode": containers.READABLE}},
        {"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]


def _quota(installation: Installation) -> str:
    """Bytes."""
    return str(int(in_bytes(installation.target.gateway.storage) * INBOX_SHARE))
