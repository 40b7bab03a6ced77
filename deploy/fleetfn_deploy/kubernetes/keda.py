"""What KEDA is told: one ScaledObject with all of a function's triggers, and how its scalers log in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fleetfn_runtime.settings import group_id
from fleetfn_spec.cluster import (
    GATEWAY,
    HTTP_PORT_NAME,
    SCALER_CONCURRENCY,
    SCALER_FUNCTION,
    SCALER_PORT,
    SCALER_TLS,
)
from fleetfn_spec.durations import seconds
from fleetfn_spec.function import Trigger
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.trigger import Scaler

from fleetfn_deploy.kubernetes import documents, metadata
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable, split

API = "keda.sh/v1alpha1"

SCALER_LOGIN = "fleetfn-scaler"
"""TriggerAuthentication by which KEDA asks the gateway."""

_LONGEST_DOWN = 3600
"""Seconds: an autoscaler takes no longer windows."""


def scaled_object(deployable: Deployable) -> Object:
    """Only Kafka is asked by KEDA itself. All else, held keys of Kafka triggers included, waits in the gateway."""
    scale = deployable.function.spec.scale
    idle = math.ceil(seconds(scale.idle))
    down = {"scaleDown": {"stabilizationWindowSeconds": min(idle, _LONGEST_DOWN)}}
    spec = {
        "scaleTargetRef": {"name": deployable.name},
        "pollingInterval": math.ceil(seconds(deployable.target.keda.polling)),
        "cooldownPeriod": idle,
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": down}},
        "triggers": [*_sources(deployable), _gateway(deployable), *_add_on(deployable)],
    }
    return metadata.of_function(deployable, API, "ScaledObject", spec=spec)


def _sources(deployable: Deployable) -> Iterator[dict[str, Any]]:
    for trigger in deployable.function.spec.triggers:
        found = scaler(deployable, trigger)
        if found is None or trigger.name in deployable.paused:
            continue
        login = {"authenticationRef": {"name": _login_name(deployable, trigger)}} if found.credentials else {}
        yield {"type": found.type, "name": trigger.name, "metadata": dict(found.metadata), **login}


def scaler(deployable: Deployable, trigger: Trigger) -> Scaler | None:
    """What the trigger's kind says of it; None: the gateway knows what waits."""
    connection = deployable.connection_of(trigger)
    return trigger.kind.scaler(
        trigger.block,
        connection=getattr(connection, trigger.kind.name, None),
        group=group_id(deployable.environment.name, deployable.namespace, deployable.name, trigger.name),
        concurrency=deployable.function.spec.scale.concurrency,
    )


def _gateway(deployable: Deployable) -> dict[str, Any]:
    return {
        "type": "external-push",
        "name": GATEWAY,
        "metadata": {
            "scalerAddress": f"{GATEWAY}.{deployable.namespace}.svc:{SCALER_PORT}",
            "enableTLS": "true",
            SCALER_FUNCTION: deployable.name,
            SCALER_CONCURRENCY: str(deployable.function.spec.scale.concurrency),
        },
        "authenticationRef": {"name": SCALER_LOGIN},
    }


def _add_on(deployable: Deployable) -> list[dict[str, Any]]:
    add_on = deployable.target.addOn
    if add_on is None or not deployable.serves_http:
        return []
    told = {"scalerAddress": add_on.scaler, "interceptorRoute": deployable.name}
    return [{"type": "external-push", "name": "fleetfn-http-add-on", "metadata": told}]


def route(deployable: Deployable) -> list[Object]:
    """Of the http-add-on: which hosts its proxy leads to the function."""
    add_on = deployable.target.addOn
    if add_on is None or not deployable.serves_http:
        return []
    hosts = add_on.hosts or [f"{{function}}.{deployable.namespace}"]
    spec = {
        "target": {"service": deployable.name, "portName": HTTP_PORT_NAME},
        "rules": [{"hosts": [host.replace("{function}", deployable.name) for host in hosts]}],
        "scalingMetric": {"concurrency": {"targetValue": deployable.function.spec.scale.concurrency}},
    }
    return [metadata.of_function(deployable, "http.keda.sh/v1beta1", "InterceptorRoute", spec=spec)]


def logins(deployable: Deployable) -> list[Object]:
    """TriggerAuthentications, one per connection whose scaler logs in or has certificates."""
    found: dict[str, dict[str, Any]] = {}
    for trigger in deployable.function.spec.triggers:
        about = scaler(deployable, trigger)
        connection = deployable.connection_of(trigger)
        if about is not None and about.credentials and connection is not None:
            found[_login_name(deployable, trigger)] = _targets(deployable, about, connection.name)
    return [
        metadata.of_function(deployable, API, "TriggerAuthentication", name, spec=spec) for name, spec in found.items()
    ]


def _login_name(deployable: Deployable, trigger: Trigger) -> str:
    connection = deployable.connection_of(trigger)
    return f"{deployable.name}.{connection.name if connection is not None else trigger.name}"


def _targets(deployable: Deployable, about: Scaler, connection: str) -> dict[str, Any]:
    """Text (a user's name) comes from the revision's ConfigMap: KEDA takes credentials by reference alone."""
    secret = [
        {"parameter": parameter, "name": name, "key": key}
        for parameter, value in about.credentials.items()
        if isinstance(value, Secret)
        for name, key in [split(value.secret or "")]
    ]
    text = [
        {"parameter": parameter, "name": deployable.revision_name, "key": documents.USERNAME.format(connection)}
        for parameter, value in about.credentials.items()
        if isinstance(value, str)
    ]
    return {
        **({"secretTargetRef": secret} if secret else {}),
        **({"configMapTargetRef": text} if text else {}),
    }


def scaler_login(namespace: str) -> Object:
    """How KEDA proves to a gateway that it is KEDA, and knows it."""
    both = {"caCert": "ca.crt", "tlsClientCert": "tls.crt", "tlsClientKey": "tls.key"}
    refs = [{"parameter": parameter, "name": SCALER_TLS, "key": key} for parameter, key in both.items()]
    return metadata.of_gateway(namespace, API, "TriggerAuthentication", SCALER_LOGIN, spec={"secretTargetRef": refs})
