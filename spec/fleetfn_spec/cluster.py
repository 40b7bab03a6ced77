"""What the parts of a cluster have agreed on: names, labels, ports, variables, and what a function's ConfigMap says.

`fn deploy` writes these, the gateway and workers read them. In a namespace there are, of a function called NAME:
Deployment, Service, ScaledObject, ServiceAccount, NetworkPolicy and ConfigMap NAME (the head: what serves), a ConfigMap
NAME-rDIGEST for each kept revision, a Secret NAME-tls; and, for all functions, the gateway's objects (GATEWAY).
"""

from __future__ import annotations

from typing import Literal

import msgspec
from fleetfn_triggers import secret
from fleetfn_triggers.mqtt_connection import MqttConnection

from fleetfn_spec.control import Counters
from fleetfn_spec.function import Function

MANAGER = "fleetfn"
"""Field manager of server-side apply, and the value of LABEL_MANAGED_BY."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_FUNCTION = "fleetfn.dev/function"
"""On everything that belongs to a function, pods included: its name."""
LABEL_REVISION = "fleetfn.dev/revision"
"""On pods and revisions: the first 12 digits."""
LABEL_PART = "fleetfn.dev/part"
"""What an object is for: see Part."""

Part = Literal["function", "head", "revision", "worker", "check", "gateway"]

GATEWAY = "fleetfn-gateway"
"""The gateway's StatefulSet, Service, ServiceAccount, Role, NetworkPolicy; no function may be called so."""

CA = "fleetfn-ca"
"""Secret (tls.crt, tls.key): signs the certificates of this namespace's gateway and workers."""

GATEWAY_TLS = "fleetfn-gateway-tls"
"""Secret (tls.crt, tls.key, ca.crt), common name GATEWAY."""

SCALER_TLS = "fleetfn-scaler-tls"
"""Secret (tls.crt, tls.key, ca.crt), common name SCALER: what KEDA shows to the gateway, by a TriggerAuthentication."""

SCALER = "keda"

SCALER_FUNCTION = "function"
"""In the metadata of a ScaledObject's external-push trigger: the function's name. Beside it scalerAddress
(fleetfn-gateway.NAMESPACE.svc:9443) and enableTLS ("true").
"""
SCALER_CONCURRENCY = "concurrency"
"""There, too: how much one pod should have to do, scale.concurrency. KEDA asks for it once for each version of a
ScaledObject, so it is told by that itself.
"""

INBOX_PORT = 8443
"""Of the gateway: its calls for workers (fleetfn_spec.gateway), mutually authenticated. A worker asks for the function
that is its certificate's common name, and for no other.
"""
SCALER_PORT = 9443
"""Of the gateway: KEDA's external scaler, gRPC, mutually authenticated."""
ACTIVATOR_PORTS = (18000, 19999)
"""Of the gateway, first and last: HTTP requests to functions that sleep. Each function with HTTP triggers has one of
them for itself, since the Host of a request that came through an Ingress is anybody's.
"""
HEALTH_PORT = 8082
"""Of the gateway: GET /healthz, /readyz, /metrics."""
CONTROL_PORT = 8081
"""Of the gateway, on 127.0.0.1 of its pod: for `fn`, which comes by port-forward and so by its user's rights."""

HTTP_PORT = 8080
"""Of a worker: HTTP triggers, and below /-/ health, readiness and figures."""
HTTP_PORT_NAME = "http"
"""Of the one port of a function's Service, which has no selector: the gateway writes the EndpointSlice NAME-fleetfn."""
DELIVERY_PORT = 8443
"""Of a worker: what its gateway pushes and asks, mutually authenticated: the other side is GATEWAY."""

ENV_GATEWAY = "FLEETFN_GATEWAY"
"""Of a worker's pod: https://fleetfn-gateway.NAMESPACE.svc:8443 (in a lone image: the path of a socket)."""
ENV_TLS = "FLEETFN_TLS"
"""Folder with tls.crt, tls.key, ca.crt, read anew when they change."""
ENV_PLACE = "FLEETFN_PLACE"
"""The namespace: second part of Kafka group ids and MQTT client ids."""
ENV_ENVIRONMENT = "FLEETFN_ENVIRONMENT"
"""The environment's name; its connections are in the environments file."""

ENV_POD = "FLEETFN_POD"
"""The pod's name."""
ENV_ADDRESS = "FLEETFN_POD_ADDRESS"
"""The pod's address, as its status has it."""

TLS_FOLDER = "/var/run/fleetfn/tls"
SECRETS_FOLDER = secret.FOLDER
"""{secret: NAME/KEY} is the file NAME/KEY below it, in a worker's pod (mounted) and in the gateway's (written there by
itself, which may read the Secrets that functions name).
"""
ANNOTATION_ROWS = "fleetfn.dev/rows"
"""On a head that is about to be deleted: `drop` has the gateway drop what waits and its dead letters; without a word
they are kept.
"""
HEAD_FILE = "head.json"
ENVIRONMENTS_FILE = "environments.yaml"
"""Of a revision's ConfigMap, mounted at /etc/fleetfn."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's process did since it began."""

    run: str
    """Names the process: another one in the same pod begins anew."""
    counters: Counters
    """Totals."""
    in_flight: int = 0
    """Deliveries of all kinds."""
    rss: int = 0
    """Bytes."""
    last_error: str = ""
    last_error_time: float | None = None


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says to its gateway as soon as it takes work: POST /v1/functions/NAME/ready, answered by Triggers.
    The API server tells where a pod is when the kubelet has looked: up to a second after the pod has its address.
    """

    pod: str
    address: str


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker answers to GET /activity on its delivery port."""

    in_flight: int = 0
    """HTTP requests that are run."""
    last: float | None = None
    """Seconds since the last one came or was answered; None: there was none."""
    ready: bool
    """False: it drains."""
    paused: tuple[str, ...] = ()
    """Triggers that are paused by hand, as far as it was told; sorted."""
    figures: Figures | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a function's ConfigMap says, as JSON under HEAD_FILE: the gateway follows it, `fn` reads it."""

    function: Function
    revision: str
    """64 hex digits, over image and environment."""
    number: int
    image: str
    """With its digest."""
    environment: str
    mqtt: dict[str, MqttConnection] = {}
    """Connections by name; secrets are still references."""
    paused: tuple[str, ...] = ()
    """Triggers paused by hand."""
    activates: bool = True
    """The gateway holds HTTP requests to the function while it sleeps, and writes its endpoints. False: KEDA's
    http-add-on does, and the function's Service has a selector.
    """
    created: float
    """Unix seconds."""
