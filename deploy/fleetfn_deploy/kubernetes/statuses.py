"""What `fn list` and `fn describe` show of a cluster: what runs, what waits, and all complaints on one screen."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fleetfn.errors import TargetError
from fleetfn_spec import removals
from fleetfn_spec.cluster import LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_PART, LABEL_REVISION, MANAGER, Head
from fleetfn_spec.control import FunctionStatus, Phase, RevisionInfo, TriggerStatus, WorkerInfo
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayStatus, Sums, TriggerRows, WorkerFigures

from fleetfn_deploy.kubernetes import kinds, lags, pods, revisions, warnings
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, labels_of, name_of
from fleetfn_deploy.kubernetes.waiting import selector

AskGateway = Callable[[], Awaitable[GatewayStatus]]
"""Raises TargetError."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster has of all functions, by function."""

    deployments: dict[str, Object]
    scaled: dict[str, Object]
    pods: dict[str, list[Object]]
    gateway: GatewayStatus | None
    problem: str = ""
    """With the gateway, for all."""

    def rows(self, name: str) -> dict[str, TriggerRows]:
        return self.gateway.functions.get(name, {}) if self.gateway is not None else {}

    def sums(self, name: str) -> Sums | None:
        """None: the gateway does not tell."""
        return self.gateway.sums.get(name) if self.gateway is not None else None

    def problems(self, name: str) -> list[str]:
        """With the gateway."""
        its_own = self.gateway.problems.get(name, "") if self.gateway is not None else ""
        return [each for each in (self.problem, its_own) if each]


async def all_of(cluster: Cluster, ask: AskGateway) -> list[FunctionStatus]:
    """Without backlogs and warnings: those are asked for of one function."""
    heads = await revisions.heads(cluster)
    if not heads:
        return []
    seen = await _seen(cluster, ask)
    return [_status(head, cluster.namespace, seen) for head in heads]


async def one(cluster: Cluster, name: str, ask: AskGateway) -> FunctionStatus:
    head = await revisions.find_head(cluster, name)
    if head is None:
        raise revisions.unknown(cluster, name)
    seen = await _seen(cluster, ask, name)
    backlogs = await lags.of(cluster, seen.scaled.get(name))
    made = seen.deployments.get(name, {}).get("metadata", {})
    told = await warnings.of(cluster, name, since=made.get("creationTimestamp", ""))
    return _status(head, cluster.namespace, seen, backlogs, told)


async def _seen(cluster: Cluster, ask: AskGateway, name: str | None = None) -> Seen:
    labels = {LABEL_MANAGED_BY: MANAGER} | ({LABEL_FUNCTION: name} if name is not None else {})
    workers = {LABEL_PART: "worker"} | ({LABEL_FUNCTION: name} if name is not None else {})
    deployments, scaled, running, told = await asyncio.gather(
        cluster.list(kinds.DEPLOYMENT, labels=selector(labels)),
        cluster.list(kinds.SCALED_OBJECT, labels=selector(labels)),
        cluster.list(kinds.POD, labels=selector(workers)),
        _gateway(ask),
    )
    by_function: dict[str, list[Object]] = {}
    for pod in running:
        by_function.setdefault(labels_of(pod).get(LABEL_FUNCTION, ""), []).append(pod)
    return Seen(_by_name(deployments), _by_name(scaled), by_function, *told)


def _by_name(things: list[Object]) -> dict[str, Object]:
    return {name_of(each): each for each in things}


async def _gateway(ask: AskGateway) -> tuple[GatewayStatus | None, str]:
    """A status is no place to fail: without the gateway the rest is told."""
    try:
        status = await ask()
    except TargetError as error:
        return None, f"the gateway does not tell what waits there: {error.message}"
    return status, status.problem


def _status(
    head: Head,
    namespace: str,
    seen: Seen,
    backlogs: dict[str, int] | None = None,
    told: list[str] | None = None,
) -> FunctionStatus:
    name = head.function.name
    running = seen.pods.get(name, [])
    rows, sums = seen.rows(name), seen.sums(name)
    figures = sums.workers if sums is not None else {}
    phase, reason = _phase(head, seen.deployments.get(name), running)
    newest = max(running, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return FunctionStatus(
        name=name,
        phase=phase,
        reason=reason,
        revision=_revision(head, namespace),
        triggers=[_trigger(each, head, namespace, rows, backlogs or {}) for each in head.function.spec.triggers],
        workers=[_worker(pod, figures.get(name_of(pod))) for pod in running],
        counters=sums.counters if sums is not None else None,
        dead_letters=sum(each.dead for each in rows.values()),
        last_error=sums.last_error if sums is not None else "",
        last_error_time=sums.last_error_time if sums is not None else None,
        last_activation=_last_activation(newest, sums),
        cold_start=_cold_start(newest),
        problems=[
            *seen.problems(name),
            *_left_behind(head, rows),
            *_keda(name, seen.scaled.get(name)),
            *(told or []),
        ],
    )


def _phase(head: Head, deployment: Object | None, running: list[Object]) -> tuple[Phase, str]:
    if deployment is None:
        return "failed", "its Deployment is gone; deploy it again"
    if len(head.paused) == len(head.function.spec.triggers):
        return "paused", "all its triggers are paused by hand; resume them"
    alive = [pod for pod in running if "deletionTimestamp" not in pod["metadata"]]
    wanted = deployment["spec"].get("replicas", 1)
    if count := sum(pods.ready(pod) for pod in alive):
        return "running", f"{count} of {max(wanted, count)} pods ready"
    if alive:
        return _starting(alive)
    if running:
        return "draining", f"pod {name_of(running[0])} finishes what it has"
    failing = pods.condition(deployment, "ReplicaFailure").get("message")
    return ("waking", str(failing or "its pods are being made")) if wanted else ("sleeping", "no pod: nothing to do")


def _starting(alive: list[Object]) -> tuple[Phase, str]:
    for pod in alive:
        if (trouble := pods.trouble(pod)) is not None:
            return ("backing-off" if trouble.previous else "waking"), trouble.message
    return "waking", f"pod {name_of(alive[0])} is starting"


def _keda(name: str, scaled: Object | None) -> list[str]:
    """What KEDA says of itself: not ready, scaled by its fallback, or paused by somebody."""
    if scaled is None:
        return [f"ScaledObject {name} is gone: nothing wakes the function; deploy it again"]
    found = []
    wrong = {"Ready": "False", "Fallback": "True", "Paused": "True"}
    for type_, status in wrong.items():
        if (condition := pods.condition(scaled, type_)).get("status") == status:
            found.append(f"KEDA: {type_}={status}: {condition.get('message') or condition.get('reason', '')}")
    return found


def _left_behind(head: Head, rows: dict[str, TriggerRows]) -> list[str]:
    """What waits for triggers that it no longer has."""
    known = {each.name for each in head.function.spec.triggers}
    return [
        f"trigger {name} is removed: {removals.left_behind(left.waiting)}"
        for name, left in rows.items()
        if name not in known and left.waiting
    ]


def _revision(head: Head, namespace: str) -> RevisionInfo:
    paths = [each.http.path for each in head.function.spec.triggers if each.http is not None]
    return RevisionInfo(
        name=head.function.name,
        digest=head.revision,
        number=head.number,
        created=head.created,
        serving=True,
        environment=head.environment,
        urls=list(dict.fromkeys(url(head.function.name, namespace) + path for path in paths)),
    )


def url(name: str, namespace: str) -> str:
    """Inside the cluster."""
    return f"http://{name}.{namespace}.svc"


def _worker(pod: Object, figures: WorkerFigures | None) -> WorkerInfo:
    return WorkerInfo(
        pid=0,
        name=name_of(pod),
        revision=labels_of(pod).get(LABEL_REVISION, ""),
        started=_seconds(pod["metadata"]["creationTimestamp"]),
        ready=pods.ready(pod),
        in_flight=figures.in_flight if figures is not None else 0,
        rss=figures.rss if figures is not None else 0,
        restarts=sum(each.get("restartCount", 0) for each in (pod.get("status") or {}).get("containerStatuses") or []),
        problem=found.message if (found := pods.trouble(pod)) is not None else "",
    )


def _trigger(
    trigger: Trigger, head: Head, namespace: str, rows: dict[str, TriggerRows], backlogs: dict[str, int]
) -> TriggerStatus:
    found = rows.get(trigger.name, TriggerRows())
    return TriggerStatus(
        name=trigger.name,
        kind=trigger.kind.name,
        where=_where(trigger, head.function.name, namespace),
        paused=trigger.name in head.paused,
        backlog=backlogs.get(trigger.name),
        waiting=found.waiting,
        held=found.held,
        parked=found.parked,
        in_flight=found.in_flight,
        dead=found.dead,
        oldest=found.oldest,
        next_due=found.next_due,
        next_fire=found.next_fire,
        last_fire=found.last_fire,
        problem=found.problem,
    )


def _where(trigger: Trigger, name: str, namespace: str) -> str:
    if trigger.http is not None:
        return f"{','.join(trigger.http.methods)} {url(name, namespace)}{trigger.http.path}"
    if trigger.cron is not None:
        return f"cron {trigger.cron.schedule} {trigger.cron.timezone}"
    return f"{trigger.kind.name} topic {trigger.block.topic} (connection {trigger.connection or trigger.kind.name})"


def _last_activation(newest: Object | None, sums: Sums | None) -> float | None:
    """Unix seconds. Where a pod is there, when it was made."""
    if newest is not None:
        return _seconds(newest["metadata"]["creationTimestamp"])
    return sums.last_activation if sums is not None else None


def _cold_start(pod: Object | None) -> float | None:
    """From its making to ready, in whole seconds, as the cluster notes them."""
    if pod is None or not pods.ready(pod):
        return None
    ready = pods.condition(pod, "Ready").get("lastTransitionTime")
    return _seconds(str(ready)) - _seconds(pod["metadata"]["creationTimestamp"]) if ready else None


def _seconds(time: str) -> float:
    return dt.datetime.fromisoformat(time).timestamp()
