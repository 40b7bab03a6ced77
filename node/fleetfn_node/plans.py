"""What a deploy would change, field by field."""

from __future__ import annotations

from collections.abc import Mapping

from fleetfn_spec.control import Change, Plan
from fleetfn_spec.differences import differences, whole
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function
from fleetfn_spec.gateway import TriggerRows
from fleetfn_spec.removals import removals

from fleetfn_node.revisions import Head, Revision


def plan(
    function: Function,
    environment: Environment,
    digest: str,
    *,
    source: str,
    before: tuple[Head, Revision, str] | None,
    rows: Mapping[str, TriggerRows] | None = None,
) -> Plan:
    """`source`: digest of the files alone; `before`: what serves now, with its files' digest; `rows`: what waits for
    its triggers.
    """
    if before is None:
        return Plan(name=function.name, digest=digest, serving=None)
    head, revision, old_source = before
    changes = [
        *differences("", whole(revision.function), whole(function)),
        *differences("environment", whole(head.serving.environment), whole(environment)),
    ]
    if source != old_source:
        changes.append(Change("source", old_source[:12], source[:12]))
    notes = removals(revision.function, function, rows or {})
    return Plan(name=function.name, digest=digest, serving=head.serving.digest, changes=changes, notes=notes)
