"""One machine's platform: what is deployed here, awake or asleep, behind one front door."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from fleetfn.errors import FleetError
from fleetfn_runtime import http_keys
from fleetfn_spec.control import API, DeployRequest, NodeInfo, Plan
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function
from fleetfn_spec.gateway import TriggerRows

from fleetfn_node import brokers, deliver, durable, metering, statuses
from fleetfn_node.activation import Unavailable
from fleetfn_node.brokers import Embedded, Kind
from fleetfn_node.deploying import Deploying, Progress
from fleetfn_node.embedded_kafka import EmbeddedKafka
from fleetfn_node.embedded_mqtt import EmbeddedMqtt
from fleetfn_node.embedded_process import EmbeddedProcess
from fleetfn_node.envs import Envs
from fleetfn_node.folders import Folders
from fleetfn_node.front_door import FrontDoor
from fleetfn_node.gateway import Gateway, Known, unless_away
from fleetfn_node.gateway_process import GatewayOptions
from fleetfn_node.hosting import Candidate, Hosted, NotFound
from fleetfn_node.links import WorkerLink
from fleetfn_node.metering import NodeMetrics
from fleetfn_node.node_log import NodeLog
from fleetfn_node.parents import DEFAULT, Parents
from fleetfn_node.revisions import Deploy, Head, Revision, RevisionError, Revisions
from fleetfn_node.watch import KafkaWatch
from fleetfn_node.workers import Workers

log = logging.getLogger("fleetfn.node")

_SAVE_EVERY = 5.0
"""Seconds between writes of the counters."""


@dataclass(frozen=True, slots=True)
class Options:
    name: str
    folders: Folders
    host: str
    port: int
    gateway: GatewayOptions
    key_file: Path | None = None
    started_gateway: subprocess.Popen[bytes] | None = None
    """Where it was started ahead of the node."""


class Node:
    """Use on one loop. `stopping` is set when it should end: by a signal, or over the control API."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folders = options.folders
        self.started = time.time()
        self.stopping = asyncio.Event()
        self.functions: dict[str, Hosted] = {}
        self.broken: dict[str, str] = {}
        """Functions whose files do not read, with the reason."""
        self.parents = Parents()
        self.envs = Envs(self.folders.envs)
        self.metrics = NodeMetrics()
        self.kafka = EmbeddedKafka(lambda: self._moved("kafka"))
        self.mqtt = EmbeddedMqtt(lambda: self._moved("mqtt"))
        self.gateway = Gateway(
            options.gateway,
            lambda: Known([each.for_gateway() for each in self.functions.values()], not self.broken),
            options.started_gateway,
        )
        self.watch = KafkaWatch(self._wake)
        self.workers = Workers(
            folders=self.folders,
            parents=self.parents,
            place=self.folders.id(),
            log_key=self.folders.log_key(),
            embedded=lambda: Embedded(self.kafka.address, self.mqtt.address),
            python=self.envs.python,
            key_file=options.key_file,
        )
        self.deploying = Deploying(self)
        key = http_keys.read(options.key_file) if options.key_file is not None else None
        self.door = FrontDoor(
            options.host,
            options.port,
            activate=self.activate,
            awake=self.awake,
            key=key,
            metrics=self.measure,
            refused=self.metrics.refused,
        )
        self._log = NodeLog(self.folders.log)
        self._unsaved = asyncio.Event()
        """A function's tally has changed."""
        self._saving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.door.host}:{self.door.port}"

    def info(self) -> NodeInfo:
        return NodeInfo(
            name=self.options.name,
            version=importlib.metadata.version("fleetfn"),
            api=API,
            pid=os.getpid(),
            data=str(self.folders.data),
            log=str(self.folders.log),
            url=self.url,
            started=self.started,
            embedded_kafka=self.kafka.address,
            embedded_mqtt=self.mqtt.address,
            gateway=self.gateway.problem,
        )

    async def open(self) -> None:
        """Functions as they were, all asleep; the watch looks out, then the front door opens. Raises FleetError."""
        self.gateway.open()
        self.parents.warm(DEFAULT)
        await self._restore()
        await self.door.open()
        await self._warm()
        for hosted in self.functions.values():
            hosted.activation.begin()
        await self.gateway.tell_all()
        await asyncio.to_thread(
            durable.write, self.folders.data / "node.json", msgspec.json.format(msgspec.json.encode(self.info()))
        )
        self._saving = asyncio.create_task(self._save_now_and_then())

    def stop(self) -> None:
        """Drain and end; a second time: kill what does not end."""
        if self.stopping.is_set():
            for hosted in self.functions.values():
                for link in hosted.activation.links():
                    link.kill()
        self.stopping.set()

    async def close(self) -> None:
        """Drain every worker, within bounds; then the gateway goes, which they need until then."""
        await asyncio.gather(*(each.activation.stop("the node stops") for each in self.functions.values()))
        await self.door.close()
        await self.watch.close()
        if self._saving is not None:
            self._saving.cancel()
        await asyncio.to_thread(self._save)
        await self.parents.close()
        await self.gateway.close()
        await asyncio.gather(self.kafka.stop(), self.mqtt.stop())
        with contextlib.suppress(OSError):
            (self.folders.data / "node.json").unlink()

    def function(self, name: str) -> Hosted:
        """Raises NotFound that names what there is."""
        hosted = self.functions.get(name)
        if hosted is not None:
            return hosted
        if name in self.broken:
            raise NotFound(f"function {name!r} cannot be read: {self.broken[name]}", hint="deploy it again")
        known = ", ".join(sorted(self.functions)) or "none is deployed yet"
        raise NotFound(f"no function {name!r} on this node", hint=f"functions here: {known}")

    async def activate(self, name: str) -> WorkerLink:
        """For the front door. Raises Unavailable."""
        hosted = self.functions.get(name)
        if hosted is None:
            raise Unavailable(f"no function {name!r} is deployed here")
        return await hosted.activate()

    def awake(self, name: str) -> WorkerLink | None:
        """For the front door: the worker that takes work now, if there is one."""
        hosted = self.functions.get(name)
        return None if hosted is None else hosted.activation.current

    async def deploy(self, request: DeployRequest, packed: Path | None, progress: Progress) -> Hosted | Plan:
        """Raises FleetError, DeployRefused mostly."""
        if self.stopping.is_set():
            raise Unavailable("the node stops", hint="start it again, then deploy")
        return await self.deploying.deploy(request, packed, progress)

    async def delete(self, name: str, *, keep_state: bool) -> None:
        """What waits for it and its dead letters go with its state, or stay with it.

        Raises DeployRefused while a deploy of it is under way, Unavailable where the gateway, which has those, is away
        or fails: then the function is there as before, and can be deleted again.
        """
        with self.deploying.alone(name):
            await self.gateway.client()
            hosted = self.functions[name]
            await hosted.activation.stop("it is deleted")
            try:
                await self.gateway.forget(name, keep_rows=keep_state)
            except FleetError as error:
                self._take_up(hosted)
                raise Unavailable(
                    f"{name} is not deleted, the gateway failed: {error.message}",
                    hint="delete it again; what waited for it may be dropped already",
                ) from error
            del self.functions[name]
            self.door.remove(name)
            await asyncio.to_thread(_delete, hosted.revisions.folder, keep_state)
            await self.parents.forget(await self.workers.kind(hosted.revision, hosted.source))

    def _take_up(self, stopped: Hosted) -> None:
        """Host it anew, for it stays."""
        stopped.tally.save()
        hosted = self.functions[stopped.name] = self._host(stopped.revisions, stopped.head, stopped.revision)
        if not self.stopping.is_set():
            hosted.activation.begin()
        self.gateway.tell_again()

    async def pause(self, name: str, triggers: list[str], *, paused: bool) -> None:
        """These triggers, or all where none is named. Raises NotFound for a name that the function has not."""
        hosted = self.functions[name]
        known = [each.name for each in hosted.function.spec.triggers]
        for each in triggers:
            hosted.trigger(each)
        chosen = set(triggers or known)
        async with hosted.heads:
            before = set(hosted.head.paused)
            wanted = before | chosen if paused else before - chosen
            hosted.pause(await asyncio.to_thread(hosted.revisions.pause, [each for each in known if each in wanted]))
            self.door.pause(name, hosted.head.paused)
        await unless_away(self.gateway.tell(hosted.for_gateway), f"the gateway is told later of the pauses of {name}")

    async def measure(self) -> bytes:
        """Prometheus text: the node's own figures and those of the workers that run."""
        hosts = list(self.functions.values())
        links = [link for each in hosts for link in each.activation.working]
        asked = [self.gateway.metrics(), *(deliver.metrics(each) for each in links)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        own = self.metrics.text(statuses.phase_of(each)[0] for each in hosts)
        return metering.merged([own, *(each for each in told if isinstance(each, bytes))])  # one may be just leaving

    # House, for deploys

    def hosted(self, name: str) -> Hosted | None:
        return self.functions.get(name)

    def revisions(self, name: str) -> Revisions:
        return Revisions(self.folders.function(name))

    def incoming(self) -> Path:
        return self.folders.incoming

    def conflicts(self, function: Function) -> list[str]:
        return self.door.conflicts(function)

    async def prepare(self, function: Function, environment: Environment, source: Path, progress: Progress) -> None:
        await self.envs.python(source, progress)
        for kind in brokers.embedded_kinds(function, environment):
            await self._embedded(kind, progress)

    async def start(
        self, revision: Revision, deploy: Deploy, source: Path, paused: list[str], listener: Candidate
    ) -> WorkerLink:
        hosted = self.functions.get(revision.function.name)
        slot = hosted.activation.next_slot(revision.function.spec.scale.max) if hosted is not None else 0
        return await self.workers.start(revision, deploy, source, paused, listener, slot=slot)

    async def switch(
        self, revision: Revision, environment: Environment, link: WorkerLink, listener: Candidate, paused: list[str]
    ) -> Hosted:
        name = revision.function.name
        revisions = self.revisions(name)
        hosted = self.functions.get(name)
        if hosted is None:
            head = await asyncio.to_thread(revisions.switch, revision.digest, environment)
            hosted = self.functions[name] = self._host(revisions, head, revision)
            hosted.switch(head, revision, link, paused)
        else:
            before = await self.workers.kind(hosted.revision, hosted.source)
            async with hosted.heads:
                head = await asyncio.to_thread(revisions.switch, revision.digest, environment)
                hosted.switch(head, revision, link, paused)
            if before != await self.workers.kind(revision, hosted.source):
                await self.parents.forget(before)
        listener.join(hosted)
        self.broken.pop(name, None)
        self.door.serve(revision.function, head.paused)
        await self.parents.trim()
        return hosted

    async def announce(self, hosted: Hosted, progress: Progress) -> None:
        fed = [each.name for each in hosted.function.spec.triggers if each.kind.name in ("mqtt", "cron")]
        late = await unless_away(self.gateway.tell(hosted.for_gateway), "the gateway is told of it later")
        if late and fed:
            progress(f"{', '.join(fed)}: nothing comes yet: {late}")
        rows = await self.rows(hosted.name) if fed else {}
        for name in fed:
            if name in rows and rows[name].problem:
                progress(f"{name}: nothing comes yet: {rows[name].problem}")

    async def rows(self, name: str) -> dict[str, TriggerRows]:
        status = await self.gateway.status()
        return status.functions.get(name, {}) if status is not None else {}

    def _host(self, revisions: Revisions, head: Head, revision: Revision) -> Hosted:
        return Hosted(
            revisions,
            head,
            revision,
            workers=self.workers,
            watch=self.watch,
            take_back=self.door.take_back,
            metrics=self.metrics,
            changed=self._unsaved.set,
        )

    async def _restore(self) -> None:
        for folder in sorted(self.folders.functions.iterdir()):
            try:
                await self._restore_one(Revisions(folder))
            except RevisionError as error:
                log.warning("%s is left out: %s; %s", folder.name, error.message, error.hint)
                self.broken[folder.name] = error.message
        await asyncio.gather(*(self._embedded_again(kind) for kind in brokers.KINDS))

    async def _embedded_again(self, kind: Kind) -> None:
        hosts = self.functions.values()
        needy = [each.name for each in hosts if kind in brokers.embedded_kinds(each.function, each.environment)]
        if needy:
            try:
                await self._embedded(kind, log.info)
            except FleetError as error:  # HTTP works without it
                log.warning("%s cannot use its broker: %s", ", ".join(needy), error.message)

    async def _restore_one(self, revisions: Revisions) -> None:
        head = await asyncio.to_thread(revisions.head)
        if head is None:
            return
        revision = await asyncio.to_thread(revisions.get, head.serving.digest)
        self.functions[revision.function.name] = self._host(revisions, head, revision)
        self.door.serve(revision.function, head.paused)

    async def _warm(self) -> None:
        """A warm parent for every function, and no dependency set that none needs any more."""
        hosts = list(self.functions.values())
        if not self.broken:
            kept = [each.revisions.source(deploy.digest) for each in hosts for deploy in each.head.history]
            await self.envs.forget_others(kept)
        for hosted in hosts:
            if self.envs.is_there(hosted.source):
                self.parents.warm(await self.workers.kind(hosted.revision, hosted.source))

    async def _embedded(self, kind: Kind, progress: Progress) -> None:
        broker, name = self.broker(kind), "Kafka" if kind == "kafka" else "MQTT"
        if broker.address is None:
            progress(f"starting the embedded {name} broker (demo and development only: it keeps nothing)")
            await broker.start()

    def broker(self, kind: Kind) -> EmbeddedProcess:
        return self.kafka if kind == "kafka" else self.mqtt

    def _moved(self, kind: Kind) -> None:
        """An embedded broker died and is elsewhere now: who uses it has to be told."""
        for hosted in self.functions.values():
            if kind in brokers.embedded_kinds(hosted.function, hosted.environment):
                hosted.reconnect("its embedded broker was started again, elsewhere")
        self.gateway.tell_again()

    def _wake(self, function: str, trigger: str) -> None:
        hosted = self.functions.get(function)
        if hosted is not None:
            hosted.wake(trigger)

    async def _save_now_and_then(self) -> None:
        """Woken by what changed: looking at a thousand tallies every 5 s took 10 ms of CPU a minute."""
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(_SAVE_EVERY)
            self._unsaved.clear()
            await asyncio.to_thread(self._save)

    def _save(self) -> None:
        self._log.look()
        for hosted in list(self.functions.values()):
            hosted.tally.save()


def _delete(folder: Path, keep_state: bool) -> None:  # noqa: FBT001 - called through to_thread
    """First what makes it a function, durably: after a crash in between it is gone and not half there."""
    (folder / "head.json").unlink(missing_ok=True)
    durable.sync_folder(folder)
    shutil.rmtree(folder / "revisions" if keep_state else folder, ignore_errors=True)
