"""The Kafka source of one trigger: a thread consumes, the road takes, what is settled is committed.

Everything with the client happens on the thread; the loop asks through plain attributes and an event.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Claimed
from fleetfn_triggers.kafka import Kafka, KafkaReader
from fleetfn_triggers.kafka_client import commit_start_offsets
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve

from fleetfn_runtime.kafka_consuming import Consuming, Orders
from fleetfn_runtime.kafka_holding import Bounds
from fleetfn_runtime.kafka_partitions import Partitions

T = TypeVar("T")


class Taker(Protocol):
    """The road, as a pull source sees it. Called on the loop."""

    async def claim(self, trigger: str, stream: str, partitions: dict[int, int | None]) -> Claimed: ...

    async def passed(self, trigger: str, stream: str, offsets: dict[int, int]) -> None: ...

    def take(self, deliveries: Sequence[Delivery]) -> None: ...

    def forget_lost(self) -> None: ...


class KafkaSource:
    """Used on one loop. Deliveries carry their own Source (kafka_holding.Holding): a partition while it is ours."""

    def __init__(
        self,
        trigger: str,
        spec: Kafka,
        reader: KafkaReader,
        connection: KafkaConnection,
        group: str,
        road: Taker,
        *,
        resolve: Resolve,
        partitions: Partitions,
        bounds: Bounds | None = None,
        began: bool = False,
    ) -> None:
        """`began`: the group began in this topic earlier."""
        self.trigger = trigger
        self._spec = spec
        self._connection = connection
        self._group = group
        self._resolve = resolve
        self._began = began
        self._road = road
        self._reasons: set[str] = set()
        self._found_out = False
        self._orders = Orders()
        self._loop = asyncio.get_running_loop()
        self._consuming = Consuming(
            topic=spec.topic,
            connection=connection,
            group=group,
            resolve=resolve,
            reader=reader,
            partitions=partitions,
            bounds=bounds or Bounds(),
            orders=self._orders,
            take=self._take,
            lost=self._lost,
            claim=self._claim,
            passed=self._passed,
        )
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def problem(self) -> str:
        """What keeps it from consuming now, for people; '' where nothing does."""
        return self._consuming.problem

    @property
    def looking(self) -> bool:
        """It has not known yet whether something waits, and nothing keeps it from finding out."""
        self._found_out = self._found_out or self.lag is not None
        return self._thread is not None and not (self._found_out or self.problem or self._reasons)

    @property
    def lag(self) -> int | None:
        """Offsets not yet handled of the partitions that are ours, as far as known; None: not known."""
        return self._consuming.lag

    @property
    def lagging(self) -> int:
        """Of its partitions, those where something is not yet handled and could be: none while it is paused."""
        return 0 if self._reasons else self._consuming.lagging

    @property
    def held(self) -> int:
        """Records that were handed over and are not settled."""
        return self._consuming.held

    async def connect(self) -> None:
        """Authenticate; on the first deploy commit where the group begins. Raises FleetError."""
        await commit_start_offsets(
            self._connection,
            self._spec.topic,
            self._group,
            self._spec.start,
            resolve=self._resolve,
            began=self._began,
        )

    async def start(self) -> None:
        """Begin to consume; goes on trying where the brokers are away (see `problem`)."""
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{self.trigger}", daemon=True)
        self._thread.start()

    def pause(self, why: str) -> None:
        """Take nothing until every reason is taken back. What was handed over stays where it is."""
        self._reasons.add(why)
        self._orders.paused = True

    def resume(self, why: str) -> None:
        self._reasons.discard(why)
        self._orders.paused = bool(self._reasons)
        self._orders.changed.set()

    async def drain(self) -> None:
        """Take nothing more, commit what is settled, leave. What is not settled comes again elsewhere."""
        if self._ended is None:
            return
        self._orders.ending = True
        self._orders.changed.set()
        await asyncio.shield(self._ended)

    # On the thread

    def _run(self) -> None:
        try:
            self._consuming.run()
        finally:
            self._call(self._end)

    def _take(self, deliveries: list[Delivery]) -> None:
        self._call(lambda: self._road.take(deliveries))

    def _lost(self) -> None:
        self._call(self._road.forget_lost)

    def _claim(self, stream: str, partitions: dict[int, int | None]) -> Future[Claimed]:
        return self._ask(self._road.claim(self.trigger, stream, partitions))

    def _passed(self, stream: str, offsets: dict[int, int]) -> Future[None]:
        return self._ask(self._road.passed(self.trigger, stream, offsets))

    def _ask(self, what: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(what, self._loop)
        except RuntimeError:  # the loop is closed
            what.close()
            self._orders.ending = True
            never: Future[T] = Future()
            never.cancel()
            return never

    def _call(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody takes anything more
            self._orders.ending = True

    # On the loop

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
