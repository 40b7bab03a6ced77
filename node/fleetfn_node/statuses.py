"""What `fn list` and `fn describe` show: why a function runs or does not, in values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetfn_spec import removals
from fleetfn_spec.control import FunctionStatus, Phase, RevisionInfo, TriggerStatus, WorkerInfo
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import TriggerRows

from fleetfn_node import brokers
from fleetfn_node.hosting import Hosted
from fleetfn_node.links import WorkerLink
from fleetfn_node.revisions import Deploy

if TYPE_CHECKING:
    from fleetfn_node.node import Node


async def listed(node: Node) -> list[FunctionStatus]:
    """Of all functions, by name, without asking any broker: backlogs are unknown."""
    rows = await _rows(node)
    found = [_status(node, each, rows, {}) for each in node.functions.values()]
    found += [_broken(name, why) for name, why in node.broken.items()]
    return sorted(found, key=lambda each: each.name)


async def described(node: Node, hosted: Hosted) -> FunctionStatus:
    """Of one function, with its workers' figures of now, and the backlog of each trigger where its broker tells it
    within seconds.
    """
    await asyncio.gather(*(each.refresh() for each in hosted.activation.links()))
    rows = await _rows(node)
    triggers = hosted.function.spec.triggers
    asked = [each for each in triggers if not _problem(node, hosted, each, rows)]  # in trouble it would not answer
    backlogs = await asyncio.gather(*(hosted.backlog(each) for each in asked))
    lags = {each.name: lag for each, lag in zip(asked, backlogs, strict=True)}
    return _status(node, hosted, rows, lags)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the gateway told. `problem`: why it told nothing, or takes no more."""

    functions: dict[str, dict[str, TriggerRows]]
    problem: str = ""

    def of(self, hosted: Hosted) -> dict[str, TriggerRows]:
        return self.functions.get(hosted.name, {})


async def _rows(node: Node) -> Rows:
    """A status is no place to fail: without the gateway the rest is told."""
    status = await node.gateway.status()
    if status is None:
        return Rows({}, node.gateway.problem or "the gateway does not tell what waits there; see the node's log")
    return Rows(status.functions, status.problem or node.gateway.problem)


def _status(node: Node, hosted: Hosted, rows: Rows, backlogs: dict[str, int | None]) -> FunctionStatus:
    phase, reason = phase_of(hosted)
    triggers = hosted.function.spec.triggers
    deaf = [each.name for each in triggers if _problem(node, hosted, each, rows)]
    if phase == "sleeping" and deaf:
        reason = f"no process, and {', '.join(deaf)} cannot wake it now: see the problem there"
    kept = hosted.tally.kept
    return FunctionStatus(
        name=hosted.name,
        phase=phase,
        reason=reason,
        revision=revision(hosted, hosted.head.serving, node.url),
        triggers=[_trigger(node, hosted, each, rows, backlogs.get(each.name)) for each in triggers],
        workers=[worker(each) for each in hosted.activation.links()],
        counters=kept.counters,
        dead_letters=sum(each.dead for each in rows.of(hosted).values()),
        last_error=kept.last_error,
        last_error_time=kept.last_error_time,
        last_activation=kept.last_activation,
        cold_start=hosted.activation.cold_start,
        problems=list(_problems(node, hosted, rows)),
    )


def _problems(node: Node, hosted: Hosted, rows: Rows) -> Iterator[str]:
    if rows.problem:
        yield rows.problem
    for kind in brokers.embedded_kinds(hosted.function, hosted.environment):
        if problem := node.broker(kind).problem:
            yield problem
    known = {each.name for each in hosted.function.spec.triggers}
    for name, left in rows.of(hosted).items():
        if name not in known and left.waiting:
            yield f"trigger {name} is removed: {removals.left_behind(left.waiting)}"


def phase_of(hosted: Hosted) -> tuple[Phase, str]:
    if hosted.all_paused:
        return "paused", "all its triggers are paused by hand; resume them"
    return hosted.activation.phase()


def revisions(hosted: Hosted, url: str) -> list[RevisionInfo]:
    """Newest first."""
    return [revision(hosted, each, url) for each in reversed(hosted.head.history)]


def revision(hosted: Hosted, deploy: Deploy, url: str) -> RevisionInfo:
    serving = deploy is hosted.head.serving
    paths = [each.http.path for each in hosted.function.spec.triggers if each.http is not None]
    return RevisionInfo(
        name=hosted.name,
        digest=deploy.digest,
        number=deploy.number,
        created=deploy.at,
        serving=serving,
        environment=deploy.environment.name,
        urls=list(dict.fromkeys(url + path for path in paths)) if serving else [],
    )


def worker(link: WorkerLink) -> WorkerInfo:
    return WorkerInfo(
        pid=link.pid,
        revision=link.revision,
        started=link.started,
        ready=link.is_ready,
        in_flight=link.in_flight,
        rss=link.process.rss(),
    )


def _broken(name: str, why: str) -> FunctionStatus:
    """A function whose files do not read: nothing but its name is known."""
    unknown = RevisionInfo(name=name, digest="", number=0, created=0.0, serving=False, environment="")
    return FunctionStatus(name=name, phase="failed", reason=f"{why}; deploy it again", revision=unknown, triggers=[])


def _trigger(node: Node, hosted: Hosted, trigger: Trigger, rows: Rows, backlog: int | None) -> TriggerStatus:
    found = rows.of(hosted).get(trigger.name, TriggerRows())
    return TriggerStatus(
        name=trigger.name,
        kind=trigger.kind.name,
        where=where(node.url, hosted, trigger),
        paused=trigger.name in hosted.head.paused,
        backlog=backlog,
        waiting=found.waiting + (node.door.room.waiting[hosted.name] if trigger.http is not None else 0),
        held=found.held,
        parked=found.parked,
        in_flight=found.in_flight,
        dead=found.dead,
        oldest=found.oldest,
        next_due=found.next_due,
        next_fire=found.next_fire,
        last_fire=found.last_fire,
        problem="; ".join(filter(None, [_problem(node, hosted, trigger, rows), *_outages(hosted)])),
    )


def _problem(node: Node, hosted: Hosted, trigger: Trigger, rows: Rows) -> str:
    """As its workers told it, and its feed in the gateway; while it sleeps, as the watch sees it."""
    said = [dict(each.problems).get(trigger.name, "") for each in hosted.activation.working]
    if not said and trigger.kafka is not None:
        said.append(node.watch.problem(hosted.name, trigger.name))
    said.append(rows.of(hosted).get(trigger.name, TriggerRows()).problem)
    if node.gateway.is_away and (trigger.mqtt is not None or trigger.cron is not None):
        said.append("it stands still without the gateway")
    return "; ".join(filter(None, dict.fromkeys(said)))


def _outages(hosted: Hosted) -> list[str]:
    """What its workers cannot reach, by which all its triggers stand still: their store, the gateway, an output."""
    triggers = {each.name for each in hosted.function.spec.triggers}
    told = [problem for link in hosted.activation.working for problem in link.problems]
    return list(dict.fromkeys(why for what, why in told if what not in triggers))


def where(url: str, hosted: Hosted, trigger: Trigger) -> str:
    if trigger.http is not None:
        return f"{','.join(trigger.http.methods)} {url}{trigger.http.path}"
    if trigger.cron is not None:
        return f"cron {trigger.cron.schedule} {trigger.cron.timezone}"
    kind = brokers.kind_of(trigger)
    if kind is None:
        return ""
    place = "embedded" if hosted.is_embedded(trigger) else f"connection {brokers.name_of(trigger, kind)}"
    return f"{kind} topic {trigger.block.topic} ({place})"
