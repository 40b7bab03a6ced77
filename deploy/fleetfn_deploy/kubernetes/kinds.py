"""Kinds of objects that a function and a gateway are made of, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetfn.errors import TargetError

Object = dict[str, Any]
"""An object of the cluster as JSON has it: apiVersion, kind, metadata and the rest."""


@dataclass(frozen=True, slots=True)
class Kind:
    api: str
    """`v1`, `apps/v1`."""
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """'' for the core."""
        return self.api.rpartition("/")[0]

    @property
    def resource(self) -> str:
        """`deployments.apps`, as kubectl and RBAC call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """`namespace` "": all of them."""
        root = f"/apis/{self.api}" if self.group else f"/api/{self.api}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")


POD = Kind("v1", "Pod", "pods")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("v1", "Event", "events")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
TRIGGER_AUTHENTICATION = Kind("keda.sh/v1alpha1", "TriggerAuthentication", "triggerauthentications")
INTERCEPTOR_ROUTE = Kind("http.keda.sh/v1beta1", "InterceptorRoute", "interceptorroutes")
COMPONENT = Kind("dapr.io/v1alpha1", "Component", "components")
ACCESS_REVIEW = Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
RULES_REVIEW = Kind("authorization.k8s.io/v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False)
DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)

OURS = (
    SCALED_OBJECT,
    TRIGGER_AUTHENTICATION,
    INTERCEPTOR_ROUTE,
    DEPLOYMENT,
    STATEFUL_SET,
    POD,
    SERVICE,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    CONFIG_MAP,
    SECRET,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    LEASE,
)
"""What FleetFn may leave in a namespace, in the order in which it goes: what starts pods first."""

OPTIONAL = frozenset({INTERCEPTOR_ROUTE})
"""Who has no right to look for these has none of them."""

RENDERED = (
    TRIGGER_AUTHENTICATION,
    INTERCEPTOR_ROUTE,
    SERVICE,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    SERVICE_ACCOUNT,
    ROLE_BINDING,
    ROLE,
)
"""Of these a revision may have fewer than the one before."""

_KNOWN = {(kind.api, kind.name): kind for kind in [*OURS, CLAIM, COMPONENT, AUTOSCALER]}


def of(thing: Object) -> Kind:
    try:
        return _KNOWN[thing["apiVersion"], thing["kind"]]
    except KeyError:
        raise TargetError(
            f"this fn knows no objects of kind {thing.get('kind')!r} ({thing.get('apiVersion')!r})",
            hint="Use a newer fleetfn.",
        ) from None


def name_of(thing: Object) -> str:
    name: str = thing["metadata"]["name"]
    return name


def shown(thing: Object) -> str:
    """`Deployment battery-alert`, for people."""
    return f"{thing['kind']} {name_of(thing)}"


def labels_of(thing: Object) -> dict[str, str]:
    labels: dict[str, str] = thing["metadata"].get("labels") or {}
    return labels
