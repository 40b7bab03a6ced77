"""The owner of a cluster's functions: pods that are ready, or that KEDA is made to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.owner import NoWorkerError

LIMIT = 10.0
"""Seconds that one question waits for a pod; then the reason is told, and it is asked again."""


class ClusterOwner:
    """See Owner."""

    def __init__(self, pods: Pods, demand: Demand, away: Callable[[], str], limit: float = LIMIT) -> None:
        """`away`: why pods are not seen now; '' where they are."""
        self._pods = pods
        self._demand = demand
        self._away = away
        self._limit = limit

    async def wake(self, function: str, waiting: int) -> Sequence[str]:  # noqa: ARG002 - the load is asked for itself
        with self._demand.waiting(function):
            ready = await self._pods.first(function, self._limit)
        if not ready:
            raise NoWorkerError(f"no pod of {function!r} is ready: {self.why(function)}", after=0.0)
        return [each.place for each in ready]

    async def close(self) -> None: ...

    def why(self, function: str) -> str:
        """Why it has no pod that is ready, for people."""
        if away := self._away():
            return away
        if self._demand.starting(function) and not self._demand.listeners(function):
            return "KEDA does not listen for it: is its ScaledObject there and ready, and does KEDA reach the gateway?"
        return self._pods.why(function)
