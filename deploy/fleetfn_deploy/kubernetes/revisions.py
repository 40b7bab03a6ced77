"""What serves and what served: a function's head, and the ConfigMaps of the revisions that are kept."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import msgspec
from fleetfn.errors import TargetError
from fleetfn_spec.cluster import (
    ENVIRONMENTS_FILE,
    HEAD_FILE,
    LABEL_FUNCTION,
    LABEL_MANAGED_BY,
    LABEL_PART,
    MANAGER,
    Head,
)
from fleetfn_spec.control import RevisionInfo
from fleetfn_spec.environments import Environment, Environments
from fleetfn_spec.function import Function

from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import CONFIG_MAP, Object, name_of
from fleetfn_deploy.kubernetes.values import Deployable
from fleetfn_deploy.kubernetes.waiting import selector

KEPT = 10
"""Revisions to go back to, the serving one included."""

NUMBER = "fleetfn.dev/number"
CREATED = "fleetfn.dev/created"
"""Annotations of a revision, which may serve more than once: as it did last."""


@dataclass(frozen=True, slots=True)
class Revision:
    """All that it takes to make it serve again."""

    digest: str
    number: int
    created: float
    """Unix seconds."""
    function: Function
    environment: Environment
    image: str
    config_map: str
    served: bool
    """False: a deploy of it broke off, or something else than `fn` applied it."""

    def deployable(self, namespace: str, *, apart: tuple[str, ...] = ()) -> Deployable:
        """As it was, nothing paused. `apart`: see Deployable."""
        return Deployable(
            function=self.function,
            environment=self.environment,
            namespace=namespace,
            image=self.image,
            revision=self.digest,
            number=self.number,
            created=self.created,
            apart=apart,
        )


@dataclass(frozen=True, slots=True)
class History:
    """Of one function."""

    head: Head
    kept: list[Revision]
    """Newest first."""

    @property
    def serving(self) -> Revision | None:
        """None: somebody removed its ConfigMap."""
        return next((each for each in self.kept if each.digest == self.head.revision), None)

    def now(self, namespace: str, *, paused: tuple[str, ...] | None = None, apart: tuple[str, ...] = ()) -> Deployable:
        """What serves, as it does; `paused` instead of what is paused. Raises TargetError."""
        if self.serving is None:
            raise TargetError(
                f"revision {self.head.revision[:12]} of {self.head.function.name!r} serves, and is not kept",
                hint="Somebody removed its ConfigMap: deploy the folder again.",
            )
        head = self.head
        found = self.serving.deployable(namespace, apart=apart)
        return replace(
            found, number=head.number, created=head.created, paused=head.paused if paused is None else paused
        )

    def find(self, digest: str) -> Revision:
        """By its first digits. Raises TargetError."""
        found = [each for each in self.kept if each.digest.startswith(digest)]
        if len(found) == 1:
            return found[0]
        problem = "several revisions that start with" if found else "no revision"
        shown = ", ".join(f"{each.number} {each.digest[:12]}" for each in self.kept)
        raise TargetError(f"{self.head.function.name!r} has {problem} {digest!r}", hint=f"It has: {shown}.")

    @property
    def keeper(self) -> Revision | None:
        """The newest that kept state, which may serve no more: it can be asked to remove that. None: none did."""
        found = [each for each in [self.serving, *self.kept] if each is not None]
        return next((each for each in found if each.environment.state is not None), None)

    def before(self) -> Revision:
        """The one that served before the one that serves. Raises TargetError."""
        found = next((each for each in self.kept if each.digest != self.head.revision), None)
        if found is None:
            raise TargetError(f"{self.head.function.name!r} has no earlier revision", hint="Deploy the folder.")
        return found

    def number_of(self, digest: str) -> int:
        """Of a deploy of that digest: its own while it serves, a new one otherwise."""
        if digest == self.head.revision:
            return self.head.number
        return max([self.head.number, *(each.number for each in self.kept if each.served)]) + 1

    def infos(self) -> list[RevisionInfo]:
        """Newest first."""
        name = self.head.function.name
        return [
            RevisionInfo(
                name=name,
                digest=each.digest,
                number=each.number,
                created=each.created,
                serving=each.digest == self.head.revision,
                environment=each.environment.name,
            )
            for each in self.kept
        ]


async def heads(cluster: Cluster) -> list[Head]:
    """Of all functions, by name."""
    labels = {LABEL_MANAGED_BY: MANAGER, LABEL_PART: "head"}
    found = [_head(each) for each in await cluster.list(CONFIG_MAP, labels=selector(labels))]
    return sorted(found, key=lambda head: head.function.name)


async def find_head(cluster: Cluster, name: str) -> Head | None:
    found = await cluster.get(CONFIG_MAP, name)
    if found is None or found["metadata"].get("labels", {}).get(LABEL_PART) != "head":
        return None
    return _head(found)


async def history(cluster: Cluster, name: str) -> History | None:
    """None: there is no such function."""
    head = await find_head(cluster, name)
    return None if head is None else History(head, await kept(cluster, name))


async def known(cluster: Cluster, name: str) -> History:
    """Raises TargetError where there is no such function."""
    found = await history(cluster, name)
    if found is None:
        raise unknown(cluster, name)
    return found


def unknown(cluster: Cluster, name: str) -> TargetError:
    return TargetError(f"no function {name!r} in namespace {cluster.namespace!r} of {cluster}", hint="Deploy it first.")


async def kept(cluster: Cluster, name: str) -> list[Revision]:
    """Newest first. Those that this version cannot read are left out: it cannot make them serve either."""
    labels = {LABEL_MANAGED_BY: MANAGER, LABEL_FUNCTION: name, LABEL_PART: "revision"}
    found = []
    for each in await cluster.list(CONFIG_MAP, labels=selector(labels)):
        try:
            found.append(_revision(each))
        except (msgspec.DecodeError, KeyError, IndexError, ValueError):
            continue
    return sorted(found, key=lambda revision: revision.number, reverse=True)


async def prune(cluster: Cluster, name: str) -> int:
    """Remove all but the newest; how many went."""
    old = (await kept(cluster, name))[KEPT:]
    for each in old:
        await cluster.delete(CONFIG_MAP, each.config_map)
    return len(old)


def _head(config_map: Object) -> Head:
    try:
        head = msgspec.json.decode(config_map["data"][HEAD_FILE], type=Head)
        return msgspec.structs.replace(head, created=head.created or _applied(config_map))
    except (msgspec.DecodeError, KeyError) as error:
        raise TargetError(
            f"ConfigMap {name_of(config_map)} does not say what serves: {error}",
            hint="It was changed by hand, or by another version of FleetFn: deploy the function again.",
        ) from error


def _revision(config_map: Object) -> Revision:
    head = msgspec.json.decode(config_map["data"][HEAD_FILE], type=Head)
    environments = msgspec.json.decode(config_map["data"][ENVIRONMENTS_FILE], type=Environments)
    notes = config_map["metadata"].get("annotations") or {}
    return Revision(
        digest=head.revision,
        number=int(notes.get(NUMBER, head.number)),
        created=float(notes.get(CREATED, head.created)) or _applied(config_map),
        function=head.function,
        environment=environments.environments[0],
        image=head.image,
        config_map=name_of(config_map),
        served=NUMBER in notes,
    )


def _applied(config_map: Object) -> float:
    """Unix seconds, as the cluster notes them: an export says nothing of the time."""
    meta = config_map["metadata"]
    times = [each["time"] for each in meta.get("managedFields") or [] if each.get("time")]
    return dt.datetime.fromisoformat(max(times, default=meta["creationTimestamp"])).timestamp()
