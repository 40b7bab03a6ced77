"""What a pod's worker learns from its gateway, and does by itself now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import HttpClient, Reply, Streams, UnreachableError
from fleetfn_runtime import pod_life
from fleetfn_runtime.pod_life import PodLife
from fleetfn_spec.cluster import Figures, Here
from fleetfn_spec.control import Counters

FIGURES = Figures(run="r", counters=Counters(done=3))
REFUSED = Reply(403, {}, b'{"message": "\'f\' may not ask for \'g\'", "hint": "ask for your own"}')


class Gateway(HttpClient):
    """Gives these answers, one after the other, the last of them on and on."""

    def __init__(self, *answers: Reply | Exception) -> None:
        super().__init__("https://gateway:8443", keeps=1)
        self.answers = list(answers)
        self.asked: list[str] = []

    async def connect(self) -> Streams:
        raise NotImplementedError

    async def request(self, method: str, path: str, *_: Any, **__: Any) -> Reply:
        self.asked.append(f"{method} {path}")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Source:
    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def pause(self, why: str) -> None:
        self.reasons.add(why)

    def resume(self, why: str) -> None:
        self.reasons.remove(why)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_life, "_AGAIN", 0.001)
    monkeypatch.setattr(pod_life, "REACH", 0.05)


def life(gateway: Gateway, *sources: Source, sweep: Callable[[], None] | None = None) -> tuple[PodLife, list[str]]:
    paused: list[str] = []
    return PodLife("f", gateway, sources, pause=paused.extend, sweep=sweep, figures=lambda: FIGURES), paused


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.001)


async def test_sources_stand_still_until_it_is_known_what_is_paused() -> None:
    source = Source()
    answers = UnreachableError("nobody listens"), REFUSED, Reply(200, {}, b'{"triggers": ["telemetry"]}')
    one, paused = life(gateway := Gateway(*answers), source)
    one.start()
    assert source.reasons
    await until(lambda: not source.reasons)
    assert paused == ["telemetry"]
    assert gateway.asked == ["GET /v1/functions/f/paused"] * 3
    await one.close()


async def test_its_gateway_is_told_that_it_takes_work_and_asked_where_it_takes_no_word() -> None:
    source, gateway = Source(), Gateway(REFUSED, Reply(200, {}, b"{}"))
    here = Here(pod="f-1", address="10.0.0.1")
    one = PodLife("f", gateway, [source], here=here, pause=print, sweep=None, figures=lambda: FIGURES)
    one.start()
    await until(lambda: not source.reasons)
    assert gateway.asked == ["POST /v1/functions/f/ready", "GET /v1/functions/f/paused"]
    await one.close()


async def test_what_others_left_is_looked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_life, "SWEEP", 0.001)
    swept: list[None] = []
    one, _ = life(Gateway(Reply(200, {}, b"{}")), sweep=lambda: swept.append(None))
    one.start()
    await until(lambda: len(swept) > 2)
    await one.close()


async def test_a_gateway_that_is_just_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_life, "REACH", 30.0)
    one, _ = life(Gateway(UnreachableError("nobody listens"), Reply(200, {}, b"{}")))
    await one.reach()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (UnreachableError("nobody listens there"), "nobody listens there"),
        (REFUSED, "'f' may not ask for 'g'"),
        (Reply(200, {}, b"<html>"), r"its answer \(status 200\) cannot be read"),
    ],
    ids=["away", "refuses", "is another"],
)
async def test_a_gateway_that_does_not_serve_is_told_in_words(answer: Reply | Exception, why: str) -> None:
    one, _ = life(Gateway(answer))
    with pytest.raises(FleetError, match=f"the gateway https://gateway:8443 does not serve this worker: {why}"):
        await one.reach()
