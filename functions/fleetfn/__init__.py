"""What a handler imports. `from fleetfn import Event, State, Context, Retry` ..."""

from __future__ import annotations

from fleetfn.batch import Batch
from fleetfn.config import Config
from fleetfn.context import Context
from fleetfn.errors import FleetError
from fleetfn.event import Event
from fleetfn.http import Request, Response
from fleetfn.outcomes import Reject, Retry
from fleetfn.state import Snapshot, State
from fleetfn.tick import Tick

__all__ = [
    "Batch",
    "Config",
    "Context",
    "Event",
    "FleetError",
    "Reject",
    "Request",
    "Response",
    "Retry",
    "Snapshot",
    "State",
    "Tick",
]
