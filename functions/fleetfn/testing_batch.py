"""What a worker makes of a batch, for tests: which of its events are done, and what state that leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetfn.bound_batch import BoundBatch
from fleetfn.invocation import NOT_RUN, Again, Call, Done, Rejected, Result


async def run_batch(
    handler: BoundBatch, calls: Sequence[Call], returned: Callable[[], object]
) -> tuple[list[Result], list[object]]:
    """One result per call, and what the handler returned for it. `returned`: what it returned last, as a whole.

    Of a key, what is behind the first event that is not done has not run; with state, what is before it has run once
    more by itself, so that the state is of nothing else.
    """
    results = await _run(handler, calls)
    while handler.has_state and (end := _ends_at(results)):
        before = await _run(handler, calls[:end])
        results = [*before, results[end], *[NOT_RUN] * (len(calls) - end - 1)]
        if all(isinstance(each.outcome, Done) for each in before):
            break
    values = returned()
    given = iter(values if isinstance(values, list) else [None] * len(calls))
    each_returned = [next(given, None) if _was_given(result) else None for result in results]
    stopped: set[str] = set()
    for index, (call, result) in enumerate(zip(calls, results, strict=True)):
        if call.key in stopped:
            results[index] = NOT_RUN
        elif call.key is not None and not isinstance(result.outcome, Done):
            stopped.add(call.key)
    return results, each_returned


def failed_together(results: Sequence[Result]) -> bool:
    outcome = results[0].outcome
    return isinstance(outcome, Again) and outcome.apart


async def _run(handler: BoundBatch, calls: Sequence[Call]) -> list[Result]:
    return await handler.invoke_async(calls) if handler.is_async else handler.invoke(calls)


def _ends_at(results: Sequence[Result]) -> int:
    """The first event that is not done, where the handler ran with it and with others before; else 0."""
    if failed_together(results):
        return 0
    place = next((index for index, each in enumerate(results) if not isinstance(each.outcome, Done)), 0)
    return place if _was_given(results[place]) else 0


def _was_given(result: Result) -> bool:
    unreadable = isinstance(result.outcome, Rejected) and result.outcome.status == 400  # noqa: PLR2004 - bad data
    return result is not NOT_RUN and not unreadable
