"""What a worker opens before it is ready, and closes as it ends."""

from __future__ import annotations

import contextlib

import pytest
from fleetfn import Context
from fleetfn.binder import BindInfo, bind
from fleetfn.errors import BindingError
from fleetfn.event import Event
from fleetfn.invocation import Call
from fleetfn.lifespan import Lifespan, Startup

STARTUP = Startup(name="fn", config={"url": "x"})


async def generator(ctx):
    log.append(f"open {ctx.name} {ctx.config['url']}")
    yield "client"
    log.append("close")


@contextlib.asynccontextmanager
async def asynchronous():
    log.append("open")
    yield "client"
    log.append("close")


@contextlib.contextmanager
def plain(ctx):
    log.append("open")
    yield "client"
    log.append("close")


def plain_generator():
    log.append("open")
    yield "client"
    log.append("close")


log: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_log():
    log.clear()


@pytest.mark.parametrize(
    "target", [generator, asynchronous, plain, plain_generator], ids=lambda target: target.__name__
)
async def test_what_it_yields_is_the_resources_until_it_is_closed(target):
    lifespan = Lifespan(target)
    await lifespan.open(STARTUP)
    assert lifespan.resources == "client"
    assert log[-1].startswith("open")
    await lifespan.close()
    assert log[-1] == "close"
    assert lifespan.resources is None
    await lifespan.close()
    assert log.count("close") == 1


async def test_without_one_there_is_nothing():
    lifespan = Lifespan()
    await lifespan.open(STARTUP)
    assert lifespan.resources is None
    await lifespan.close()


async def test_handlers_bound_before_it_opened_see_it():
    seen = []

    def handler(ctx: Context) -> None:
        seen.append(ctx.resources)

    lifespan = Lifespan(generator)
    bound = bind(handler, trigger=BindInfo(name="t", kind="kafka", has_key=False, function="fn", lifespan=lifespan))
    await lifespan.open(STARTUP)
    bound.invoke([Call(Event(id="1", source="s", type="t", data=None), "t")])
    await lifespan.close()
    assert seen == ["client"]


async def test_its_errors_are_the_users():
    async def broken(ctx):
        raise ConnectionError("no broker")
        yield

    lifespan = Lifespan(broken)
    with pytest.raises(ConnectionError, match="no broker"):
        await lifespan.open(STARTUP)
    await lifespan.close()


async def test_what_is_no_lifespan():
    async def coroutine(ctx):
        return "client"

    def two(ctx, other):
        yield

    with pytest.raises(BindingError, match="is no context manager"):
        await Lifespan(coroutine).open(STARTUP)
    with pytest.raises(BindingError, match="takes 2 arguments"):
        await Lifespan(two).open(STARTUP)
