"""The Dapr parts of a worker: its store, and a publisher per connection. Imported only where there are some."""

from __future__ import annotations

import os
from collections.abc import Coroutine

from fleetfn.errors import FleetError
from fleetfn_spec import secrets
from fleetfn_spec.environments import DaprState
from fleetfn_triggers.dapr_connection import DaprConnection
from fleetfn_triggers.dapr_output import DaprOutput
from fleetfn_triggers.secret import Secret

from fleetfn_runtime import dapr_sidecar
from fleetfn_runtime.dapr_output import DaprPublisher
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.dapr_store import DaprStore
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.settings import Settings

KIND = "dapr"
"""The connection of what names none."""

_ABSENT = DaprConnection()


async def store(settings: Settings, state: DaprState) -> DaprStore:
    """Raises FleetError."""
    sidecar = _sidecar(settings, _ABSENT, f"the state of {settings.function.name}")
    return await DaprStore.open(sidecar, state.component, f"{settings.place}/{settings.function.name}")


def publishers(settings: Settings) -> dict[str, Publisher]:
    """By output. Outputs of one connection share a client. Raises FleetError."""
    return {name: publisher for publisher, names in _by_connection(settings) for name in names}


def checks(settings: Settings) -> list[Coroutine[None, None, None]]:
    """The sidecars have the components that outputs name. Raises FleetError."""
    return [_check(publisher) for publisher, _ in _by_connection(settings)]


async def _check(publisher: DaprPublisher) -> None:
    try:
        await publisher.look()
    finally:
        await publisher.close()


def _by_connection(settings: Settings) -> list[tuple[DaprPublisher, list[str]]]:
    outputs: dict[str, dict[str, DaprOutput]] = {}
    for output in settings.function.spec.outputs:
        if output.dapr is not None:
            outputs.setdefault(output.connection or KIND, {})[output.name] = output.dapr
    found = []
    for name, of in outputs.items():
        sidecar = _sidecar(settings, settings.dapr.get(name, _ABSENT), f"output {', '.join(of)}")
        found.append((DaprPublisher(sidecar, of), list(of)))
    return found


def _sidecar(settings: Settings, connection: DaprConnection, who: str) -> Sidecar:
    url, token = dapr_sidecar.from_environment(os.environ)
    url = connection.url or url
    if not url:
        raise FleetError(
            f"{who} needs a Dapr sidecar, and neither a connection nor {dapr_sidecar.PORT} says where it is",
            hint="write {name: dapr, dapr: {url: 'http://127.0.0.1:3500'}} below the environment's connections",
        )
    if connection.token is not None:
        token = _resolved(connection.token, settings)
    return Sidecar(url, token=token)


def _resolved(reference: Secret, settings: Settings) -> str:
    return secrets.resolve(reference, os.environ, settings.source)
