"""Before anything is built or changed: is the cluster there, of an age, and may we? All that is missing at once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleetfn.errors import TargetError
from fleetfn_spec.environments import Environment

from fleetfn_deploy.kubernetes import kinds, refusals, rights
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Kind, Object, labels_of
from fleetfn_deploy.kubernetes.refusals import RefusedByClusterError

SERVER = (1, 30)
"""The first Kubernetes that lets a container sleep before it ends; sidecar containers it has had since 1.29."""
KEDA = (2, 13)
"""The first KEDA that takes a user's name from a ConfigMap; an external scaler's certificates it has known before."""

_KEDA_PAGE = "https://keda.sh/docs/latest/deploy/"
_DAPR_PAGE = "https://docs.dapr.io/operations/hosting/kubernetes/kubernetes-deploy/"


@dataclass(frozen=True, slots=True)
class Missing:
    message: str
    hint: str


async def check(cluster: Cluster, environment: Environment) -> list[str]:
    """Notes for people. Raises TargetError that lists all that is missing; nothing is installed."""
    missing = [*await _server(cluster), *await _namespace(cluster)]
    if not missing:
        missing += await _rights(cluster, environment)
    notes: list[str] = []
    missing += await keda(cluster, environment, notes)
    missing += await _dapr(cluster, environment)
    if missing:
        raise _all(missing)
    return notes


def _all(missing: list[Missing]) -> TargetError:
    if len(missing) == 1:
        return TargetError(missing[0].message, hint=missing[0].hint)
    lines = [f"- {each.message}\n  {each.hint}".rstrip() for each in missing]
    return TargetError("the cluster is not ready for functions:\n" + "\n".join(lines), hint="Nothing was changed.")


async def _server(cluster: Cluster) -> list[Missing]:
    version = await cluster.version()
    if version >= SERVER:
        return []
    return [Missing(f"{cluster} is Kubernetes {_dotted(version)}", f"FleetFn needs {_dotted(SERVER)} or later.")]


async def _namespace(cluster: Cluster) -> list[Missing]:
    try:
        found = await cluster.get(kinds.NAMESPACE, cluster.namespace)
    except RefusedByClusterError as error:
        if error.status == refusals.FORBIDDEN:  # whoever may only work inside of it cannot look at it
            return []
        raise
    if found is None:
        return [Missing(*refusals.no_namespace(cluster.namespace, str(cluster)))]
    if found["metadata"].get("deletionTimestamp"):
        return [Missing(f"namespace {cluster.namespace!r} is being deleted", "Wait until it is gone; make it anew.")]
    return []


async def _rights(cluster: Cluster, environment: Environment) -> list[Missing]:
    target = environment.target.kubernetes
    lacking = await rights.lacking(cluster, rights.needs(add_on=target is not None and target.addOn is not None))
    if not lacking:
        return []
    return [
        Missing(
            f"no right in namespace {cluster.namespace!r} to: {rights.listed(lacking)}",
            "Whoever runs the cluster can allow it by a Role in that namespace:\n  "
            + "\n  ".join(rights.role(lacking)),
        )
    ]


async def keda(cluster: Cluster, environment: Environment, notes: list[str]) -> list[Missing]:
    """KEDA's kinds must be known to the cluster; its version is checked where it can be seen."""
    target = environment.target.kubernetes
    wanted = [kinds.SCALED_OBJECT, *([kinds.INTERCEPTOR_ROUTE] if target is not None and target.addOn else [])]
    for kind in wanted:
        if not await cluster.serves(kind):
            what = "KEDA" if kind is kinds.SCALED_OBJECT else "KEDA's http-add-on (0.14 or later)"
            return [
                Missing(
                    f"{cluster} has no {what}: it does not know {kind.resource} ({kind.api})",
                    f"Whoever runs the cluster installs it: {_KEDA_PAGE}",
                )
            ]
    namespace = target.keda.namespace if target is not None else "keda"
    version = await _version(cluster, namespace)
    if version is None:
        notes.append(f"KEDA's version cannot be seen from here; it must be {_dotted(KEDA)} or later")
    elif version < KEDA:
        hint = f"FleetFn needs {_dotted(KEDA)} or later: {_KEDA_PAGE}"
        return [Missing(f"{cluster} has KEDA {_dotted(version)}", hint)]
    return []


async def _version(cluster: Cluster, namespace: str) -> tuple[int, ...] | None:
    """As the operator's image or label says, or its CRD's label; None where neither may be read."""
    operator = await _readable(cluster, kinds.DEPLOYMENT, "keda-operator", namespace)
    definition = await _readable(cluster, kinds.DEFINITION, kinds.SCALED_OBJECT.resource, "")
    images = [each["image"] for each in operator["spec"]["template"]["spec"]["containers"]] if operator else []
    labels = [labels_of(each).get("app.kubernetes.io/version", "") for each in (operator, definition) if each]
    for said in (*labels, *images):
        if (found := re.search(r"(?:^|:)v?(\d+)\.(\d+)", said)) is not None:
            return int(found[1]), int(found[2])
    return None


async def _dapr(cluster: Cluster, environment: Environment) -> list[Missing]:
    """Only where state is in the cluster's own component: otherwise pods bring their sidecar along."""
    state = environment.state.dapr if environment.state is not None else None
    if state is None or state.type is not None:
        return []
    if not await cluster.serves(kinds.COMPONENT):
        hint = f"Whoever runs the cluster installs it ({_DAPR_PAGE}); or give `state.dapr` a type: pods bring it along."
        return [Missing(f"{cluster} has no Dapr: it does not know {kinds.COMPONENT.resource}", hint)]
    found = await _readable(cluster, kinds.COMPONENT, state.component, cluster.namespace)
    if found is None:
        hint = "Apply it there, or give `state.dapr` a type and metadata: then pods bring it along."
        return [Missing(f"namespace {cluster.namespace!r} has no Dapr component {state.component!r}", hint)]
    target = environment.target.kubernetes
    namespace = target.dapr.namespace if target is not None else "dapr-system"
    if await _readable(cluster, kinds.DEPLOYMENT, "dapr-sidecar-injector", namespace, unseen={}) is None:
        hint = f"It gives pods their sidecar: {_DAPR_PAGE}. `dapr: {{namespace: NAME}}` of the target says where it is."
        return [Missing(f"Dapr's injector is not in namespace {namespace!r}", hint)]
    return []


async def _readable(
    cluster: Cluster, kind: Kind, name: str, namespace: str, *, unseen: Object | None = None
) -> Object | None:
    """None: there is none; `unseen`: it may not be looked at."""
    try:
        return await cluster.get(kind, name, namespace=namespace)
    except RefusedByClusterError as error:
        if error.status == refusals.FORBIDDEN:
            return unseen
        raise


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
