"""What workers import late, for a process that forks them: it is there already then."""

from __future__ import annotations

import contextlib
import importlib

LATE = (
    "fleetfn_runtime.sqlite_store",
    "fleetfn_runtime.kafka_wiring",
    "fleetfn_runtime.mqtt_wiring",
    "fleetfn_runtime.http_output_wiring",
    "fleetfn.cloudevents.http",
    "fleetfn.cloudevents.kafka",
)


def load() -> None:
    """Import them, as far as their libraries are installed. None of them starts a thread by being imported."""
    for name in LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
