"""What a deploy would change: of the function and its environment, of its image, and of the cluster's objects."""

from __future__ import annotations

from dataclasses import replace

from fleetfn_spec.control import Change, Plan
from fleetfn_spec.differences import differences, whole

from fleetfn_deploy.kubernetes import applying, kinds, render
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.revisions import History
from fleetfn_deploy.kubernetes.values import Deployable


async def plan(cluster: Cluster, wanted: Deployable, history: History | None, notes: list[str], *, force: bool) -> Plan:
    """By dry runs of the server. `notes`: what else becomes of things."""
    if history is None:
        made = await applying.compare(cluster, render.objects(wanted), force=force)
        notes = [*notes, *(f"{each.field} is made" for each in made)]
        return Plan(name=wanted.name, digest=wanted.revision, serving=None, notes=notes)
    return Plan(
        name=wanted.name,
        digest=wanted.revision,
        serving=history.head.revision,
        changes=[*_changes(wanted, history), *await _drift(cluster, wanted, history, force=force)],
        notes=notes,
    )


async def _drift(cluster: Cluster, wanted: Deployable, history: History, *, force: bool) -> list[Change]:
    """Of the cluster's objects, beside what names the revision: that differs with each."""
    head = history.head
    alike = replace(
        wanted, image=head.image, revision=head.revision, number=head.number, created=head.created, paused=head.paused
    )
    things = [each for each in render.objects(alike) if each["kind"] != kinds.CONFIG_MAP.name]
    return await applying.compare(cluster, things, force=force)


def _changes(wanted: Deployable, history: History) -> list[Change]:
    head, serving = history.head, history.serving
    found = differences("", whole(head.function), whole(wanted.function))
    if serving is not None:
        before, after = whole(serving.environment), whole(wanted.needed)
        found += differences("environment", before, after)
    if head.image != wanted.image:
        found.append(Change("source", _digits(head.image), _digits(wanted.image)))
    return found


def _digits(image: str) -> str:
    """The first of an image's digest, as a node shows those of a source."""
    return image.rpartition(":")[2][:12]
