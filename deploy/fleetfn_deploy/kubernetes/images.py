"""The Images port: where a deploy gets its images. `fn` builds and pushes them; tests name what is there already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fleetfn.errors import TargetError
from fleetfn_spec.environments import Environment

from fleetfn_deploy.target import Progress, Source


@dataclass(frozen=True, slots=True)
class Built:
    """An image in a registry that the cluster's nodes can pull from."""

    reference: str
    """`harbor.example/alerts/battery-alert@sha256:...`: with its digest, so that it is always the same bytes."""

    def __post_init__(self) -> None:
        if "@sha256:" not in self.reference:
            raise TargetError(f"the image {self.reference!r} is named without its digest", hint="NAME@sha256:DIGEST")


class Images(Protocol):
    """Equal sources give equal references. Blocking, on a thread; raises FleetError: why it cannot be built, pushed."""

    def image(self, source: Source, environment: Environment, progress: Progress) -> Built:
        """The function's image, built and pushed, or the one that is there already."""
        ...

    def gateway(self, environment: Environment, progress: Progress) -> Built:
        """The gateway's, of this FleetFn."""
        ...


@dataclass(slots=True)
class KnownImages:
    """Implements Images with what somebody has pushed before: by the function's name."""

    gateway_reference: str
    references: dict[str, str] = field(default_factory=dict)

    def image(self, source: Source, environment: Environment, progress: Progress) -> Built:  # noqa: ARG002 - the port's
        name = source.function.name
        progress(f"image of {name}")
        if name not in self.references:
            raise TargetError(f"no image is known for {name!r}", hint=f"Known: {', '.join(sorted(self.references))}")
        return Built(self.references[name])

    def gateway(self, environment: Environment, progress: Progress) -> Built:  # noqa: ARG002 - the port's
        return Built(self.gateway_reference)
