"""The mutants of the soak still do what their names say: in a process of their own, as the soak's node has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent.parent

ROAD = """
import asyncio
from road_doubles import Bench, PlainHandler, delivery, emit, route
from fleetfn.invocation import Done, Result

async def main():
    told = []
    bench = Bench(route(PlainHandler(lambda call: Result(Done(), b"1", (emit(),)), state=True)))
    bench.store.on_save = lambda writes: told.append("saved")
    settle, publish = bench.source.settle, bench.publisher.publish
    bench.source.settle = lambda *what: (told.append("settled"), settle(*what))

    async def published(emits):
        told.append("published")
        return await publish(emits)

    bench.publisher.publish = published
    bench.deliver("car")
    while not {"saved", "settled", "published"} <= set(told):
        await asyncio.sleep(0.01)
    print(*dict.fromkeys(told))
    await bench.road.close()

asyncio.run(main())
"""

RIGHT = "saved published settled"


@pytest.mark.parametrize(
    ("mutant", "order"),
    [
        pytest.param(None, RIGHT, id="the product"),
        pytest.param("slow-save", RIGHT, id="slow-save"),
        pytest.param("ack-before-save", "settled saved published", id="ack-before-save"),
        pytest.param("publish-before-save", "published saved settled", id="publish-before-save"),
    ],
)
def test_the_order_of_stages(mutant: str | None, order: str) -> None:
    path = [str(TESTS / "doubles"), os.environ.get("PYTHONPATH", "")]
    if mutant is not None:
        path.insert(0, str(TESTS / "soak" / "mutants" / mutant))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ROAD], env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.stdout.strip() == order, done.stderr
