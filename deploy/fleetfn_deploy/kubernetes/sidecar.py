"""Dapr beside a worker: a native sidecar with components from the revision's ConfigMap, or the cluster's injector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from fleetfn_spec.environments import DaprState
from fleetfn_spec.kubernetes import SIDECAR
from fleetfn_triggers.dapr_component import Component, Metadata
from fleetfn_triggers.secret import Secret

from fleetfn_deploy.kubernetes import containers
from fleetfn_deploy.kubernetes.values import Deployable, split

HTTP_PORT = 3500
PORT_VARIABLE = "DAPR_HTTP_PORT"
NAME = "daprd"

FOLDER = "/components"
VOLUME = "revision"
"""Of the pod: the revision's ConfigMap."""

_PREFIX = "dapr-"
_KEYS = "keyPrefix"

Mode = Literal["own", "injected"] | None


def mode(deployable: Deployable) -> Mode:
    """None: the function's pods need no sidecar."""
    state = _state(deployable)
    connected = [each.dapr for each in deployable.connections if each.dapr is not None and each.dapr.url is None]
    outputs = any(output.dapr is not None for output in deployable.function.spec.outputs)
    if state is None and not (outputs and connected):
        return None
    given = (state is not None and state.type is not None) or any(each.components for each in connected)
    return "own" if given else "injected"


def variables(deployable: Deployable) -> list[dict[str, Any]]:
    """The worker's. An injector sets it itself."""
    return [containers.variable(PORT_VARIABLE, str(HTTP_PORT))] if mode(deployable) == "own" else []


def notes(deployable: Deployable) -> dict[str, str]:
    """Of pods, for the injector. The cluster's component keeps namespaces apart where it has `keyPrefix: namespace`."""
    if mode(deployable) != "injected":
        return {}
    return {
        "dapr.io/enabled": "true",
        "dapr.io/app-id": deployable.name,
        "dapr.io/enable-native-sidecar": "true",  # from Dapr 1.18 on; older injectors pass it over
        "dapr.io/disable-builtin-k8s-secret-store": "true",  # it would need the API server
        "dapr.io/graceful-shutdown-seconds": "5",
        "dapr.io/sidecar-seccomp-profile-type": "RuntimeDefault",
    }


def container(deployable: Deployable) -> list[dict[str, Any]]:
    """A native sidecar: it starts before the worker and ends after it. It has no startup probe, so both start at the
    same time; the worker waits for /v1.0/healthz/outbound by itself.
    """
    if mode(deployable) != "own":
        return []
    target = deployable.target
    return [
        {
            "name": NAME,
            "image": target.dapr.image,
            "imagePullPolicy": "IfNotPresent",
            "restartPolicy": "Always",
            "args": [
                f"--app-id={deployable.name}",
                f"--resources-path={FOLDER}",
                f"--dapr-http-port={HTTP_PORT}",
                "--dapr-listen-addresses=127.0.0.1",
                "--dapr-internal-grpc-listen-address=127.0.0.1",
                "--dapr-graceful-shutdown-seconds=5",
                "--enable-metrics=false",
                "--log-as-json",
            ],
            "env": [containers.variable("NAMESPACE", deployable.namespace), *_secrets(deployable)],
            "resources": containers.resources(target.dapr.resources.over(SIDECAR)),
            "securityContext": dict(containers.SECURITY),
            "volumeMounts": [{"name": "components", "mountPath": FOLDER, "readOnly": True}],
        }
    ]


def volumes(deployable: Deployable) -> list[dict[str, Any]]:
    files = documents(deployable)
    if not files:
        return []
    items = [{"key": key, "path": key.removeprefix(_PREFIX)} for key in files]
    return [{"name": "components", "configMap": {"name": deployable.revision_name, "items": items}}]


def documents(deployable: Deployable) -> dict[str, str]:
    """Files of components (JSON is YAML), by key of the revision's ConfigMap."""
    return {
        f"{_PREFIX}{component.name}.yaml": msgspec.json.encode(_document(component)).decode()
        for component in components(deployable)
    }


def components(deployable: Deployable) -> tuple[Component, ...]:
    """What the pods' own sidecars are given."""
    if mode(deployable) != "own":
        return ()
    found = {each.name: each for one in deployable.connections if one.dapr for each in one.dapr.components}
    state = _state(deployable)
    if state is not None and state.type is not None:
        found[state.component] = Component(
            name=state.component, type=state.type, version=state.version, metadata=_by_namespace(state.metadata)
        )
    return tuple(found[name] for name in sorted(found))


def _by_namespace(fields: list[Metadata]) -> list[Metadata]:
    """Two namespaces may share a store, and Dapr's own prefix is the app id alone."""
    if any(each.name == _KEYS for each in fields):
        return fields
    return [*fields, Metadata(name=_KEYS, value="namespace")]


def _document(component: Component) -> dict[str, Any]:
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": component.name},
        "spec": {
            "type": component.type,
            "version": component.version,
            "metadata": [_field(each) for each in component.metadata],
        },
    }


def _field(field: Metadata) -> dict[str, str]:
    if isinstance(field.value, Secret):
        return {"name": field.name, "envRef": _variable(field.value)}
    return {"name": field.name, "value": field.text or ""}


def _secrets(deployable: Deployable) -> Iterator[dict[str, Any]]:
    found = {
        field.value.secret: field.value
        for component in components(deployable)
        for field in component.metadata
        if isinstance(field.value, Secret) and field.value.secret is not None
    }
    for named in sorted(found):
        yield containers.secret_variable(_variable(found[named]), *split(named))


def _variable(secret: Secret) -> str:
    """Different for different Secrets: the hexadecimal digits of what is no letter tell them apart."""
    letters = (each if each.isascii() and each.isalnum() else f"_{ord(each):X}_" for each in secret.secret or "")
    return "FLEETFN_SECRET_" + "".join(letters)


def _state(deployable: Deployable) -> DaprState | None:
    return deployable.environment.state.dapr if deployable.environment.state is not None else None
