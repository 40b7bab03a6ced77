"""The trigger kinds there are. To add one: its module, a line here, and its block in fleetfn_spec.function.Trigger."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fleetfn_triggers import cron, http, kafka, mqtt
from fleetfn_triggers.trigger import Kind

_ALL: tuple[Kind, ...] = (http.KIND, kafka.KIND, mqtt.KIND, cron.KIND)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
