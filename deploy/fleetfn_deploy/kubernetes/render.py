"""A function, and a namespace's gateway, as objects of Kubernetes: pure, in the order in which they are applied.

Certificates are not among them, since they are made once and not rendered: pki.py. As text: yaml_text.py.
"""

from __future__ import annotations

from fleetfn_deploy.kubernetes import (
    deployment,
    documents,
    keda,
    policies,
    worker_pod,
)
from fleetfn_deploy.kubernetes import (
    gateway_objects as gateway,
)
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable, Installation


def objects(deployable: Deployable) -> list[Object]:
    """All of a function. The head is the last: with it the gateway begins to work for the revision."""
    return [
        deployment.account(deployable),
        *deployment.reading(deployable),
        documents.revision(deployable),
        policies.workers(deployable),
        *keda.logins(deployable),
        *deployment.service(deployable),
        deployment.deployment(deployable),
        *deployment.disruption_budget(deployable),
        *keda.route(deployable),
        keda.scaled_object(deployable),
        documents.head(deployable),
    ]


def check_pod(deployable: Deployable) -> Object:
    """See worker_pod.check. It needs the account, the revision's ConfigMap and the certificate."""
    return worker_pod.check(deployable)


def gateway_objects(installation: Installation) -> list[Object]:
    """The Secrets GATEWAY_TLS and SCALER_TLS have to be there before the pod can start."""
    namespace = installation.namespace
    return [
        *gateway.rights(namespace),
        policies.gateway(namespace, installation.target),
        keda.scaler_login(namespace),
        gateway.service(namespace),
        gateway.stateful_set(installation),
    ]
