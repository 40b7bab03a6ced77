"""One function as its node hosts it: revision, activation, pauses, counters."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fleetfn.errors import FleetError
from fleetfn_runtime.channel import Stats
from fleetfn_runtime.settings import group_id
from fleetfn_spec import secrets
from fleetfn_spec.anchoring import anchored
from fleetfn_spec.durations import seconds
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function, Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret

from fleetfn_node import brokers
from fleetfn_node.activation import Activation, Policy
from fleetfn_node.counting import Tally
from fleetfn_node.links import Listener, WorkerLink
from fleetfn_node.metering import NodeMetrics
from fleetfn_node.revisions import SHOWN, Head, Revision, Revisions
from fleetfn_node.workers import Workers


class NotFound(FleetError):  # noqa: N818 - as HTTP says it
    """No such function, trigger, key or dead letter."""


class Watch(Protocol):
    """Looks out for records while a function sleeps."""

    def sleep(self, function: str, trigger: str, topic: str, group: str, connection: KafkaConnection) -> None: ...

    def forget(self, function: str, trigger: str) -> None: ...


TakeBack = Callable[[int, bytes], None]
"""The front door's: a connection, and what was read of it."""


class Hosted:
    """Is the Listener of its workers."""

    def __init__(
        self,
        revisions: Revisions,
        head: Head,
        revision: Revision,
        *,
        workers: Workers,
        watch: Watch,
        take_back: TakeBack,
        metrics: NodeMetrics,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called whenever its tally has something to save."""
        self.name = revision.function.name
        self.revisions = revisions
        self.head = head
        self.revision = revision
        self.heads = asyncio.Lock()
        """Held while head.json is replaced."""
        self.tally = Tally(revisions.folder / "counters.json", changed)
        self._workers = workers
        self._watch = watch
        self._take_back = take_back
        self.activation = Activation(
            self.name,
            policy(revision.function),
            self._spawn,
            asleep=self._look_out,
            awake=self._look_away,
            woke=self._woke,
            failed=lambda why: self.tally.error(why, time.time()),
        )
        self._measure = metrics.woke(self.name)
        self._watched: list[str] = []
        self._proven = False
        """A worker of the serving revision was ready."""

    @property
    def function(self) -> Function:
        return self.revision.function

    @property
    def environment(self) -> Environment:
        return self.head.serving.environment

    @property
    def source(self) -> Path:
        return self.revisions.source(self.revision.digest)

    @property
    def all_paused(self) -> bool:
        return all(each.name in self.head.paused for each in self.function.spec.triggers)

    async def activate(self) -> WorkerLink:
        """Raises Unavailable."""
        return await self.activation.activate()

    def wake(self, _trigger: str) -> None:
        self.activation.wake()

    async def wake_for(self, waiting: int) -> list[WorkerLink]:
        """All workers that take work, at least one; `waiting`: rows of the inbox that could run now.

        Raises Unavailable.
        """
        self.activation.rows_wait(waiting)
        await self.activation.activate()
        return self.activation.working

    def switch(self, head: Head, revision: Revision, link: WorkerLink, paused: list[str]) -> None:
        """`paused`: what the worker was told at its start; pauses may have changed since."""
        self._look_away()
        self.head, self.revision = head, revision
        self._proven = True
        self.activation.switch(link, policy(revision.function))
        _tell_pauses(link, set(paused), set(head.paused))

    def reconnect(self, reason: str) -> None:
        """What it connects to has another address now."""
        self._look_away()
        self.activation.renew(reason)

    def pause(self, head: Head) -> None:
        """Pauses changed, by hand."""
        before, now = set(self.head.paused), set(head.paused)
        self.head = head
        for link in self.activation.links():
            _tell_pauses(link, before, now)
        if self._watched:
            self._look_away()
        if not self.activation.links():
            self.activation.begin()

    # Listener

    def step(self, text: str) -> None:
        """Steps are told where somebody deploys; a waking worker's are not."""

    def handed_back(self, fd: int, head: bytes) -> None:
        self._take_back(fd, head)

    def stats(self, _link: WorkerLink, stats: Stats) -> None:
        self.tally.add(stats)

    def idle(self, link: WorkerLink, seconds: float) -> None:
        self.activation.idle(link, seconds)

    def leaving(self, link: WorkerLink, reason: str) -> None:
        self.activation.leaving(link, reason)

    def gone(self, link: WorkerLink, status: int | None) -> None:
        self.activation.gone(link, status)

    def _woke(self, seconds: float) -> None:
        self._proven = True
        self.tally.activated(time.time())
        self._measure(seconds)

    async def _spawn(self, slot: int) -> WorkerLink:
        paused = self.head.paused
        link = await self._workers.start(
            self.revision, self.head.serving, self.source, paused, self, slot=slot, proven=self._proven
        )
        _tell_pauses(link, set(paused), set(self.head.paused))  # they may have changed meanwhile
        return link

    def _look_out(self) -> None:
        for trigger in self.function.spec.triggers:
            if trigger.kafka is not None and trigger.name not in self.head.paused:
                self._watched.append(trigger.name)
                self._watch.sleep(
                    self.name, trigger.name, trigger.kafka.topic, self.group(trigger), self.kafka(trigger)
                )

    def _look_away(self) -> None:
        while self._watched:
            self._watch.forget(self.name, self._watched.pop())

    def group(self, trigger: Trigger) -> str:
        return group_id(self.environment.name, self._workers.place, self.name, trigger.name)

    def trigger(self, name: str) -> Trigger:
        """Raises NotFound that names those there are."""
        triggers = self.function.spec.triggers
        found = next((each for each in triggers if each.name == name), None)
        if found is None:
            raise NotFound(
                f"{self.name} has no trigger {name!r}", hint=f"it has: {', '.join(each.name for each in triggers)}"
            )
        return found

    def for_gateway(self) -> GatewayFunction:
        return GatewayFunction(
            function=self.function,
            revision=self.revision.digest[:SHOWN],
            environment=self.environment.name,
            place=self._workers.place,
            mqtt=brokers.mqtts(self.function, self.environment, self._workers.embedded()),
            source=self.source,
            paused=tuple(self.head.paused),
        )

    def is_embedded(self, trigger: Trigger) -> bool:
        kind = brokers.kind_of(trigger)
        return kind is not None and brokers.is_embedded(brokers.name_of(trigger, kind), kind, self.environment)

    def resolve(self, reference: Secret) -> str:
        """As the worker does it: the environment is the node's, files lie beside the source. Raises FleetError."""
        return secrets.resolve(reference, os.environ, self.source)

    async def backlog(self, trigger: Trigger) -> int | None:
        """Messages that wait at its source; None where nobody can tell, or nothing waits there."""
        connection = self.kafka(trigger) if trigger.kafka is not None else None
        return await trigger.kind.backlog(
            trigger.block, connection=connection, group=self.group(trigger), resolve=self.resolve
        )

    def kafka(self, trigger: Trigger) -> KafkaConnection:
        """As the node uses it, which is not in the function's folder."""
        name = brokers.name_of(trigger, "kafka")
        return anchored(brokers.kafka(name, self.environment, self._workers.embedded()), self.source)

    def mqtt(self, trigger: Trigger) -> MqttConnection:
        """Likewise. Raises FleetError where it would be the embedded broker, and that does not run."""
        name = brokers.name_of(trigger, "mqtt")
        found = brokers.mqtt(name, self.environment, self._workers.embedded())
        if found is None:
            raise FleetError("the embedded MQTT broker does not run", hint="the node's log says why")
        return anchored(found, self.source)


class Candidate:
    """The listener of a worker that is not in service yet: its steps go to whoever deploys, the rest to its host
    once it has one.
    """

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._host: Listener | None = None
        self._gone: tuple[WorkerLink, int | None] | None = None

    def join(self, host: Listener) -> None:
        self._host = host
        if self._gone is not None:
            host.gone(*self._gone)

    def step(self, text: str) -> None:
        self._progress(text)

    def handed_back(self, fd: int, head: bytes) -> None:
        if self._host is None:
            os.close(fd)  # nobody has handed one over
        else:
            self._host.handed_back(fd, head)

    def stats(self, link: WorkerLink, stats: Stats) -> None:
        if self._host is not None:
            self._host.stats(link, stats)

    def idle(self, link: WorkerLink, seconds: float) -> None:
        if self._host is not None:
            self._host.idle(link, seconds)

    def leaving(self, link: WorkerLink, reason: str) -> None:
        if self._host is not None:
            self._host.leaving(link, reason)

    def gone(self, link: WorkerLink, status: int | None) -> None:
        self._gone = (link, status)
        if self._host is not None:
            self._host.gone(link, status)


def _tell_pauses(link: WorkerLink, before: set[str], now: set[str]) -> None:
    if now - before:
        link.pause(tuple(sorted(now - before)))
    if before - now:
        link.resume(tuple(sorted(before - now)))


def policy(function: Function) -> Policy:
    spec = function.spec
    timeouts = [spec.timeout, *(each.timeout for each in spec.triggers if each.timeout)]
    return Policy(
        idle=seconds(spec.scale.idle),
        least=spec.scale.min,
        most=spec.scale.max,
        pulls=any(each.kafka is not None for each in spec.triggers),
        timeout=max(seconds(each) for each in timeouts),
        concurrency=spec.scale.concurrency,
    )
