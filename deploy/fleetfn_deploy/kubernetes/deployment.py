"""What runs a function's workers: account, Deployment, Service, and how many may be taken away at a time."""

from __future__ import annotations

from fleetfn_spec import secrets
from fleetfn_spec.cluster import GATEWAY, HTTP_PORT, HTTP_PORT_NAME

from fleetfn_deploy.kubernetes import metadata, worker_pod
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable, split

_RBAC = "rbac.authorization.k8s.io"


def account(deployable: Deployable) -> Object:
    """Of workers: it may do nothing, and nothing gets its token."""
    return metadata.of_function(deployable, "v1", "ServiceAccount", automountServiceAccountToken=False)


def reading(deployable: Deployable) -> list[Object]:
    """The gateway connects to MQTT brokers for the function, so it may read the Secrets of those connections."""
    names = sorted({name for name, _ in gateway_secrets(deployable)})
    if not names:
        return []
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}]
    subjects = [{"kind": "ServiceAccount", "name": GATEWAY, "namespace": deployable.namespace}]
    role = {"apiGroup": _RBAC, "kind": "Role", "name": deployable.name}
    return [
        metadata.of_function(deployable, f"{_RBAC}/v1", "Role", rules=rules),
        metadata.of_function(deployable, f"{_RBAC}/v1", "RoleBinding", roleRef=role, subjects=subjects),
    ]


def gateway_secrets(deployable: Deployable) -> set[tuple[str, str]]:
    """(name, key)"""
    found = (each for connection in deployable.head.mqtt.values() for _, each in secrets.in_struct(connection))
    return {split(each.secret) for each in found if each.secret is not None}


def deployment(deployable: Deployable) -> Object:
    """It says nothing of `replicas`: they are KEDA's."""
    spec = {
        "selector": metadata.selector(deployable),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 0,  # revisions are kept as ConfigMaps
        "template": worker_pod.template(deployable),
    }
    return metadata.of_function(deployable, "apps/v1", "Deployment", revision=True, spec=spec)


def service(deployable: Deployable) -> list[Object]:
    """Without a selector: the gateway writes its endpoints, ready pods or, where there are none, itself. With the
    http-add-on it is a Service like any other.
    """
    if not deployable.serves_http:
        return []
    port = {"name": HTTP_PORT_NAME, "protocol": "TCP", "port": 80, "targetPort": HTTP_PORT}
    chosen = {} if deployable.target.addOn is None else {"selector": metadata.selector(deployable)["matchLabels"]}
    return [metadata.of_function(deployable, "v1", "Service", spec={"type": "ClusterIP", "ports": [port], **chosen})]


def disruption_budget(deployable: Deployable) -> list[Object]:
    if deployable.function.spec.scale.max == 1:
        return []
    spec = {"maxUnavailable": 1, "selector": metadata.selector(deployable)}
    return [metadata.of_function(deployable, "policy/v1", "PodDisruptionBudget", spec=spec)]
