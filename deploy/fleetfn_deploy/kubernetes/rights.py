"""What a deploy may do in its namespace, asked before it begins; and the Role that would allow it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetfn_deploy.kubernetes import kinds
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Kind, Object

_VERBS = ("get", "list", "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Need:
    kind: Kind
    verb: str
    part: str = ""
    """`log`, `portforward`: of the objects of that kind."""


NEEDS = (
    *(Need(kind, verb) for kind in kinds.OURS if kind not in kinds.OPTIONAL for verb in _VERBS),
    Need(kinds.LEASE, "update"),
    *(Need(kind, "watch") for kind in (kinds.CONFIG_MAP, kinds.POD, kinds.ENDPOINT_SLICE)),
    Need(kinds.EVENT, "list"),
    Need(kinds.POD, "get", "log"),
    *(Need(kinds.POD, verb, "portforward") for verb in ("get", "create")),
)
"""What a deploy asks for in its namespace: what it does itself, and what the gateway may, since nobody can grant more
than he has. A port is forwarded by a websocket, which is a GET; since Kubernetes 1.35 that takes the right to create,
too.
"""


def needs(*, add_on: bool = False) -> tuple[Need, ...]:
    """`add_on`: with what KEDA's http-add-on takes."""
    return (*NEEDS, *(Need(kinds.INTERCEPTOR_ROUTE, verb) for verb in _VERBS if add_on))


async def lacking(cluster: Cluster, needs: Sequence[Need]) -> list[Need]:
    rules = await _rules(cluster)
    asked = [need for need in needs if not any(_allows(rule, need) for rule in rules)]
    allowed = await asyncio.gather(*(_may(cluster, need) for need in asked))
    return [need for need, may in zip(asked, allowed, strict=True) if not may]


def listed(needs: Iterable[Need]) -> str:
    """`deployments.apps (create, patch), pods (list)`."""
    return ", ".join(f"{resource} ({', '.join(verbs)})" for resource, verbs in _by_resource(needs).items())


async def _rules(cluster: Cluster) -> list[Object]:
    """What may be done, in one answer. Not every authorizer can list it all: what is missing there is asked for."""
    answer = await _review(cluster, kinds.RULES_REVIEW, {"namespace": cluster.namespace})
    found: list[Object] = answer["status"].get("resourceRules") or []
    return found


def _allows(rule: Object, need: Need) -> bool:
    resources = {"*", f"{need.kind.plural}/{need.part}", f"*/{need.part}"} if need.part else {"*", need.kind.plural}
    return (
        not rule.get("resourceNames")
        and not {"*", need.verb}.isdisjoint(rule.get("verbs") or [])
        and not {"*", need.kind.group}.isdisjoint(rule.get("apiGroups") or [])
        and not resources.isdisjoint(rule.get("resources") or [])
    )


async def _may(cluster: Cluster, need: Need) -> bool:
    attributes = {
        "namespace": cluster.namespace,
        "verb": need.verb,
        "group": need.kind.group,
        "resource": need.kind.plural,
        "subresource": need.part,
    }
    answer = await _review(cluster, kinds.ACCESS_REVIEW, {"resourceAttributes": attributes})
    return bool(answer["status"].get("allowed"))


async def _review(cluster: Cluster, kind: Kind, spec: Object) -> Object:
    return await cluster.create({"apiVersion": kind.api, "kind": kind.name, "metadata": {}, "spec": spec}, kind=kind)


def role(needs: Iterable[Need]) -> list[str]:
    """Lines of a Role's rules that allow all of it."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for resource, verbs in _by_resource(needs).items():
        plural, _, group = resource.partition(".")
        groups.setdefault((group, tuple(verbs)), []).append(plural)
    return [
        f'- {{apiGroups: ["{group}"], resources: [{", ".join(plurals)}], verbs: [{", ".join(verbs)}]}}'
        for (group, verbs), plurals in groups.items()
    ]


def _by_resource(needs: Iterable[Need]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for need in needs:
        plural = need.kind.plural + (f"/{need.part}" if need.part else "")
        found.setdefault(f"{plural}.{need.kind.group}" if need.kind.group else plural, []).append(need.verb)
    return found
