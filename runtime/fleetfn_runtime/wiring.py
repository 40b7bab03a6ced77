"""Picks the concrete parts of a worker and joins them. A broker's client is imported only where a function uses it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Protocol

from fleetfn.errors import FleetError, StoreError
from fleetfn.store import Store
from fleetfn_plumbing import http_places
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec.control import Counters
from fleetfn_spec.durations import seconds
from fleetfn_spec.environments import StatePlace
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Inbox

from fleetfn_runtime import http_keys
from fleetfn_runtime import logs as log_lines
from fleetfn_runtime.connected import Connected
from fleetfn_runtime.deliver import DeliverServer
from fleetfn_runtime.gateway_inbox import GatewayInbox
from fleetfn_runtime.http_async import Accepting
from fleetfn_runtime.http_server import HttpSource, HttpTrigger
from fleetfn_runtime.inheritance import Inheritance
from fleetfn_runtime.load import LoadedFunction
from fleetfn_runtime.metrics import Metrics, Reading
from fleetfn_runtime.no_store import NoStore
from fleetfn_runtime.outputs import Outputs
from fleetfn_runtime.places import Places
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.push_source import PushSource
from fleetfn_runtime.road import Road
from fleetfn_runtime.settings import Settings
from fleetfn_runtime.states_walk import StoreWalk
from fleetfn_runtime.team import Team

log = logging.getLogger("fleetfn.worker")

HandBack = Callable[[int, bytes], None]

BY_HAND = "paused by hand"

LINGER = 1.0
"""Seconds that a pod takes HTTP requests on after it was told to end: callers with a connection learn by the reply."""

SETTLED = 3.0
"""Seconds that a record stays as it is before its unsent emits are nobody's: a worker beside this one clears within one
what it has sent (unsent.TIDY).
"""


class Pull(Protocol):
    """A source that the worker fetches from."""

    trigger: str

    @property
    def problem(self) -> str: ...

    @property
    def looking(self) -> bool:
        """It does not know yet whether something waits at its source."""
        ...

    @property
    def lag(self) -> int | None: ...

    @property
    def lagging(self) -> int: ...

    @property
    def held(self) -> int: ...

    async def connect(self) -> None: ...

    async def start(self) -> None: ...

    def pause(self, why: str) -> None: ...

    def resume(self, why: str) -> None: ...

    async def drain(self) -> None: ...


class Pod(Protocol):
    """What a worker does beside its road where other pods may run the same function."""

    def start(self) -> None: ...

    async def reach(self) -> None:
        """Its gateway answers. Raises FleetError."""
        ...

    async def close(self) -> None: ...


class Parts:
    """What a worker is made of, from opened to closed."""

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedFunction,
        *,
        store: Store,
        inbox: Inbox,
        outputs: Outputs,
        road: Road,
        pulls: Sequence[Pull],
        http: HttpSource | None,
        deliver: DeliverServer,
        metrics: Metrics,
        team: Team,
        connected: Connected,
    ) -> None:
        self._settings = settings
        self.loaded = loaded
        self.store = store
        self.inbox = inbox
        self.outputs = outputs
        self.road = road
        self.pulls = pulls
        self.http = http
        self.deliver = deliver
        self.metrics = metrics
        self.team = team
        self.pod: Pod | None = None
        self._connected = connected
        self.pause(settings.paused)

    @property
    def connects(self) -> bool:
        """It has connections to check: a revision does so once, and later workers of it need not (40 ms of a wake)."""
        uses = _uses_kafka(self._settings) or _uses_mqtt(self._settings) or _uses_dapr(self._settings)
        if self._settings.pod is not None:
            return uses and not self._settings.proven
        return uses and not self._connected.holds()

    async def connect(self) -> None:
        """Authenticate connections and commit start offsets. Raises FleetError."""
        await asyncio.gather(*(pull.connect() for pull in self.pulls), *_checks(self._settings))
        self._connected.keep()

    async def listen(self) -> str:
        """Serve deliveries; the path of their socket."""
        self.deliver.listen()
        return str(self.deliver.path)

    async def start(self, places: Places | None) -> None:
        """Own the function, or its slot of it: read the ledger, start pulling. `places`: None for the only worker."""
        team = self.team
        team.places = places
        team.bereaved()  # who ends from now on is not missed
        team.inheritance = inheritance = Inheritance(self._settings.data, team.slot, places)
        alone = places is None and self.pod is None
        self.road.own(inheritance.ledger, inheritance.suspects, patience=0.0 if alone else SETTLED)
        if self.pod is not None:
            self.pod.start()
        for pull in self.pulls:
            self.road.watch(pull)
            await pull.start()
        self.deliver.pushes.start()

    def inherit(self) -> None:
        """Another worker is gone: see what it had under way, and send what it saved and did not send."""
        if self.team.inheritance is None:
            return
        try:
            self.road.inherit(self.team.inheritance.look())
        except StoreError as error:
            log.error("what it had under way is not known: %s; %s", error, error.hint)  # noqa: TRY400 - no defect
        self.road.sweep(patience=SETTLED)

    def pause(self, triggers: tuple[str, ...]) -> None:
        for trigger in triggers:
            self.deliver.pushes.pause(trigger)
        for pull in self.pulls:
            if pull.trigger in triggers:
                pull.pause(BY_HAND)
        if self.http is not None:
            for trigger in self.http.triggers.keys() & set(triggers):
                self.http.pause(trigger)

    def resume(self, triggers: tuple[str, ...]) -> None:
        for trigger in triggers:
            self.deliver.pushes.resume(trigger)
        for pull in self.pulls:
            if pull.trigger in triggers:
                pull.resume(BY_HAND)
        if self.http is not None:
            for trigger in self.http.triggers.keys() & set(triggers):
                self.http.resume(trigger)

    def problems(self) -> tuple[tuple[str, str], ...]:
        pulling = tuple((pull.trigger, pull.problem) for pull in self.pulls if pull.problem)
        return (*pulling, *self.road.problems())

    def counters(self) -> Counters | None:
        """Increments since the last time; None: nothing changed."""
        return self.metrics.delta()

    async def drain(self) -> None:
        """Take nothing more; returns when what ran is settled and committed and every connection is handed back."""
        for pull in self.pulls:
            pull.pause("draining")
        self.road.stop()
        self.deliver.pushes.stop()
        http = () if self.http is None else (self.http.drain(0.0 if self.pod is None else LINGER),)
        await asyncio.gather(self.deliver.drain(), *http)
        await self.road.quiet()
        await asyncio.gather(*(pull.drain() for pull in self.pulls))

    async def close(self) -> None:
        if self.pod is not None:
            await self.pod.close()
        await self.road.close()
        await self.outputs.close()
        await self.store.close()
        await self.inbox.close()
        if self.team.inheritance is not None:
            self.team.inheritance.close()
        self.deliver.close()


async def open_parts(
    settings: Settings, loaded: LoadedFunction, *, replace: Callable[[str], None], hand_back: HandBack | None
) -> Parts:
    """Raises FleetError."""
    spec = settings.function.spec
    settings.data.mkdir(parents=True, exist_ok=True)
    if loaded.stateful is not None and settings.state is None and not settings.lasting:
        raise _nowhere(settings)
    store, readings = await _store(settings, loaded)
    loaded.walks.open(StoreWalk(store))
    certificates = None if settings.pod is None else TlsFolder(settings.pod.certificates)
    inbox = GatewayInbox(http_places.client(settings.gateway, certificates))
    outputs = Outputs(_publishers(settings))
    metrics = Metrics(
        settings.function.name,
        readings=(Reading("in_flight", "Deliveries taken and not settled.", lambda: road.in_flight), *readings),
    )
    road = Road(
        function=settings.function.name,
        revision=settings.revision,
        routes=[trigger.route for trigger in loaded.triggers],
        store=store,
        inbox=inbox,
        publisher=outputs,
        meter=metrics,
        replace=replace,
        ttl=None if spec.state.ttl is None else seconds(spec.state.ttl),
        concurrency=spec.scale.concurrency,
        breakers=settings.data / "breaker.json",
        alone=not settings.shares and settings.pod is None,
    )
    team = Team(settings.slot, spec.scale.max)
    connected = Connected(settings)

    def take_pushed(rows: Sequence[Delivery]) -> None:
        if team.bereaved():
            parts.inherit()
        road.take(rows)

    parts = Parts(
        settings,
        loaded,
        store=store,
        inbox=inbox,
        outputs=outputs,
        road=road,
        pulls=_pulls(settings, loaded, road, team, connected),
        http=_http(settings, loaded, road, inbox, hand_back),
        deliver=DeliverServer(
            settings.deliver or settings.run / f"deliver-{os.getpid()}.sock",
            loaded.triggers,
            run_once=road.run_once,
            pushes=PushSource(loaded.triggers, take_pushed if settings.shares else road.take, road.refuses),
            metrics=metrics.text,
        ),
        metrics=metrics,
        team=team,
        connected=connected,
    )
    if settings.pod is not None and certificates is not None:
        from fleetfn_runtime import pod_wiring  # noqa: PLC0415 - see the module's docstring

        parts.pod, parts.deliver.remote = pod_wiring.made(settings, settings.pod, certificates, parts, SETTLED)
    return parts


def _nowhere(settings: Settings) -> FleetError:
    name = settings.function.name
    if settings.pod is not None:
        return FleetError(
            f'{name} keeps state, and environment "{settings.environment}" does not say where',
            hint="name a component there: state: {dapr: {component: ...}}",
        )
    return FleetError(
        f"{name} keeps state, which would be gone with the container: no volume is mounted",
        hint="mount one where --volume says (/data in an image): docker run -v NAME:/data ...",
    )


async def _store(settings: Settings, loaded: LoadedFunction) -> tuple[Store, tuple[Reading, ...]]:
    """None is opened for a function that keeps nothing, and of which no earlier revision did (a millisecond and an
    fsync of a start).
    """
    if settings.state is not None:
        return await _remote_store(settings, settings.state, loaded)
    path = settings.data / "state.db"
    if loaded.stateful is None and not path.exists():
        return NoStore(), ()
    from fleetfn_runtime.sqlite_store import SqliteStore  # noqa: PLC0415 - a pod has none

    store = await SqliteStore.open(path)
    return store, (
        Reading("store_commits", "Group commits of the state file.", lambda: store.commits.commits, counts=True),
        Reading("store_writes", "Records written in them.", lambda: store.commits.items, counts=True),
    )


async def _remote_store(
    settings: Settings, state: StatePlace, loaded: LoadedFunction
) -> tuple[Store, tuple[Reading, ...]]:
    if loaded.stateful is None:
        return NoStore(), ()
    from fleetfn_runtime import dapr_wiring  # noqa: PLC0415 - see the module's docstring

    store = await dapr_wiring.store(settings, state.dapr)
    return store, (
        Reading("store_requests", "Requests to the state store.", lambda: store.documents.requests, counts=True),
    )


def _uses_kafka(settings: Settings) -> bool:
    spec = settings.function.spec
    return any(one.kafka is not None for one in spec.triggers) or any(one.kafka is not None for one in spec.outputs)


def _uses_mqtt(settings: Settings) -> bool:
    spec = settings.function.spec
    return any(one.mqtt is not None for one in spec.triggers) or any(one.mqtt is not None for one in spec.outputs)


def _uses_dapr(settings: Settings) -> bool:
    return any(one.dapr is not None for one in settings.function.spec.outputs)


def _pulls(settings: Settings, loaded: LoadedFunction, road: Road, team: Team, connected: Connected) -> Sequence[Pull]:
    if not _uses_kafka(settings):
        return ()
    from fleetfn_runtime import kafka_wiring  # noqa: PLC0415 - see the module's docstring

    return kafka_wiring.sources(settings, loaded, road, team, connected)


def _publishers(settings: Settings) -> Mapping[str, Publisher]:
    found: dict[str, Publisher] = {}
    if _uses_kafka(settings):
        from fleetfn_runtime import kafka_wiring  # noqa: PLC0415 - see the module's docstring

        found |= kafka_wiring.publishers(settings)
    if _uses_mqtt(settings):
        from fleetfn_runtime import mqtt_wiring  # noqa: PLC0415 - likewise

        found |= mqtt_wiring.publishers(settings)
    if any(output.http is not None for output in settings.function.spec.outputs):
        from fleetfn_runtime import http_output_wiring  # noqa: PLC0415 - likewise

        found |= http_output_wiring.publishers(settings)
    if _uses_dapr(settings):
        from fleetfn_runtime import dapr_wiring  # noqa: PLC0415 - likewise

        found |= dapr_wiring.publishers(settings)
    return found


def _checks(settings: Settings) -> list[Coroutine[None, None, None]]:
    found: list[Coroutine[None, None, None]] = []
    if _uses_kafka(settings):
        from fleetfn_runtime import kafka_wiring  # noqa: PLC0415 - see the module's docstring

        found += kafka_wiring.checks(settings)
    if _uses_mqtt(settings):
        from fleetfn_runtime import mqtt_wiring  # noqa: PLC0415 - likewise

        found += mqtt_wiring.checks(settings)
    if _uses_dapr(settings):
        from fleetfn_runtime import dapr_wiring  # noqa: PLC0415 - likewise

        found += dapr_wiring.checks(settings)
    return found


def _http(
    settings: Settings, loaded: LoadedFunction, road: Road, inbox: Inbox, hand_back: HandBack | None
) -> HttpSource | None:
    triggers = [
        HttpTrigger(trigger.spec.name, trigger.spec.http, trigger.reader)
        for trigger in loaded.triggers
        if trigger.spec.http is not None
    ]
    if not triggers:
        return None
    key = http_keys.read(settings.key_file) if settings.key_file is not None else None
    name = settings.function.name
    return HttpSource(name, triggers, road.take, accepting=Accepting(name, inbox), key=key, hand_back=hand_back)


def logs(settings: Settings) -> None:
    """Send logging, prints and descriptors 1 and 2 to the function's log. Raises OSError, UsageError."""
    settings.data.mkdir(parents=True, exist_ok=True)
    log_lines.setup(
        settings.data / "log.jsonl",
        function=settings.function.name,
        revision=settings.revision,
        log_key=settings.log_key,
        copy=settings.log_copy,
    )
