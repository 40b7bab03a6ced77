"""The MQTT parts of a worker: a publisher per connection. Its triggers are fed by the gateway. Imported only where
there are some.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Coroutine
from pathlib import Path

from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access, mqtt_link
from fleetfn_spec import secrets
from fleetfn_triggers.mqtt import MqttOutput
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Resolve, Secret

from fleetfn_runtime.mqtt_output import MqttPublisher
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.settings import Settings

KIND = "mqtt"
"""The connection of what names none."""


def publishers(settings: Settings) -> dict[str, Publisher]:
    """By output. Outputs of one connection share a client, so that order across them is kept."""
    function = settings.function
    outputs: dict[str, dict[str, MqttOutput]] = {}
    for output in function.spec.outputs:
        if output.mqtt is not None:
            outputs.setdefault(output.connection or KIND, {})[output.name] = output.mqtt
    found: dict[str, Publisher] = {}
    for name, of in outputs.items():
        publisher = MqttPublisher(
            connection(settings, name, f"output {', '.join(of)}"),
            of,
            resolve=resolver(settings.source),
            client_id=f"fleetfn/{settings.environment}/{settings.place}/{function.name}",
            base=settings.source,
        )
        found.update(dict.fromkeys(of, publisher))
    return found


def checks(settings: Settings) -> list[Coroutine[None, None, None]]:
    """Of all connections, those of triggers too: a deploy should fail that the gateway could not serve."""
    spec = settings.function.spec
    names = {each.connection or KIND: each.name for each in spec.outputs if each.mqtt is not None}
    names |= {each.connection or KIND: each.name for each in spec.triggers if each.mqtt is not None}
    return [_check(connection(settings, name, f'"{user}"'), settings.source) for name, user in names.items()]


async def _check(connection: MqttConnection, base: Path) -> None:
    """It answers and lets us in. Raises FleetError."""
    access = mqtt_access.access(connection, resolver(base), base)
    link = await mqtt_link.connect(access, f"fleetfn-check-{uuid.uuid4().hex[:12]}")
    await link.close()


def connection(settings: Settings, name: str, who: str) -> MqttConnection:
    found = settings.mqtt.get(name)
    if found is None:
        raise FleetError(
            f'{who} needs the MQTT connection "{name}", and environment "{settings.environment}" gives no address',
            hint="name its url in environments.yaml, or run the function on a node, which has a broker to try with",
        )
    return found


def resolver(base: Path) -> Resolve:
    def resolve(reference: Secret) -> str:
        return secrets.resolve(reference, os.environ, base)

    return resolve
