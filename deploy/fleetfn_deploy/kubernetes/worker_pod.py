"""The pod of a worker, and the one that checks a revision before it serves: the same but for what is run."""

from __future__ import annotations

import math
from typing import Any

from fleetfn_spec.cluster import (
    DELIVERY_PORT,
    ENV_ADDRESS,
    ENV_ENVIRONMENT,
    ENV_GATEWAY,
    ENV_PLACE,
    ENV_POD,
    ENV_TLS,
    ENVIRONMENTS_FILE,
    GATEWAY,
    HEAD_FILE,
    HTTP_PORT,
    HTTP_PORT_NAME,
    INBOX_PORT,
    SECRETS_FOLDER,
    TLS_FOLDER,
)
from fleetfn_spec.kubernetes import WORKER
from fleetfn_triggers.secret import Secret

from fleetfn_deploy.kubernetes import containers, metadata, sidecar
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable, split

CONTAINER = "worker"

CHECK = "--check"
"""Argument of a worker that gets ready, commits start offsets and ends."""

FORGET = "--forget"
"""Of one that removes the function's state and ends."""

ENV_REVISION = "FLEETFN_REVISION"

MOVING = 2
"""Seconds that a worker serves on while endpoints are moved away from it."""

_MARGIN = 15
"""Seconds to save, publish and commit after the longest run."""

_CHECK_LIMIT = 900
"""Seconds until a check is ended by the cluster: for one whose `fn` was killed."""

_STARTING = 600
"""Seconds that a start may take."""

_TEMPORARY = "1Gi"
"""Of files below /tmp and of the ledger below /data: beyond it the node ends the pod."""


def template(deployable: Deployable) -> Object:
    """Of the Deployment."""
    return {
        "metadata": {
            "labels": metadata.labels(deployable, "worker", revision=True),
            "annotations": sidecar.notes(deployable),
        },
        "spec": {
            **_spec(deployable, _worker(deployable) | _probes() | _lifecycle(deployable)),
            "terminationGracePeriodSeconds": grace(deployable),
            **_spread(deployable),
        },
    }


def check(deployable: Deployable) -> Object:
    """Ends with exit code 0, or says in its log why not. Look at its container `worker`, not at the pod's phase: an
    injected sidecar may run on.
    """
    return _once(deployable, f"{deployable.name}-check-{deployable.short}", CHECK)


def forget(deployable: Deployable) -> Object:
    """Removes the function's state, by its own sidecar: when it is deleted for good. Ends as `check` does."""
    return _once(deployable, f"{deployable.name}-forget-{deployable.short}", FORGET)


def _once(deployable: Deployable, name: str, argument: str) -> Object:
    """A pod as a worker's is, that does one thing."""
    pod = metadata.of_function(
        deployable,
        "v1",
        "Pod",
        name,
        part="check",
        revision=True,
        spec={
            **_spec(deployable, _worker(deployable) | {"args": [argument]}),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _CHECK_LIMIT,
            "terminationGracePeriodSeconds": MOVING,
        },
    )
    pod["metadata"]["annotations"] |= sidecar.notes(deployable)
    return pod


def grace(deployable: Deployable) -> int:
    """Seconds from the order to end until a worker is killed: the longest run, and a margin."""
    spec = deployable.function.spec
    return math.ceil(max(spec.timeout_of(trigger) for trigger in spec.triggers)) + MOVING + _MARGIN


def _spec(deployable: Deployable, worker: Object) -> Object:
    target = deployable.target
    first = sidecar.container(deployable)
    return {
        "serviceAccountName": deployable.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": containers.POD_SECURITY,
        **containers.scheduling(target),
        **({"runtimeClassName": target.runtimeClassName} if target.runtimeClassName else {}),
        **({"initContainers": first} if first else {}),
        "containers": [worker],
        "volumes": _volumes(deployable),
    }


def _worker(deployable: Deployable) -> Object:
    """It runs the image's own command."""
    wanted = deployable.function.spec.resources.over(deployable.target.resources).over(WORKER)
    return {
        "name": CONTAINER,
        "image": deployable.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _variables(deployable),
        "ports": [
            {"name": HTTP_PORT_NAME, "containerPort": HTTP_PORT},
            {"name": "deliveries", "containerPort": DELIVERY_PORT},
        ],
        "resources": containers.resources(wanted),
        "securityContext": dict(containers.SECURITY),
        "volumeMounts": [
            {"name": "revision", "mountPath": "/etc/fleetfn", "readOnly": True},
            {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True},
            *([{"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": True}] if deployable.secrets else []),
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the pod alone
        ],
    }


def _variables(deployable: Deployable) -> list[dict[str, Any]]:
    named = deployable.variables
    return [
        containers.variable(ENV_GATEWAY, f"https://{GATEWAY}.{deployable.namespace}.svc:{INBOX_PORT}"),
        containers.variable(ENV_TLS, TLS_FOLDER),
        containers.variable(ENV_PLACE, deployable.namespace),
        containers.variable(ENV_ENVIRONMENT, deployable.environment.name),
        containers.variable(ENV_REVISION, deployable.revision),
        containers.field_variable(ENV_POD, "metadata.name"),
        containers.field_variable(ENV_ADDRESS, "status.podIP"),
        *sidecar.variables(deployable),
        *(
            _given(name, value)
            for name, value in deployable.target.env.items()
            if isinstance(value, str) or name in named
        ),
    ]


def _given(name: str, value: str | Secret) -> dict[str, Any]:
    if isinstance(value, str):
        return containers.variable(name, value)
    return containers.secret_variable(name, *split(value.secret or ""))


def _probes() -> Object:
    """The kubelet looks once a second at most, which is longer than a worker takes to start. So the gateway does not
    wait for it: the worker says that it takes work, and is asked by its delivery port from then on. What the kubelet
    finds decides about rollouts alone. Starting means being ready, since nothing answers while a handler loads its
    model.
    """
    return {
        "startupProbe": {**_probe("/-/readyz"), "periodSeconds": 1, "failureThreshold": _STARTING},
        "readinessProbe": {**_probe("/-/readyz"), "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {**_probe("/-/healthz"), "periodSeconds": 10, "failureThreshold": 6},
    }


def _probe(path: str) -> Object:
    return {"httpGet": {"path": path, "port": HTTP_PORT_NAME}, "timeoutSeconds": 5}


def _lifecycle(deployable: Deployable) -> Object:
    """Requests go to a pod until its endpoint is gone everywhere. `sleep` needs Kubernetes 1.30; an exec would start a
    Python for it.
    """
    return {"lifecycle": {"preStop": {"sleep": {"seconds": MOVING}}}} if deployable.serves_http else {}


def _volumes(deployable: Deployable) -> list[dict[str, Any]]:
    """/data is what a worker writes down for its successor in the same pod: it outlives a container, not the pod."""
    files = [{"key": name, "path": name} for name in (ENVIRONMENTS_FILE, HEAD_FILE)]
    secret = {"secretName": f"{deployable.name}-tls", "defaultMode": containers.READABLE}
    return [
        {"name": "revision", "configMap": {"name": deployable.revision_name, "items": files}},
        {"name": "tls", "secret": secret},
        *_secrets(deployable),
        *sidecar.volumes(deployable),
        {"name": "data", "emptyDir": {"sizeLimit": _TEMPORARY}},
        {"name": "tmp", "emptyDir": {"sizeLimit": _TEMPORARY}},
    ]


def _secrets(deployable: Deployable) -> list[dict[str, Any]]:
    """Those that the function names, and of each the keys it names."""
    keys: dict[str, list[str]] = {}
    for name, key in deployable.secrets:
        keys.setdefault(name, []).append(key)
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": f"{name}/{key}"} for key in found]}}
        for name, found in keys.items()
    ]
    if not sources:
        return []
    return [{"name": "secrets", "projected": {"defaultMode": containers.READABLE, "sources": sources}}]


def _spread(deployable: Deployable) -> Object:
    wanted = deployable.target.zoneSpread
    if deployable.function.spec.scale.max == 1 or wanted is False:
        return {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone" if wanted is True else wanted,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": metadata.selector(deployable),
                "matchLabelKeys": ["pod-template-hash"],
            }
        ]
    }
