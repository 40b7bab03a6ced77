"""Images for a cluster: what `fn deploy` builds and pushes before anything is applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import TargetError

if TYPE_CHECKING:
    from fleetfn_builder.builder import Platform, Request
    from fleetfn_deploy.kubernetes.images import Built
    from fleetfn_deploy.target import Progress, Source
    from fleetfn_spec.environments import Environment
    from fleetfn_spec.function import Function
    from fleetfn_spec.kubernetes import KubernetesTarget

WORKER_EXTRAS = frozenset({"http"})
"""Of FleetFn: by which a worker asks its Dapr sidecar."""


@dataclass(frozen=True, slots=True)
class BuiltImages:
    """Implements deploy's Images by a builder. `platforms`: what the cluster's nodes are."""

    platforms: tuple[Platform, ...]
    wheel: Path | None = None
    """FleetFn to put in. None: the one that runs here."""

    def image(self, source: Source, environment: Environment, progress: Progress) -> Built:
        return self._build(source.folder, source.function, environment, WORKER_EXTRAS, progress)

    def gateway(self, environment: Environment, progress: Progress) -> Built:
        from fleetfn_builder import gateway_image
        from fleetfn_spec import cluster

        with gateway_image.source(cluster.GATEWAY) as (folder, function):
            return self._build(folder, function, environment, gateway_image.EXTRAS, progress)

    def _build(
        self,
        folder: Path,
        function: Function,
        environment: Environment,
        extras: frozenset[str],
        progress: Progress,
    ) -> Built:
        from fleetfn_builder.direct import DirectBuilder
        from fleetfn_deploy.kubernetes.images import Built

        place = environment.target.kubernetes
        if place is None:
            raise TargetError(f"environment {environment.name!r} is no cluster")
        made = DirectBuilder().build(self._request(folder, function, place, extras), progress)
        return Built(f"{place.registry}/{function.name}@{made.digest}")

    def _request(self, folder: Path, function: Function, place: KubernetesTarget, extras: frozenset[str]) -> Request:
        from fleetfn_builder import inputs, references
        from fleetfn_builder.builder import Access, Request, ToRegistry

        revision = inputs.read_source(folder, function, lambda _: None).revision
        tag = references.parse(f"{place.registry}/{function.name}:{revision[:_SHOWN]}")
        return Request(
            folder=folder,
            function=function,
            tags=(tag,),
            destination=ToRegistry(),
            platforms=self.platforms,
            base=place.base,
            wheel=self.wheel,
            access=Access(insecure=frozenset({tag.host} if place.insecure else ())),
            extras=extras,
        )


_SHOWN = 12
"""Digits of a revision in a tag."""
