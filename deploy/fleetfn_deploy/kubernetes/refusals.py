"""What an API server refuses, in words: who asked for what, why not, and who can change that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fleetfn.errors import TargetError

from fleetfn_deploy.kubernetes.kinds import Kind

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, INVALID = 401, 403, 404, 409, 422

_QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), requested: (?P<rest>.+)")
_WEBHOOK = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request:?\s*(?P<why>.*)', re.DOTALL)
_MANAGER = re.compile(r'conflict with "(?P<name>[^"]+)"')


class RefusedByClusterError(TargetError):
    """The API server said no. `status` as in HTTP; `reason` as it calls it: `AlreadyExists`, `Conflict`."""

    def __init__(self, message: str, *, hint: str = "", status: int, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class UnreachableError(TargetError):
    """No answer from the API server."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the server."""

    verb: str
    """As RBAC has it: get, list, create, patch, delete."""
    kind: Kind
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name} {self.name}" if self.name else self.kind.plural


def rule(kind: Kind, verbs: str | list[str]) -> str:
    """The line of a Role that allows it."""
    verbs = [verbs] if isinstance(verbs, str) else verbs
    return f'- {{apiGroups: ["{kind.group}"], resources: ["{kind.plural}"], verbs: [{", ".join(verbs)}]}}'


def refused(asked: Asked, status: int, answer: dict[str, Any], where: str) -> RefusedByClusterError:
    """`answer`: the server's Status object, or {} where it sent none; `where`: the cluster, for people."""
    text = answer.get("message") or f"it answered {status}"
    reason = answer.get("reason") or ""
    message, hint = _words(asked, status, answer, text, where)
    return RefusedByClusterError(message, hint=hint, status=status, reason=reason)


def _words(asked: Asked, status: int, answer: dict[str, Any], text: str, where: str) -> tuple[str, str]:
    if (found := _WEBHOOK.search(text)) is not None:
        return (
            f"the cluster's rules ({found['name']}) do not allow {asked}: {found['why'].strip()}",
            "An admission webhook of this cluster decides that: ask who runs it.",
        )
    if (found := _QUOTA.search(text)) is not None:
        return quota(asked, found["name"], found["rest"])
    by_status = {
        UNAUTHORIZED: (f"{where} does not accept the credentials", "Log in again, or choose another context."),
        FORBIDDEN: _forbidden(asked, text),
        NOT_FOUND: _not_found(asked, answer, where),
        CONFLICT: _conflict(asked, answer, text),
        INVALID: (f"the cluster does not take {asked}: {text}", "Nothing of this object was changed."),
    }
    passing = f"{where} could not {asked.verb} {asked}: {text}", "It may be passing: the same command may be run again."
    return by_status.get(status, passing)


def quota(asked: object, name: str, rest: str) -> tuple[str, str]:
    return (
        f"no room for {asked} in the namespace: ResourceQuota {name} is exceeded (requested: {rest})",
        f"Raise the quota, free some of it, or lower spec.scale.max: kubectl describe resourcequota {name}",
    )


def quota_of(text: str, asked: object) -> tuple[str, str] | None:
    """Message and hint where `text`, of an event or a condition, tells of an exceeded quota."""
    found = _QUOTA.search(text)
    return quota(asked, found["name"], found["rest"]) if found is not None else None


def _forbidden(asked: Asked, text: str) -> tuple[str, str]:
    if " cannot " not in text:  # allowed to ask, and refused for what it is: a policy of the cluster
        return f"the cluster does not allow {asked}: {text}", "A policy of this cluster decides that: ask who runs it."
    within = f" in namespace {asked.namespace!r}" if asked.kind.namespaced else ""
    role = "a Role in that namespace" if asked.kind.namespaced else "a ClusterRole"
    return (
        f"no right to {asked.verb} {asked.kind.resource}{within}: {text}",
        f"Whoever runs the cluster can allow it by {role}:\n  {rule(asked.kind, asked.verb)}",
    )


def _not_found(asked: Asked, answer: dict[str, Any], where: str) -> tuple[str, str]:
    missing = answer.get("details") or {}
    if missing.get("kind") == "namespaces" and asked.kind.namespaced:
        return no_namespace(asked.namespace, where)
    if not missing.get("name"):
        return (
            f"{where} does not know {asked.kind.resource} ({asked.kind.api})",
            f"Whatever brings {asked.kind.name}s is not installed there, or is of another version.",
        )
    return f"there is no {asked} in namespace {asked.namespace!r}", ""


def no_namespace(namespace: str, where: str) -> tuple[str, str]:
    return f"{where} has no namespace {namespace!r}", f"Make it: kubectl create namespace {namespace}"


def _conflict(asked: Asked, answer: dict[str, Any], text: str) -> tuple[str, str]:
    causes = (answer.get("details") or {}).get("causes") or []
    owned = [each for each in causes if each.get("reason") == "FieldManagerConflict"]
    if not owned:
        return f"{asked} was changed by somebody else at the same moment: {text}", "Run the same command again."
    lines = [f"{each.get('field', '?')} is kept by {_manager(each.get('message', ''))}" for each in owned]
    return (
        f"{asked} is also written by others:\n  " + "\n  ".join(lines),
        "Let them give these fields up, or take them over, against what they say: fn deploy --force-conflicts",
    )


def _manager(message: str) -> str:
    found = _MANAGER.search(message)
    return found["name"] if found is not None else message
