"""Until what was applied is true: a check pod that ends well, a rollout, a gateway that is ready, KEDA that watches.

By looking every third of a second: a wait is seconds long, and what is true now is all that counts. Every wait has an
end, says what it waits for while it does, and raises TargetError with the pod's own reason as soon as there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import LABEL_REVISION

from fleetfn_deploy.kubernetes import kinds, pods, refusals
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object, labels_of, name_of
from fleetfn_deploy.target import Progress

T = TypeVar("T")

_LOOK = 0.3
_TELL = 5.0
"""Seconds after which it is said again what is waited for."""
_SLOW = 3.0
"""Seconds after which it is asked what keeps a pod from starting."""
_QUOTA = 10.0
"""Seconds that a full quota has to get room: pods that end just now give theirs back."""


class Wait:
    """One time limit for everything that a deploy waits for."""

    def __init__(self, cluster: Cluster, progress: Progress, *, limit: float) -> None:
        """`limit`: seconds for each thing that is waited for."""
        self._cluster = cluster
        self._progress = progress
        self._limit = limit
        self._room = min(_QUOTA, limit / 2)
        self._slow = min(_SLOW, limit / 2)

    async def until(self, what: str, look: Callable[[], Awaitable[T | str]], type_: type[T]) -> T:
        """Until `look` gives a value instead of the words why not yet."""
        began = time.monotonic()
        told, last = began, ""
        while True:
            found = await look()
            if isinstance(found, type_):
                return found
            now, last = time.monotonic(), str(found)
            if now - began > self._limit:
                raise TargetError(
                    f"{what} after {self._limit:.0f} s: {last}", hint="`kubectl describe` shows more of it."
                )
            if now - told > _TELL:
                told = now
                self._progress(last)
            await asyncio.sleep(_LOOK)

    async def check_pod(self, name: str) -> None:
        """Until its first container has ended well. Raises with its reason and log otherwise."""

        async def look() -> Object | str:
            pod = await self._cluster.get(kinds.POD, name)
            if pod is None:
                raise TargetError(f"pod {name} was deleted before it had ended", hint="Deploy again.")
            if pods.ended_well(pod, pod["spec"]["containers"][0]["name"]):
                return pod
            found = pods.trouble(pod)
            if found is not None and found.final:
                raise TargetError(await pods.told(self._cluster, pod, found), hint=found.hint)
            return found.message if found is not None else await self._starting(name, began)

        began = time.monotonic()
        await self.until("its check had not ended", look, dict)

    async def _starting(self, pod: str, began: float) -> str:
        """With what keeps it, such as a Secret that is not there, which its status does not tell."""
        said = f"pod {pod} is starting"
        if time.monotonic() - began < self._slow:
            return said
        failing = await pods.complaints(self._cluster, kinds.POD.name, pod)
        return f"{said}: {failing[-1].get('message', '')}" if failing else said

    async def gateway(self, name: str) -> None:
        """Until its StatefulSet has its pod ready, of the version that was applied."""
        began: list[float] = []

        async def look() -> Object | str:
            found = await self._cluster.get(kinds.STATEFUL_SET, name)
            if found is None:
                raise TargetError(f"{name} was deleted while it was waited for", hint="Deploy again.")
            if _rolled(found, "updatedReplicas", found["spec"].get("replicas", 1)):
                return found
            pod = await self._cluster.get(kinds.POD, f"{name}-0")
            if pod is not None and _stuck(pod, found):
                await self._cluster.delete(kinds.POD, name_of(pod))
                return f"{name} is starting anew"
            failing = [] if pod is not None else await pods.complaints(self._cluster, found["kind"], name)
            self._no_room(str(failing[-1].get("message", "")) if failing else "", found, began)
            return await self._why_not([pod] if pod is not None else [], found, f"{name} is starting")

        await self.until(f"{name} was not ready", look, dict)

    async def rollout(self, name: str, revision: str, labels: dict[str, str]) -> None:
        """Until all pods of the Deployment that there should be are of the new revision, and the old ones are gone.

        A function that sleeps has none, and is rolled out at once. `revision`: as pods' labels say it. Pods of earlier
        ones may crash meanwhile: that may be what it is to mend.
        """
        began: list[float] = []

        async def look() -> Object | str:
            found = await self._cluster.get(kinds.DEPLOYMENT, name)
            if found is None:
                raise TargetError(f"Deployment {name} was deleted while it was waited for", hint="Deploy again.")
            if _rolled(found, "updatedReplicas", found["spec"].get("replicas", 1)):
                return found
            failing = pods.condition(found, "ReplicaFailure")
            self._no_room(str(failing.get("message", "")) if failing.get("status") == "True" else "", found, began)
            found_pods = await self._cluster.list(kinds.POD, labels=selector(labels | {LABEL_REVISION: revision}))
            return await self._why_not(found_pods, found, f"revision {revision} is starting")

        await self.until(f"revision {revision} was not ready", look, dict)

    async def scaled_object(self, name: str) -> None:
        """Until KEDA has taken it."""

        async def look() -> Object | str:
            found = await self._cluster.get(kinds.SCALED_OBJECT, name)
            if found is None:
                raise TargetError(f"ScaledObject {name} was deleted while it was waited for", hint="Deploy again.")
            is_ready = pods.condition(found, "Ready")
            if is_ready.get("status") == "True":
                return found
            said = is_ready.get("message") or "it has not looked at it yet"
            return f"KEDA does not watch ScaledObject {name}: {said}"

        await self.until("the function would not wake", look, dict)

    async def _why_not(self, found: list[Object], owner: Object, otherwise: str) -> str:
        """Of the newest pod. Raises where waiting would not help."""
        alive = [each for each in found if "deletionTimestamp" not in each["metadata"]]
        for pod in sorted(alive, key=lambda each: str(each["metadata"]["creationTimestamp"]), reverse=True):
            if (trouble := pods.trouble(pod)) is not None:
                if trouble.final:
                    raise TargetError(await pods.told(self._cluster, pod, trouble), hint=trouble.hint)
                return trouble.message
        if not alive and (events := await pods.complaints(self._cluster, owner["kind"], name_of(owner))):
            return str(events[-1].get("message", ""))
        return otherwise

    def _no_room(self, failing: str, owner: Object, began: list[float]) -> None:
        """`failing`: why the owner's pods cannot be made; ''. A quota that stays full ends the waiting."""
        words = refusals.quota_of(failing, f"a pod of {name_of(owner)}")
        if words is None:
            began.clear()
            return
        began.append(time.monotonic())
        if began[-1] - began[0] > self._room:
            raise TargetError(words[0], hint=words[1])


def _stuck(pod: Object, owner: Object) -> bool:
    """Does it fail, and is of an earlier version? A StatefulSet would wait until it is ready before it replaces it."""
    status = owner.get("status") or {}
    if status.get("observedGeneration", 0) < owner["metadata"].get("generation", 0):
        return False
    earlier = labels_of(pod).get("controller-revision-hash") != status.get("updateRevision")
    return earlier and "deletionTimestamp" not in pod["metadata"] and pods.trouble(pod) is not None


def _rolled(owner: Object, updated: str, wanted: int) -> bool:
    status = owner.get("status") or {}
    return bool(
        status.get("observedGeneration", 0) >= owner["metadata"].get("generation", 0)
        and status.get(updated, 0) >= wanted
        and status.get("replicas", 0) <= max(status.get(updated, 0), wanted)
        and status.get("readyReplicas", 0) >= wanted
    )


def selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
