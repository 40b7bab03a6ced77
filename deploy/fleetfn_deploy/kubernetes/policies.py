"""NetworkPolicies: pods of functions reach what their function names, and are reached on their two ports.

A policy cannot name the API server, which is no pod: it is shut out since only the ports of named things are open, and
its addresses are taken out of what is open to all addresses, where they are known. What a port alone opens can be
narrowed by `egress` of the target.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from fleetfn_spec.cluster import (
    ACTIVATOR_PORTS,
    DELIVERY_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    INBOX_PORT,
    SCALER_PORT,
)
from fleetfn_spec.kubernetes import Egress, KubernetesTarget

from fleetfn_deploy.kubernetes import addresses, metadata, sidecar
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable

API = "networking.k8s.io/v1"

_DNS = (53, 5353)
"""The second one is that of OpenShift's DNS pods: what counts is a pod's port, not its Service's."""

_EVERYWHERE = ("0.0.0.0/0", "::/0")

_NAMESPACE = "kubernetes.io/metadata.name"
"""Label that Kubernetes itself gives each namespace."""

Peer = dict[str, Any]


def workers(deployable: Deployable) -> Object:
    http = {"ports": [_port(HTTP_PORT)]}
    deliveries = {"from": [{"podSelector": metadata.gateway_selector()}], "ports": [_port(DELIVERY_PORT)]}
    spec = {
        "podSelector": metadata.selector(deployable),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [http, deliveries],
        "egress": egress(deployable),
    }
    return metadata.of_function(deployable, API, "NetworkPolicy", spec=spec)


def egress(deployable: Deployable) -> list[Object]:
    rules: list[Object] = [
        {"ports": [{"protocol": protocol, "port": port} for port in _DNS for protocol in ("UDP", "TCP")]},
        {"to": [{"podSelector": metadata.gateway_selector()}], "ports": [_port(INBOX_PORT)]},
    ]
    rules += _named(deployable)
    if sidecar.mode(deployable) == "injected":
        rules.append({"to": [_pods_of(deployable.target.dapr.namespace)]})
    return rules + _allowed(deployable)


def _named(deployable: Deployable) -> list[Object]:
    """What connections name by address, or as a Service whose pods listen where it does."""
    rules: list[Object] = []
    for address in addresses.of(deployable):
        namespace = address.namespace(deployable.namespace)
        if address.literal is not None:
            rules.append({"to": [{"ipBlock": {"cidr": address.literal}}], "ports": [_port(address.port)]})
        elif namespace is not None:
            rules.append({"to": [_pods_of(namespace)], "ports": [_port(address.port)]})
    return rules


def _allowed(deployable: Deployable) -> list[Object]:
    given = deployable.target.egress
    if given is not None:
        return [_given(each) for each in given]
    everywhere = [{"ipBlock": _block(cidr, deployable.apart)} for cidr in _EVERYWHERE]
    if sidecar.mode(deployable) == "injected":  # the component is the cluster's own: where its store is, it knows
        return [{"to": [*everywhere, {"namespaceSelector": {}}]}]
    outside = {
        each.port
        for each in addresses.of(deployable)
        if each.literal is None and (each.host.count(".") == 1 or each.namespace(deployable.namespace) is None)
    }
    if not outside:
        return []
    return [{"to": everywhere, "ports": [_port(port) for port in sorted(outside)]}]


def _given(wanted: Egress) -> Object:
    peer = {"ipBlock": {"cidr": wanted.cidr}} if wanted.cidr is not None else _pods_of(wanted.namespace or "")
    return {"to": [peer], **({"ports": [_port(port) for port in wanted.ports]} if wanted.ports else {})}


def _block(cidr: str, apart: tuple[str, ...]) -> dict[str, Any]:
    version = ipaddress.ip_network(cidr).version
    found = [ipaddress.ip_address(each) for each in sorted(apart)]
    without = [f"{each}/{each.max_prefixlen}" for each in found if each.version == version]
    return {"cidr": cidr, **({"except": without} if without else {})}


def gateway(namespace: str, target: KubernetesTarget) -> Object:
    """It connects to brokers, pods and the API server: what it may reach is left open. Its inbox asks for a worker's
    certificate; where a policy named workers, one that starts would be kept out until its address is known everywhere.
    """
    first, last = ACTIVATOR_PORTS
    ingress = [
        {"ports": [_port(INBOX_PORT)]},
        {"from": [_pods_of(target.keda.namespace)], "ports": [_port(SCALER_PORT)]},
        {"ports": [{**_port(first), "endPort": last}]},
        {"ports": [_port(HEALTH_PORT)]},
    ]
    spec = {"podSelector": metadata.gateway_selector(), "policyTypes": ["Ingress"], "ingress": ingress}
    return metadata.of_gateway(namespace, API, "NetworkPolicy", spec=spec)


def _pods_of(namespace: str) -> Peer:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: namespace}}}


def _port(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}
