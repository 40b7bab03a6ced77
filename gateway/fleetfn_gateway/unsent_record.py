"""A Kafka record that is about to be written. Its key is what the trigger's own key expression finds in it.

So events of one vehicle land in one partition, in order, also where the sender names no key.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetfn.invocation import Outcome
from fleetfn_spec.control import SendItem
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import SendRecord
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.trigger import Reading

from fleetfn_gateway.sending import payload

KeyOf = Callable[[str, bytes | None, dict[str, str]], str | None]


def key_of(function: str, trigger: Trigger) -> KeyOf:
    """A callable: topic, value, headers -> key; None where the expression finds none."""
    reading = Reading(trigger=trigger.name, function=function, key=trigger.key_expression, event=trigger.event)
    reader = trigger.kind.reader(trigger.block, reading)
    nobody = _Nobody()

    def find(topic: str, value: bytes | None, headers: dict[str, str]) -> str | None:
        return reader(_Unsent(topic, value, headers), nobody).key

    return find


def record(topic: str, item: SendItem, find: KeyOf) -> SendRecord:
    """Raises FleetError for an item that has no payload which can be written."""
    value, headers = payload(item)
    return SendRecord(item.key if item.key is not None else find(topic, value, headers), value, headers)


class _Unsent:
    """What a reader asks of a record; it has no place yet."""

    def __init__(self, topic: str, value: bytes | None, headers: dict[str, str]) -> None:
        self._topic, self._value = topic, value
        self._headers = [(name, text.encode()) for name, text in headers.items()]

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return (0, 0)


class _Nobody:
    """The source of a delivery that is only read."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> None: ...

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        return False
