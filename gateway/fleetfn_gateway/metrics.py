"""What a gateway counts, as Prometheus' text. Labels are few by nature: function and trigger, never a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fleetfn_spec.gateway import TriggerRows

from fleetfn_gateway.queue import Queue

_ROWS = (
    ("waiting", "Rows to be delivered."),
    ("held", "Keys whose lane waits, for a later retry or behind a dead letter."),
    ("in_flight", "Rows at workers."),
    ("dead", "Dead letters."),
)
"""Fields of TriggerRows."""


def text(
    queue: Queue, delivered: Mapping[str, Mapping[str, int]], left_out: Iterable[tuple[str, str, int]] = ()
) -> bytes:
    """`delivered`: rows that workers were done with since the gateway started, by function and trigger. `left_out`:
    (function, trigger, fires that overlapped). Raises StoreError.
    """
    lines = [*_of_rows(queue.counts()), *_of_deliveries(delivered), *_of_clocks(left_out), *_of_file(queue), ""]
    return "\n".join(lines).encode()


def _of_rows(counts: Mapping[str, Mapping[str, TriggerRows]]) -> Iterator[str]:
    for name, about in _ROWS:
        yield from _head(name, "gauge", about)
        for function, triggers in counts.items():
            for trigger, rows in triggers.items():
                yield f"{_PREFIX}{name}{_labels(function, trigger)} {getattr(rows, name)}"


def _of_deliveries(delivered: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield from _head("delivered_total", "counter", "Rows that workers were done with.")
    for function, triggers in delivered.items():
        for trigger, count in triggers.items():
            yield f"{_PREFIX}delivered_total{_labels(function, trigger)} {count}"


def _of_clocks(left_out: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    yield from _head("fires_left_out_total", "counter", "Fires not made, since one before waited or ran.")
    for function, trigger, count in left_out:
        yield f"{_PREFIX}fires_left_out_total{_labels(function, trigger)} {count}"


def _of_file(queue: Queue) -> Iterator[str]:
    for name, kind, about, value in (
        ("arrivals_total", "counter", "Events that the inbox took.", queue.taken),
        ("arrivals_refused_total", "counter", "Events that there was no room for.", queue.refused),
        ("inbox_bytes", "gauge", "Bytes of the inbox on disk.", queue.bytes),
        ("inbox_quota_bytes", "gauge", "Bytes that it may have.", queue.quota),
        ("inbox_accepting", "gauge", "1: it takes new rows.", int(queue.accepting)),
    ):
        yield from _head(name, kind, about)
        yield f"{_PREFIX}{name} {value}"


_PREFIX = "fleetfn_gateway_"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {about}"
    yield f"# TYPE {_PREFIX}{name} {kind}"


def _labels(function: str, trigger: str) -> str:
    return f'{{function="{_escaped(function)}",trigger="{_escaped(trigger)}"}}'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
