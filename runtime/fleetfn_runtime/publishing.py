"""Publishing what runs emitted, until their outputs have taken it. Before the run on its record, or after its save."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetfn.errors import OutputDown
from fleetfn.invocation import Emit

from fleetfn_runtime.burial import Burial
from fleetfn_runtime.ends import Ends
from fleetfn_runtime.outages import BACKOFF, Outages
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.runs import Run
from fleetfn_runtime.unsent import Unsent


class Publishing:
    def __init__(self, *, publisher: Publisher, ends: Ends, unsent: Unsent, burial: Burial, outages: Outages) -> None:
        self._publisher = publisher
        self._ends = ends
        self._unsent = unsent
        self._burial = burial
        self._outages = outages

    async def publish(self, runs: list[Run], then: Callable[[list[Run]], None]) -> None:
        """Publish what runs owe; `then` gets those that owe nothing more, as soon as they do."""
        delay, longest = BACKOFF
        while runs := [run for run in runs if self._ends.still_ours(run)]:
            emits = tuple(emit for run in runs for emit in run.owed)
            errors = await self._publisher.publish(emits)
            if not any(errors):
                self._unsent.emitted(emits)
                then(runs)
                return
            through: list[Run] = []
            stuck: list[Run] = []
            start = 0
            for run in runs:
                end = start + len(run.owed)
                run.owed = await self._still_owed(run, errors[start:end])
                (stuck if run.owed else through).append(run)
                start = end
            if through:
                then(through)
            runs = self._ends.staying(stuck, "an output is down")
            if runs:
                await self._outages.rest(delay)
                delay = min(delay * 2, longest)

    async def _still_owed(self, run: Run, errors: Sequence[Exception | None]) -> tuple[Emit, ...]:
        """All from the first on that found its output down, so that order is kept."""
        for place, (emit, error) in enumerate(zip(run.owed, errors, strict=True)):
            if isinstance(error, OutputDown):
                self._outages.begin(f"output {emit.output}", error)
                if run.waits and run.route.stateful:
                    self._unsent.sweep()  # its caller will not wait, and nobody else may come
                return run.owed[place:]
            if error is not None:
                if not await self._burial.emit(run.delivery.trigger, emit, error):
                    return run.owed[place:]
            else:
                self._unsent.emitted((emit,))
        return ()
