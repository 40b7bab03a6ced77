"""The cron block of function.yaml, and the event that a fire becomes."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from fleetfn_triggers.cron import KIND, Cron, Fire
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.trigger import Reading

AT = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()


class Nobody:
    def settle(self, *_: object) -> None: ...

    def owns(self, *_: object) -> bool:
        return True


def read(fire: Fire) -> Delivery:
    reader = KIND.reader(Cron(schedule="0 3 * * *", timezone="Europe/Berlin"), Reading("daily", "report", "source"))
    return reader(fire, Nobody())


def test_a_complete_block_has_no_complaint() -> None:
    spec = Cron(schedule="30 2 * * *", timezone="Europe/Berlin", missed="all", overlap="queue")
    assert list(KIND.check(spec, KIND.natural_key)) == []


@pytest.mark.parametrize(
    ("spec", "key", "field", "message"),
    [
        (Cron(schedule="99 2 * * *"), "source", "cron.schedule", '"99 2 * * *": "99" is no minute'),
        (Cron(schedule="@daily", timezone="Berlin"), "source", "cron.timezone", 'there is no time zone "Berlin"'),
        (Cron(schedule="@daily"), None, "key", "null: fires of a clock have one key, the trigger's own"),
        (Cron(schedule="@daily"), "data.scheduled", "key", '"data.scheduled": fires of a clock have one key'),
    ],
    ids=["schedule", "zone", "no key", "another key"],
)
def test_complaints_name_the_field(spec: Cron, key: str | None, field: str, message: str) -> None:
    (complaint,) = KIND.check(spec, key)
    assert complaint.field == field
    assert complaint.message.startswith(message)
    assert complaint.hint


def test_a_fire_is_an_event_with_an_id_that_its_instant_decides() -> None:
    delivery = read(Fire(at=AT, previous=AT - 86400, missed=2))
    event = delivery.event
    assert event.id == "report/daily/2026-03-29T01:00:00Z"
    assert (event.source, event.type) == ("cron:report/daily", "cron.fire")
    assert event.time == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert json.loads(event.data or b"") == {
        "scheduled": "2026-03-29T01:00:00Z",
        "previous": "2026-03-28T01:00:00Z",
        "missed": 2,
        "timezone": "Europe/Berlin",
    }
    assert read(Fire(at=AT)).event.id == event.id


def test_fires_of_a_trigger_share_a_lane() -> None:
    assert read(Fire(at=AT)).key == read(Fire(at=AT + 60)).key == "cron:report/daily"


def test_fires_by_hand_for_one_instant_differ() -> None:
    assert read(Fire(at=AT, by_hand="7f")).event.id == "report/daily/2026-03-29T01:00:00Z/7f"
