"""The parts of a worker that only one in a pod has. Imported only there."""

from __future__ import annotations

import functools
import resource
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import UsageError
from fleetfn_plumbing import http_places
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec.cluster import Figures, Here
from fleetfn_spec.gateway import SendRecords, SendReply

from fleetfn_runtime.pod_calls import PodCalls
from fleetfn_runtime.pod_life import PodLife
from fleetfn_runtime.settings import Pod, Settings

if TYPE_CHECKING:
    from fleetfn_runtime.wiring import Parts


def made(
    settings: Settings, pod: Pod, certificates: TlsFolder, parts: Parts, settled: float
) -> tuple[PodLife, PodCalls]:
    """`settled`: seconds that a record stays as it is before its unsent emits are nobody's."""
    figures = functools.partial(_figures, secrets.token_hex(8), parts)
    calls = PodCalls(
        pod.port,
        certificates,
        triggers=tuple(trigger.spec.name for trigger in parts.loaded.triggers),
        http=parts.http,
        store=parts.store,
        pause=parts.pause,
        resume=parts.resume,
        figures=figures,
        send=functools.partial(_send, settings),
    )
    life = PodLife(
        settings.function.name,
        http_places.client(settings.gateway, certificates),
        parts.pulls,
        here=Here(pod=pod.name, address=pod.address) if pod.name and pod.address else None,
        pause=calls.pause,
        sweep=functools.partial(parts.road.sweep, settled) if parts.loaded.stateful is not None else None,
        figures=figures,
    )
    return life, calls


async def _send(settings: Settings, asked: SendRecords) -> SendReply:
    """Raises FleetError."""
    trigger = next((each for each in settings.function.spec.triggers if each.name == asked.trigger), None)
    if trigger is None or trigger.kafka is None:
        raise UsageError(
            f"revision {settings.revision} of {settings.function.name} has no Kafka trigger {asked.trigger!r}"
        )
    from fleetfn_runtime import kafka_wiring  # noqa: PLC0415 - only functions with Kafka have its client

    return await kafka_wiring.send(settings, trigger, trigger.kafka, asked)


def _figures(run: str, parts: Parts) -> Figures:
    road = parts.road
    return Figures(
        run=run,
        counters=parts.metrics.totals(),
        in_flight=road.in_flight,
        rss=_rss(),
        last_error=road.last_error,
        last_error_time=road.last_error_time,
    )


def _rss() -> int:
    """Bytes of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()
