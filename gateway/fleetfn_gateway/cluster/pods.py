"""The pods of this namespace's functions: which take work now, and why others do not.

The kubelet looks once a second where a pod is and whether it is ready, and so tells late; what a pod says itself is
known sooner, and decides: `here` as it begins to take work, activity.py later. One that is being deleted takes nothing
more, though it still ends what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleetfn_spec.cluster import DELIVERY_PORT, LABEL_FUNCTION, LABEL_REVISION, Figures, Here

from fleetfn_gateway.cluster.kube_objects import Container, Pod

log = logging.getLogger("fleetfn.gateway")

LOST = 5
"""Questions in a row that a pod which had answered leaves open: its machine may be gone, which the kubelet cannot tell.
"""


@dataclass(slots=True, eq=False)
class Seen:
    """One pod. `told`: what it said last of being ready; None: nothing yet."""

    name: str
    function: str
    revision: str
    address: str
    reported: bool
    """The kubelet says that it is ready."""
    ending: bool
    trouble: str
    """Why it does not come up, in Kubernetes' words; '' where nothing is said."""
    told: bool | None = None
    missed: int = 0
    """Questions in a row without an answer."""
    in_flight: int = 0
    """HTTP requests."""
    idle: float | None = None
    """Seconds since its last one, when it told that; None: there was none."""
    figures: Figures | None = None
    """As it said last."""

    @property
    def ready(self) -> bool:
        if self.ending or not self.address:
            return False
        if self.told is None:
            return self.reported
        return self.told and (not self.missed or (self.reported and self.missed < LOST))

    @property
    def place(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{DELIVERY_PORT}"


class Pods:
    """Use on one loop. `changed`: told of a function whose ready pods are others now."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._pods: dict[str, Seen] = {}
        self._ready: dict[str, tuple[Seen, ...]] = {}
        self._news: dict[str, asyncio.Event] = {}

    def all(self) -> Sequence[Seen]:
        """Those that are not over."""
        return list(self._pods.values())

    def of(self, function: str) -> list[Seen]:
        return [each for each in self._pods.values() if each.function == function]

    def ready(self, function: str) -> tuple[Seen, ...]:
        """Sorted by name."""
        return self._ready.get(function, ())

    async def first(self, function: str, limit: float) -> tuple[Seen, ...]:
        """Those that are ready, waited for; none: there was none within `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                while not (ready := self.ready(function)):
                    await self._news.setdefault(function, asyncio.Event()).wait()
                return ready
        except TimeoutError:
            return ()

    def why(self, function: str) -> str:
        """Why none is ready, for people."""
        pods = [each for each in self.of(function) if not each.ending]
        if not pods:
            return "it has no pod"
        troubles = [f"pod {each.name}: {each.trouble}" for each in pods if each.trouble]
        return "; ".join(troubles[:3]) or f"pod {pods[0].name} is not ready yet"

    # What the API server tells.

    async def replace(self, pods: list[Pod]) -> None:
        gone = self._pods.keys() - {each.metadata.name for each in pods}
        for name in gone:
            self._forget(name)
        for each in pods:
            self._see(each)

    async def change(self, pod: Pod, deleted: bool) -> None:  # noqa: FBT001 - as Watching calls it
        if deleted:
            self._forget(pod.metadata.name)
        else:
            self._see(pod)

    def _see(self, pod: Pod) -> None:
        name, labels = pod.metadata.name, pod.metadata.labels
        function = labels.get(LABEL_FUNCTION, "")
        if not function or pod.status.phase in ("Succeeded", "Failed"):
            self._forget(name)
            return
        seen = self._pods.get(name)
        if seen is None or seen.address != (pod.status.pod_ip or seen.address):
            seen = Seen(name, function, labels.get(LABEL_REVISION, ""), pod.status.pod_ip, False, False, "")
            self._pods[name] = seen
        ready = pod.condition("Ready")
        seen.reported = ready is not None and ready.status == "True"
        seen.ending = pod.metadata.deletion_timestamp is not None
        seen.trouble = "" if seen.reported else _trouble(pod)
        self.update(function)

    def _forget(self, name: str) -> None:
        seen = self._pods.pop(name, None)
        if seen is not None:
            self.update(seen.function)

    # What pods tell.

    def here(self, function: str, said: Here) -> None:
        """It takes work, and the API server may not tell yet where it is."""
        seen = self._pods.get(said.pod)
        if seen is None or seen.function != function or seen.address not in ("", said.address):
            return
        seen.address, seen.told, seen.missed = said.address, True, 0
        self.update(function)

    def update(self, function: str) -> None:
        """Something of its pods is new."""
        now = tuple(sorted((each for each in self.of(function) if each.ready), key=lambda each: each.name))
        if now == self._ready.get(function, ()):
            return
        log.info("%s: %d pods ready: %s", function, len(now), ", ".join(each.name for each in now) or "none")
        if now:
            self._ready[function] = now
            self._news.pop(function, asyncio.Event()).set()
        else:
            self._ready.pop(function, None)
        self._changed(function)


def _trouble(pod: Pod) -> str:
    status = pod.status
    for each in (*status.init_container_statuses, *status.container_statuses):
        if trouble := _of_container(each):
            return trouble
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return f"{scheduled.reason}: {scheduled.message}"
    return f"{status.reason}: {status.message}" if status.reason else ""


def _of_container(container: Container) -> str:
    waiting, ended = container.state.waiting, container.state.terminated or container.last_state.terminated
    if waiting is not None and waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
        return ": ".join(each for each in (waiting.reason, waiting.message) if each)
    if ended is not None and ended.exit_code:
        return f"container {container.name} ended with exit code {ended.exit_code} ({ended.reason or 'Error'})"
    return ""
