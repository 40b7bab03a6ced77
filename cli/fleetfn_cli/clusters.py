"""The cluster that an environment names, for commands: asked as a platform, deployed to as a target."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fleetfn.errors import TargetError

if TYPE_CHECKING:
    from fleetfn_deploy.kubernetes.target import KubernetesTarget
    from fleetfn_deploy.platform import Platform
    from fleetfn_spec.environments import Environment
    from fleetfn_spec.kubernetes import KubernetesTarget as Place

    from fleetfn_cli.cluster_images import BuiltImages

T = TypeVar("T")


def platform(environment: Environment) -> Platform:
    """What `fn` asks about functions there. Raises TargetError."""
    from fleetfn_deploy.kubernetes import access
    from fleetfn_deploy.kubernetes.platform import NamespacePlatform

    place = _place(environment)
    return NamespacePlatform(access.find(place.context), place.namespace, _images())


def run(
    environment: Environment,
    work: Callable[[KubernetesTarget], Awaitable[T]],
    *,
    asks: bool = True,
    force: bool = False,
    wheel: Path | None = None,
) -> T:
    """One piece of work on the target. `asks`: the cluster has to be known here; `force`: take over fields that others
    manage; `wheel`: FleetFn for the images that it builds, None: the one that runs here. Raises FleetError.
    """
    from fleetfn_deploy.kubernetes import access
    from fleetfn_deploy.kubernetes.cluster import Cluster
    from fleetfn_deploy.kubernetes.target import KubernetesTarget

    place = _place(environment)

    async def all_of_it() -> T:
        async with Cluster(access.find(place.context) if asks else access.NOWHERE, place.namespace) as cluster:
            return await work(KubernetesTarget(cluster, _images(wheel), force=force))

    return asyncio.run(all_of_it())


def _place(environment: Environment) -> Place:
    place = environment.target.kubernetes
    if place is None:
        raise TargetError(
            f"environment {environment.name!r} is no cluster", hint="Name one whose target is kubernetes: -E NAME"
        )
    return place


def _images(wheel: Path | None = None) -> BuiltImages:
    from fleetfn_cli import build_options
    from fleetfn_cli.cluster_images import BuiltImages

    return BuiltImages(build_options.platforms(None), wheel)
