"""A function's status as a screen: phase and why, revision, triggers, workers, counters, errors, next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fleetfn_spec.control import Counters, FunctionStatus, TriggerStatus, WorkerInfo

from fleetfn_cli import times
from fleetfn_cli.screen import counted, rows

Paint = Callable[[str, str], str]

_COLOUR = {
    "running": "green",
    "waking": "cyan",
    "draining": "cyan",
    "sleeping": "blue",
    "paused": "yellow",
    "backing-off": "red",
    "failed": "red",
}

SHOWN = 12
"""Hex digits of a digest that people see."""


def table(functions: Sequence[FunctionStatus], now: float, paint: Paint) -> str:
    return rows(
        ["NAME", "PHASE", "REVISION", "WORKERS", "DONE", "WAITING", "DEAD", "DEPLOYED", "TRIGGERS"],
        (
            [
                each.name,
                paint(each.phase, _COLOUR[each.phase]),
                f"{each.revision.number} {each.revision.digest[:SHOWN]}",
                str(len(each.workers)),
                str(each.counters.done) if each.counters is not None else "-",
                str(sum(trigger.waiting for trigger in each.triggers)),
                str(each.dead_letters),
                times.ago(each.revision.created, now),
                ", ".join(f"{trigger.name} ({trigger.kind})" for trigger in each.triggers),
            ]
            for each in functions
        ),
    )


def page(status: FunctionStatus, now: float, paint: Paint, *, option: str = "") -> str:
    return "\n".join(_page(status, now, paint, option))


def _page(status: FunctionStatus, now: float, paint: Paint, option: str) -> Iterator[str]:
    revision = status.revision
    yield f"{paint(status.name, 'bold')}  {paint(status.phase, _COLOUR[status.phase])}: {status.reason}"
    yield (
        f"revision {revision.number} {revision.digest[:SHOWN]}, deployed {times.ago(revision.created, now)}, "
        f"environment {revision.environment}"
    )
    yield ""
    yield paint("Triggers", "bold")
    yield rows(["", "", ""], ([each.name, each.where, _state_of(each, now)] for each in status.triggers), indent="  ")
    for each in status.triggers:
        if each.problem:
            yield f"  {paint('!', 'red')} {each.name}: {each.problem}"
    yield from (f"  {paint('!', 'red')} {each}" for each in status.problems)
    yield ""
    yield paint("Workers", "bold")
    yield _workers(status, now)
    if status.counters is not None:
        yield ""
        yield paint("Since its first deploy", "bold")
        yield "  " + _counters(status.counters, status.dead_letters)
    if status.last_activation is not None:
        took = f", ready after {times.duration(status.cold_start)}" if status.cold_start is not None else ""
        yield f"  last woken {times.ago(status.last_activation, now)}{took}"
    if status.last_error:
        yield ""
        yield f"{paint('Last error', 'bold')} {times.ago(status.last_error_time, now)}"
        yield _indented(status.last_error)
    step = next_step(status, option)
    if step:
        yield ""
        yield f"{paint('Next', 'bold')}  {step}"


def next_step(status: FunctionStatus, option: str = "") -> str:
    """The one command that helps most now, or ''."""
    name = f"{status.name}{option}"
    paused = [each.name for each in status.triggers if each.paused]
    if status.phase in {"failed", "backing-off"}:
        return f"fn logs {name} --level error"
    if paused:
        return f"fn resume {name}"
    if status.dead_letters:
        return f"fn dlq list {name}"
    if any(each.problem for each in status.triggers) or status.problems or status.last_error:
        return f"fn logs {name} --level warning"
    return ""


def _state_of(trigger: TriggerStatus, now: float) -> str:
    parts = [
        "paused" if trigger.paused else "",
        f"backlog {trigger.backlog:,}" if trigger.backlog is not None else "",
        _waiting(trigger, now),
        _held(trigger),
        f"{trigger.in_flight:,} in flight" if trigger.in_flight else "",
        f"{counted(trigger.dead, 'dead letter')}" if trigger.dead else "",
        f"last fired {times.ago(trigger.last_fire, now)}" if trigger.last_fire is not None else "",
        f"fires {times.ahead(trigger.next_fire, now)}" if trigger.next_fire is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _held(trigger: TriggerStatus) -> str:
    """`3 keys held (1 behind a dead letter)`."""
    if not trigger.held:
        return ""
    parked = f" ({trigger.parked} behind a dead letter)" if trigger.parked else ""
    return f"{counted(trigger.held, 'key')} held{parked}"


def _waiting(trigger: TriggerStatus, now: float) -> str:
    """`12 waiting (oldest for 3 min, next in 20 s)`."""
    if not trigger.waiting:
        return ""
    more = []
    if trigger.oldest is not None:
        more.append(f"oldest for {times.duration(max(0.0, now - trigger.oldest))}")
    if trigger.next_due is not None and trigger.next_due > now:
        more.append(f"next {times.ahead(trigger.next_due, now)}")
    return f"{trigger.waiting:,} waiting" + (f" ({', '.join(more)})" if more else "")


def _workers(status: FunctionStatus, now: float) -> str:
    if not status.workers:
        return "  none: it costs nothing until an event arrives" if status.phase == "sleeping" else "  none"
    return rows(
        [""] * 8,
        (
            [
                *(_pod(each) if each.name else _process(each)),
                f"since {times.duration(max(0.0, now - each.started))}",
                "" if status.revision.digest.startswith(each.revision) else f"revision {each.revision[:SHOWN]}",
            ]
            for each in status.workers
        ),
        indent="  ",
    )


def _process(worker: WorkerInfo) -> list[str]:
    return [f"pid {worker.pid}", _ready(worker), f"{worker.in_flight} in flight", times.size(worker.rss)]


def _pod(worker: WorkerInfo) -> list[str]:
    return [
        f"pod {worker.name}",
        _ready(worker),
        f"{worker.in_flight} in flight" if worker.rss else "",
        times.size(worker.rss) if worker.rss else "",
        counted(worker.restarts, "restart") if worker.restarts else "",
        worker.problem,
    ]


def _ready(worker: WorkerInfo) -> str:
    return "ready" if worker.ready else "starting"


def _counters(count: Counters, dead_letters: int) -> str:
    parts = [f"{getattr(count, name):,} {name}" for name in ("done", "retried", "rejected", "emitted")]
    parts += [counted(count.cold_starts, "cold start"), counted(dead_letters, "dead letter") + " kept"]
    return ", ".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())
