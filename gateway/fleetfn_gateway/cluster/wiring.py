"""The parts of a namespace's gateway, and who tells whom. Here alone they are chosen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from fleetfn.errors import StoreError
from fleetfn_plumbing import http_places
from fleetfn_plumbing.http_client import HttpClient
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec import cluster
from fleetfn_spec.cluster import LABEL_PART, Figures

from fleetfn_gateway import feeds
from fleetfn_gateway.cluster.activator import Activator
from fleetfn_gateway.cluster.activity import Asking
from fleetfn_gateway.cluster.control import Control
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.functions import Functions
from fleetfn_gateway.cluster.health import Health
from fleetfn_gateway.cluster.inbox import WorkersInbox
from fleetfn_gateway.cluster.kube import Kube
from fleetfn_gateway.cluster.kube_access import Access
from fleetfn_gateway.cluster.kube_objects import CONFIG_MAPS, PODS, ConfigMap, Pod
from fleetfn_gateway.cluster.owner import ClusterOwner
from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.cluster.ports import Ports
from fleetfn_gateway.cluster.refreshing import Refreshing
from fleetfn_gateway.cluster.scaler import Scaler
from fleetfn_gateway.cluster.secret_files import SecretFiles
from fleetfn_gateway.cluster.send_calls import SendCalls
from fleetfn_gateway.cluster.sending_kafka import KafkaSends
from fleetfn_gateway.cluster.slices import Slices
from fleetfn_gateway.cluster.tallies import Tallies
from fleetfn_gateway.cluster.tcp_serving import TcpServing
from fleetfn_gateway.cluster.watching import Watching
from fleetfn_gateway.dispatch import Load
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.serving import TlsServing

log = logging.getLogger("fleetfn.gateway")

EARLY = 2.0
"""Seconds before a clock's instant at which a pod is started for it: one takes a second or so."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`data`, `secrets`, `tls`: folders. `address`: this pod's own; None: as the API server is reached from. `host`:
    where it listens; "" for all addresses.
    """

    namespace: str
    data: Path
    quota: int
    retention: float
    access: Access
    tls: Path = Path(cluster.TLS_FOLDER)
    secrets: Path = Path(cluster.SECRETS_FOLDER)
    address: str | None = None
    host: str = ""
    inbox_port: int = cluster.INBOX_PORT
    scaler_port: int = cluster.SCALER_PORT
    control_port: int = cluster.CONTROL_PORT
    health_port: int = cluster.HEALTH_PORT
    activator_ports: tuple[int, int] = cluster.ACTIVATOR_PORTS


class Namespace:
    """Use on one loop, from `open` to `close`."""

    def __init__(self, options: Options, queue: Queue) -> None:
        certificates = TlsFolder(options.tls)
        client_of = partial(_client, certificates)
        self.kube = Kube(options.access, options.namespace)
        self.pods = Pods(self._pods_changed)
        self.demand = Demand(self.pods, self._load)
        self.owner = ClusterOwner(self.pods, self.demand, lambda: self._pod_watch.problem)
        self.gateway = Gateway(
            queue,
            self.owner,
            data=options.data,
            retention=options.retention,
            factories=feeds.factories(EARLY),
            client_of=client_of,
        )
        self.tallies = Tallies(queue, self.pods)
        self.refreshing = Refreshing(queue, self.pods, self.demand, lambda: self.gateway.functions, self.owner.why)
        self._asking = Asking(self.pods, client_of, self._paused, self._count)
        self._secrets = SecretFiles(self.kube, options.secrets)
        self.functions = Functions(
            self.gateway, self._secrets, options.namespace, self._functions_changed, self._dropped
        )
        self._head_watch = Watching(
            self.kube,
            CONFIG_MAPS,
            ConfigMap,
            f"{LABEL_PART}=head",
            replace=self.functions.replace,
            change=self.functions.change,
        )
        self._pod_watch = Watching(
            self.kube, PODS, Pod, f"{LABEL_PART}=worker", replace=self._pods_replaced, change=self._pod_changed
        )
        self.activator = Activator(
            lambda: self.gateway.functions,
            self.pods,
            self.demand,
            Ports(queue, *options.activator_ports),
            self.owner.why,
            host=options.host,
        )
        self._slices = Slices(
            self.kube,
            self.pods,
            address=options.address or _own_address(options.access.url),
            port=self._held_at,
            uid=self.functions.uid,
        )
        self.scaler = Scaler(self.demand, certificates)
        self._health_app = Health(self.gateway, self.pods, self.demand, self.activator, self.waits_for)
        control = Control(
            self.gateway,
            self.pods,
            self.demand,
            client_of=client_of,
            problems=self.problems,
            sums=lambda: self.tallies.all(self.gateway.functions),
            metrics=self._health_app.metrics,
            why=self.owner.why,
            sends=SendCalls(
                self.activator.port, options.host, KafkaSends(self.pods, self.demand, client_of, self.owner.why)
            ),
        )
        self.inbox = TlsServing(
            options.inbox_port,
            certificates,
            WorkersInbox(self.gateway, self.tallies, self._pod_here),
            host=options.host,
        )
        self.control = TcpServing("127.0.0.1", options.control_port, control)
        self.health = TcpServing(options.host, options.health_port, self._health_app)
        self._options = options
        self._opened: list[TlsServing | TcpServing] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def open(self) -> None:
        """Serves with what it remembers, also while the API server is away. Raises FleetError."""
        await self.gateway.open()
        await self.activator.change()
        await self.scaler.open(self._options.host or "::", self._options.scaler_port)
        for each in (self.inbox, self.control, self.health):
            each.open()
            self._opened.append(each)
        works = (
            self._head_watch.run(),
            self._pod_watch.run(),
            self._secrets.run(),
            self._slices.refresh(),
            self._lead_services(),
            self.tallies.run(),
            self._refresh(),
        )
        self._tasks = [asyncio.create_task(each) for each in works]

    async def close(self) -> None:
        """Workers that drain are heard until the gateway itself has ended."""
        self._ending = True
        await self.activator.close()
        await self.scaler.close()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._slices.close()
        await self._asking.close()
        await self.tallies.save()
        await self.gateway.close()
        for served in self._opened:
            await served.close()
        await self.kube.close()

    def waits_for(self) -> str:
        """What it needs to be ready, for people; '' where it has all."""
        if self._ending:
            return "it ends"
        for each in (self._head_watch, self._pod_watch):
            if not each.synced.is_set():
                return each.problem or "the API server is asked"
        return ""

    def problems(self) -> dict[str, str]:
        """By function; "" is the gateway itself."""
        own = [each.problem for each in (self._head_watch, self._pod_watch) if each.problem]
        found = {**self._slices.problems, **self.functions.problems}
        return {**found, "": "; ".join(own)} if own else found

    # Who tells whom.

    def _load(self, name: str) -> Load:
        return self.gateway.load(name)

    def _paused(self, name: str) -> tuple[str, ...] | None:
        function = self.gateway.functions.get(name)
        return None if function is None else function.paused

    def _count(self, pod: Seen, figures: Figures) -> None:
        alone = not any(each.ready for each in self.pods.of(pod.function) if each is not pod)
        with contextlib.suppress(StoreError):  # it tells them again
            self.tallies.told(pod.function, figures, woken=alone)

    async def _functions_changed(self) -> None:
        self._asking.hurry()
        await self.activator.change()
        for name in {*self.gateway.functions, *self._slices.known}:
            self._slices.mend(name)

    async def _dropped(self, function: str) -> None:
        await self.tallies.forget(function)
        await self.refreshing.forget(function)

    def _pods_changed(self, function: str) -> None:
        self.refreshing.changed(function)
        self._slices.mend(function)

    def _held_at(self, function: str) -> int | None:
        return self.activator.port(function) if self.functions.led_here(function) else None

    def _pod_here(self, function: str, said: cluster.Here) -> None:
        self.pods.here(function, said)
        self._asking.follow()

    async def _pods_replaced(self, pods: list[Pod]) -> None:
        await self.pods.replace(pods)
        self._asking.follow()

    async def _pod_changed(self, pod: Pod, deleted: bool) -> None:  # noqa: FBT001 - as Watching calls it
        await self.pods.change(pod, deleted)
        self._asking.follow()

    async def _refresh(self) -> None:
        """Once it is known who is awake."""
        await self._head_watch.synced.wait()
        await self._pod_watch.synced.wait()
        await self.refreshing.run()

    async def _lead_services(self) -> None:
        """Once both are known: a function whose pods are not seen yet would be led away from them."""
        await self._head_watch.synced.wait()
        await self._pod_watch.synced.wait()
        self._slices.open()
        await self._functions_changed()


def _client(certificates: TlsFolder, function: str, place: str) -> HttpClient:
    return http_places.client(place, certificates, name=function)


def _own_address(url: str) -> str:
    """As the API server sees us; nothing is sent."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        found: str = sock.getsockname()[0]
        return found
