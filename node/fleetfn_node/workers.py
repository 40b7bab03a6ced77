"""Starting a worker of a revision: its settings, its warm parent, its channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fleetfn_runtime import channel_io
from fleetfn_runtime.settings import Settings

from fleetfn_node import brokers
from fleetfn_node.brokers import Embedded
from fleetfn_node.folders import Folders
from fleetfn_node.links import Listener, WorkerLink
from fleetfn_node.parents import Kind, Parents
from fleetfn_node.revisions import SHOWN, Deploy, Revision


@dataclass(frozen=True, slots=True)
class Workers:
    folders: Folders
    parents: Parents
    place: str
    """The node's id."""
    log_key: bytes
    embedded: Callable[[], Embedded]
    """The embedded brokers' addresses."""
    python: Callable[[Path], Awaitable[Path]]
    """The interpreter of a source's dependency set, made where it is missing. Raises FleetError."""
    key_file: Path | None = None

    async def kind(self, revision: Revision, source: Path) -> Kind:
        python = await self.python(source)
        spec = revision.function.spec
        if spec.scale.warm == "imports":
            return Kind(python, source, spec.handler.partition(":")[0])
        return Kind(python)

    def settings(
        self,
        revision: Revision,
        deploy: Deploy,
        source: Path,
        paused: list[str],
        *,
        slot: int = 0,
        proven: bool = False,
    ) -> Settings:
        function = revision.function
        return Settings(
            function=function,
            revision=revision.digest[:SHOWN],
            source=source,
            environment=deploy.environment.name,
            place=self.place,
            data=self.folders.function(function.name),
            run=self.folders.run,
            kafka=brokers.kafkas(function, deploy.environment, self.embedded()),
            mqtt=brokers.mqtts(function, deploy.environment, self.embedded()),
            dapr=brokers.daprs(deploy.environment),
            gateway=str(self.folders.gateway_socket),
            key_file=self.key_file,
            paused=tuple(paused),
            slot=slot,
            proven=proven,
            log_key=self.log_key,
        )

    async def start(
        self,
        revision: Revision,
        deploy: Deploy,
        source: Path,
        paused: list[str],
        listener: Listener,
        *,
        slot: int = 0,
        proven: bool = False,
    ) -> WorkerLink:
        """A worker on its way to be ready; `proven`: one of this revision was. Raises FleetError or OSError when the
        process cannot be started.
        """
        settings = self.settings(revision, deploy, source, paused, slot=slot, proven=proven)
        process, sock = await self.parents.spawn(await self.kind(revision, source), settings)
        end = channel_io.node_end(sock)
        return WorkerLink(revision.function.name, revision.digest[:SHOWN], process, end, listener, slot=slot)
