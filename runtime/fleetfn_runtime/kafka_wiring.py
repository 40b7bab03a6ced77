"""The Kafka parts of a worker: a source per trigger, a publisher per connection, and what is written by hand. Imported
only where there are some.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import cast

from fleetfn.errors import FleetError
from fleetfn_spec import secrets
from fleetfn_spec.control import Refusal
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import SendRecords, SendReply
from fleetfn_triggers import kafka_client
from fleetfn_triggers.kafka import Kafka, KafkaReader
from fleetfn_triggers.kafka_client import check_connection
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.kafka_membership import CONSUMER
from fleetfn_triggers.secret import Resolve, Secret

from fleetfn_runtime import kafka_sending
from fleetfn_runtime.connected import Connected
from fleetfn_runtime.inheritance import Suspects
from fleetfn_runtime.kafka_output import KafkaPublisher
from fleetfn_runtime.kafka_partitions import AsMember, ByHand, Partitions
from fleetfn_runtime.kafka_sharing import Shared
from fleetfn_runtime.kafka_source import KafkaSource
from fleetfn_runtime.load import LoadedFunction
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.road import Road
from fleetfn_runtime.settings import Settings, group_id
from fleetfn_runtime.team import Team

KIND = "kafka"
"""The connection of what names none."""


def sources(
    settings: Settings, loaded: LoadedFunction, road: Road, team: Team, connected: Connected
) -> list[KafkaSource]:
    found: list[KafkaSource] = []
    for trigger in loaded.triggers:
        spec = trigger.spec
        if spec.kafka is None:
            continue
        found.append(
            KafkaSource(
                spec.name,
                spec.kafka,
                cast("KafkaReader", trigger.reader),
                connection(settings, spec.connection or KIND, f'trigger "{spec.name}"'),
                group_id(settings.environment, settings.place, settings.function.name, spec.name),
                road,
                resolve=resolver(settings.source),
                partitions=_partitions(settings, spec.name, spec.kafka, road, team),
                began=connected.began(spec),
            )
        )
    return found


def _partitions(settings: Settings, trigger: str, kafka: Kafka, road: Road, team: Team) -> Partitions:
    if not settings.owns_partitions:
        # A pod that is not the first does not connect before it consumes: see Parts.connects.
        return AsMember(CONSUMER, kafka.start if settings.pod is not None and settings.proven else None)
    if not settings.shares:
        return ByHand()
    loop = asyncio.get_running_loop()

    def warn(suspects: Suspects) -> None:
        loop.call_soon_threadsafe(road.inherit, suspects)

    return Shared(trigger, team, warn)


def publishers(settings: Settings) -> dict[str, Publisher]:
    """By output. Outputs of one connection share a producer, so that order across them is kept cheap."""
    function = settings.function
    topics: dict[str, dict[str, str]] = {}
    for output in function.spec.outputs:
        if output.kafka is not None:
            topics.setdefault(output.connection or KIND, {})[output.name] = output.kafka.topic
    found: dict[str, Publisher] = {}
    for name, of in topics.items():
        outputs = ", ".join(of)
        client = f"{settings.environment}/{settings.place}/{function.name}"
        publisher = KafkaPublisher(
            connection(settings, name, f"output {outputs}"), of, resolve=resolver(settings.source), client_id=client
        )
        found.update(dict.fromkeys(of, publisher))
    return found


def checks(settings: Settings) -> list[Coroutine[None, None, None]]:
    """Of connections that only outputs use: nobody else finds out whether they let us in."""
    spec = settings.function.spec
    pulled = {trigger.connection or KIND for trigger in spec.triggers if trigger.kafka is not None}
    names = dict.fromkeys(output.connection or KIND for output in spec.outputs if output.kafka is not None)
    return [
        check_connection(connection(settings, name, "an output"), resolve=resolver(settings.source))
        for name in names
        if name not in pulled
    ]


async def send(settings: Settings, trigger: Trigger, kafka: Kafka, asked: SendRecords) -> SendReply:
    """To the trigger's topic. Raises FleetError where nothing can be sent at all."""
    function, resolve = settings.function.name, resolver(settings.source)
    chosen = connection(settings, trigger.connection or KIND, f'trigger "{trigger.name}"')
    if asked.records:
        with kafka_sending.producing(kafka_client.client_settings(chosen, resolve, f"fn-send/{function}")) as producer:
            try:
                for record in asked.records:
                    await producer.send(kafka.topic, record)
                await producer.flush()
            except FleetError as error:
                return SendReply(written=producer.written, refusal=Refusal(error.message, error.hint))
    group = group_id(settings.environment, settings.place, function, trigger.name)
    lag = await kafka_client.backlog(chosen, kafka.topic, group, resolve=resolve) if asked.lag else None
    return SendReply(written=len(asked.records), lag=lag)


def connection(settings: Settings, name: str, who: str) -> KafkaConnection:
    found = settings.kafka.get(name)
    if found is None or not found.brokers:
        raise FleetError(
            f'{who} needs the Kafka connection "{name}", and environment "{settings.environment}" gives no address',
            hint="name its brokers in environments.yaml, or run the function on a node, which has a broker to try with",
        )
    return found


def resolver(base: Path) -> Resolve:
    def resolve(reference: Secret) -> str:
        return secrets.resolve(reference, os.environ, base)

    return resolve
