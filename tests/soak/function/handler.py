"""Keeps a hash chain per vehicle and source of what it took, and one over all, and tells each link."""

import asyncio
import hashlib
import os
import time

from fleetfn import Batch, Context, Event, Reject, Retry, State
from msgspec import Struct, field

REVISION = 1


class Message(Struct):
    id: str
    vehicle: str
    source: str
    do: str
    also: str = ""


class Chain(Struct):
    n: int = 0
    hash: str = ""

    def add(self, what: str) -> None:
        self.n += 1
        self.hash = hashlib.sha256((self.hash + what).encode()).hexdigest()[:16]


class Chains(Struct):
    all: Chain = field(default_factory=Chain)
    sources: dict[str, Chain] = {}


class Link(Struct):
    """`run` differs with each run of the handler: of all runs of an event, only the one that was saved may be told."""

    vehicle: str
    id: str
    of: str
    source: str
    n: int
    hash: str
    at: int
    all: str
    run: str
    attempt: int
    revision: int


def take(event: Event[Message], state: State[Chains], ctx: Context) -> Link:
    if event.data.do == "slow":
        time.sleep(0.2)
    return _take(event, state, ctx)


async def take_async(event: Event[Message], state: State[Chains], ctx: Context) -> Link:
    if event.data.do == "slow":
        await asyncio.sleep(0.2)
    return _take(event, state, ctx)


def _take(event: Event[Message], state: State[Chains], ctx: Context) -> Link:
    message = event.data
    _misbehave(message.do, ctx.attempt)
    chains = state.value
    chain = chains.sources.setdefault(message.source, Chain())
    chain.add(message.id)
    chains.all.add(f"{message.source}/{message.id}")
    link = Link(
        vehicle=message.vehicle,
        id=message.id,
        of=event.id,
        source=message.source,
        n=chain.n,
        hash=chain.hash,
        at=chains.all.n,
        all=chains.all.hash,
        run=ctx.invocation,
        attempt=ctx.attempt,
        revision=REVISION,
    )
    if message.also:
        ctx.emit(f"out-{message.also}", link)
    return link


def _misbehave(do: str, attempt: int) -> None:
    match do:
        case "reject":
            raise Reject("the plan says so")
        case "fail":
            raise RuntimeError("the plan says: always")
        case "flaky1" | "flaky2" if attempt <= int(do[-1]):
            raise ValueError(f"attempt {attempt} of a flaky one")
        case "later1" | "later2" if attempt <= int(do[-1]):
            raise Retry("not yet", after=3)
        case "exit":
            os._exit(3)
        case "exit1" if attempt == 1:
            os._exit(4)


def relay(events: Batch[Event[Message]], ctx: Context) -> list[Link]:
    """Without state: what it tells may come more than once, under equal ids."""
    return [_relayed(event, ctx.invocation) for event in events]


def _relayed(event: Event[Message], run: str) -> Link:
    message = event.data
    return Link(message.vehicle, message.id, event.id, message.source, 0, "", 0, "", run, 0, REVISION)


def audit(links: Batch[Link], state: State[Chain]) -> None:
    """Behind another function: a chain of what that one has told, repeats and all."""
    for link in links:
        state.value.add(link.id)
