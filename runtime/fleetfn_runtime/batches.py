"""What comes back of a batch, made such that its events end as if each had been alone.

- It failed as a whole: each of its events runs again alone, so that only who is guilty uses up attempts.
- Some event of a key with state is not done: the state that the handler left holds what came after, too. So all of it
  is thrown away, and the events before that one run again, alone, on the stored state. They are then saved and settled,
  and the one that was not done ends as its outcome says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fleetfn.invocation import Again, Done, Outcome, Rejected

from fleetfn_runtime.ends import Ends
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.runs import Run

log = logging.getLogger("fleetfn.road")


class Batches:
    """`outcome` of a run that has a result. `again` runs one anew, `returned` gets what is to be dealt with as ever."""

    def __init__(
        self,
        *,
        outcome: Callable[[Run], Outcome],
        ends: Ends,
        meter: Meter,
        again: Callable[[Run], None],
        returned: Callable[[list[Run]], None],
    ) -> None:
        self._outcome = outcome
        self._ends = ends
        self._meter = meter
        self._again = again
        self._go_on = returned

    def returned(self, runs: list[Run]) -> None:
        """Of a batch, its first run."""
        as_ever: list[Run] = []
        for run in runs:
            if run.route.batch is None:
                as_ever.append(run)
                continue
            self._count(run)
            party, run.party = run.party, ()  # it is in there itself, and would stay until garbage is collected
            outcome = run.result.outcome if run.result is not None else None
            if isinstance(outcome, Again) and outcome.apart:
                self._part(run, party, outcome)
                continue
            as_ever.extend(each for each in party if not (each.more and each.route.stateful and self._shrinks(each)))
        if as_ever:
            self._go_on(as_ever)

    def _count(self, run: Run) -> None:
        outcome = run.result.outcome if run.result is not None else None
        alone = len(run.party) == 1 and not run.more
        if isinstance(outcome, Again) and (alone or outcome.apart):
            self._meter.batch(run.delivery.trigger, "retry")
        elif isinstance(outcome, Rejected) and alone:
            self._meter.batch(run.delivery.trigger, "reject")
        else:
            self._meter.batch(run.delivery.trigger, "done")

    def _part(self, run: Run, party: Sequence[Run], outcome: Again) -> None:
        self._ends.note_batch(run, outcome, sum(len(each.links()) for each in party))
        for each in party:
            self._ends.apart(each)

    def _shrinks(self, run: Run) -> bool:
        """Whether it runs again, without the first event that is not done and what is behind it."""
        if type(self._outcome(run)) is not Done:
            return False
        for place, link in enumerate(run.more):
            if link.result is None:
                return False  # the handler was given no more than those before
            if type(self._outcome(link)) is not Done:
                self._ends.put_back(run, place, keep=link)
                run.reset()
                run.broke = link
                self._again(run)
                return True
        return False
