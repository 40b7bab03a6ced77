"""What becomes of triggers that a function no longer has, for people."""

from __future__ import annotations

from collections.abc import Mapping

from fleetfn_spec.function import Function, Trigger
from fleetfn_spec.gateway import TriggerRows

_LEAVES = {
    "http": "its path is answered with 404",
    "kafka": "its offsets stay in Kafka",
    "mqtt": "its session at the broker ends, with what the broker keeps for it",
    "cron": "its clock stops",
}
"""What a removed trigger leaves at its source."""


def removals(old: Function, new: Function, rows: Mapping[str, TriggerRows]) -> list[str]:
    """What becomes of the triggers that `new` no longer has: one line each. `rows`: what waits for them."""
    names = {each.name for each in new.spec.triggers}
    return [_removal(each, rows.get(each.name, TriggerRows())) for each in old.spec.triggers if each.name not in names]


def _removal(trigger: Trigger, rows: TriggerRows) -> str:
    parts = [_LEAVES[trigger.kind.name]]
    if rows.waiting:
        parts.append(left_behind(rows.waiting))
    if rows.dead:
        parts.append(f"its dead letters ({rows.dead}) stay")
    return f"trigger {trigger.name} is removed: {'; '.join(parts)}"


def left_behind(waiting: int) -> str:
    """What becomes of rows whose trigger is gone: nothing is lost, and a rollback has them for a while."""
    events = "1 event stays" if waiting == 1 else f"{waiting} events stay"
    return f"{events} in the inbox for it, until a revision has a trigger of that name again, or an hour has passed"
