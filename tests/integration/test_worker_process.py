"""The worker as a process: what it says on its channel, serves, owns and leaves behind."""

import asyncio
import fcntl
import os
import signal

import pytest
from fleetfn_runtime import owner
from fleetfn_runtime.channel import Failed, HandBack, Idle, Leaving, Pause, Ready, Report, Resume, Stats, Step
from fleetfn_runtime.sqlite_store import SqliteStore
from road_doubles import until
from worker_process import WorkerProcess, function, reply, request

pytestmark = pytest.mark.node

ADD = """
import os, time
import msgspec
from fleetfn import Context, Reject, Retry, State


class Reading(msgspec.Struct):
    car: str
    n: int = 1
    sleep: float = 0.0


class Count(msgspec.Struct):
    total: int = 0


def add(reading: Reading, state: State[Count], ctx: Context) -> Count:
    ctx.log.info("adding %d", reading.n)
    print("printed", reading.n)
    state.value.total += reading.n
    time.sleep(reading.sleep)
    return state.value
"""


@pytest.fixture
async def worker(tmp_path):
    made = []

    def make(code=ADD, spec=None, name="one", **settings):
        made.append(WorkerProcess(tmp_path / name, code, spec, **settings))
        return made[-1].start()

    yield make
    for one in made:
        one.close()


def is_locked(path):
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def begun(one):
    """Its handler runs."""
    await until(lambda: b'"adding 1"' in (one.data / "log.jsonl").read_bytes(), limit=60)


async def test_becomes_ready_serves_a_connection_and_drains(worker):
    one = worker()
    ready = await one.serving()
    assert next(message.text for message in one.heard if isinstance(message, Step)) == "importing the handler"
    assert ready.pid == one.process.pid
    assert ready.deliver == str(one.run / f"deliver-{ready.pid}.sock")
    reader, writer = await one.connect(request("/add", b'{"car": "a", "n": 2}'))
    status, headers, body = await reply(reader)
    assert (status, body) == (200, b'{"total":2}')
    writer.write(request("/add", b'{"car": "a", "n": 3}'))
    assert (await reply(reader))[2] == b'{"total":5}'
    await one.told(2)
    assert await one.drain() == 0
    assert [type(message) for message in one.heard if isinstance(message, HandBack)] == [HandBack]
    lines = [line for line in one.log() if line.get("invocation") == headers["fn-invocation"]]
    assert [(line["message"], line["trigger"]) for line in lines] == [("adding 2", "add"), ("printed 2", "add")]
    writer.close()


async def test_tells_what_it_has_done_at_once_when_asked(worker):
    one = worker()
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a"}'))
    await reply(reader)
    await one.told(1)
    one.channel.send(Report())
    message, _ = await one.hear(Stats)  # nothing has changed, and it is told all the same
    assert (message.counters.done, message.in_flight) == (0, 0)
    writer.close()


async def test_hands_back_the_connection_of_a_request_that_is_not_its_own(worker):
    one = worker()
    await one.ready()
    reader, writer = await one.connect(request("/add", b'{"car": "a"}'))
    await reply(reader)
    writer.write(request("/elsewhere"))
    message, fd = await one.hear(HandBack)
    assert message.head.startswith(b"POST /elsewhere")
    os.close(fd)
    writer.close()


async def test_finishes_what_runs_before_it_leaves(worker):
    one = worker()
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a", "sleep": 0.5}'))
    await begun(one)
    one.kill(signal.SIGTERM)
    assert (await reply(reader))[2] == b'{"total":1}'
    assert (await one.hear(Leaving))[0].reason == "SIGTERM"
    assert await one.ended() == 0
    writer.close()


async def test_leaves_when_its_node_is_gone(worker):
    one = worker()
    await one.ready()
    one.channel.close()
    assert await one.ended() == 0


async def test_state_survives_kill_9(worker):
    one = worker()
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a", "n": 7}'))
    await reply(reader)
    one.kill()
    await one.ended()
    writer.close()
    other = worker()
    await other.serving()
    reader, writer = await other.connect(request("/add", b'{"car": "a", "n": 1}'))
    assert (await reply(reader))[2] == b'{"total":8}'
    writer.close()


async def test_owns_the_function_only_once_the_other_has_left(worker):
    one = worker()
    await one.serving()
    await until(lambda: is_locked(one.data / "owner.lock"), limit=60)
    lock = owner.Ownership(one.data / "owner.lock")
    taking = asyncio.create_task(lock.take())
    await asyncio.sleep(0.05)
    assert not taking.done()
    assert await one.drain() == 0
    await asyncio.wait_for(taking, 60)
    lock.release()


async def test_says_that_it_is_idle(worker):
    one = worker(spec=function(scale={"idle": "1s"}))
    await one.serving()
    message, _ = await one.hear(Idle)
    assert message.seconds >= 1


async def test_a_plain_handler_that_does_not_end_gets_its_worker_replaced(worker):
    one = worker(spec=function(timeout="200ms"))
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a", "sleep": 30}'))
    status, _, _ = await reply(reader)
    assert status == 504
    assert await one.hear(Leaving) is not None
    assert await one.ended() == 75
    writer.close()


BROKEN = {
    "syntax": ("def add(:\n    pass\n", "handler.py:1", "is not Python"),
    "own import": ("import os\nimport nosuchmodule\n", "handler.py:2", "nosuchmodule"),
    "raises": ("x = 1\n\n1 / 0\n", "handler.py:3", "ZeroDivisionError"),
    "exits": ("import sys\nsys.exit(3)\n", "handler.py:2", "SystemExit"),
    "no attribute": ("def added(event: dict): ...\n", "handler.py", "has no 'add'"),
    "unbindable": ("def add(a: dict, b: dict): ...\n", "handler.py:1", ""),
    "not callable": ("add = 3\n", "handler.py", "not callable"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_says_what_keeps_it_from_being_ready_with_the_users_own_line(worker, case):
    code, place, said = BROKEN[case]
    one = worker(code)
    message, _ = await one.hear(Failed, Ready)
    assert isinstance(message, Failed), message
    assert message.place == place
    assert said in message.message
    assert await one.ended() == 1


async def test_a_module_that_is_not_there_is_told_from_one_that_it_imports(worker):
    one = worker(spec=function(handler="handlr:add"))
    message, _ = await one.hear(Failed)
    assert message.message == "there is no module 'handlr' in the function's folder"
    assert message.hint == "did you mean 'handler'?"


async def test_refuses_to_be_ready_where_stored_state_does_not_decode(worker):
    one = worker()
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a", "n": 7}'))
    await reply(reader)
    await one.drain()
    writer.close()
    other = worker(ADD.replace("total: int = 0", 'total: str = ""').replace("+= reading.n", '+= "x"'))
    message, _ = await other.hear(Failed, Ready)
    assert isinstance(message, Failed)
    assert 'key "a"' in message.message
    store = SqliteStore(other.data / "state.db")
    assert (await store.load(["a"]))[0].record.value == b'{"total":7}'
    await store.close()


async def test_a_request_that_arrives_while_it_leaves_is_answered_or_given_back(worker):
    one = worker()
    await one.serving()
    _, first = await one.connect(request("/add", b'{"car": "a", "sleep": 0.3}'))
    await begun(one)
    one.kill(signal.SIGTERM)
    late = request("/add", b'{"car": "b"}')
    reader, second = await one.connect(late)
    heads = []
    while (received := await one.hear(HandBack)) is not None:
        message, fd = received
        os.close(fd)
        heads.append(message.head)
    assert len(heads) == 2
    if late not in heads:
        assert (await reply(reader))[0] == 200
    assert await one.ended() == 0
    for each in (first, second):
        each.close()


async def test_a_trigger_that_is_paused_while_its_worker_starts_is_paused(worker):
    one = worker()
    one.channel.send(Pause(("add",)))
    await one.serving()
    reader, writer = await one.connect(request("/add", b'{"car": "a"}'))
    assert (await reply(reader))[0] == 503
    one.channel.send(Resume(("add",)))
    async with asyncio.timeout(60):  # the order and the request come on two ways
        status = 503
        while status == 503:
            writer.write(request("/add", b'{"car": "a"}'))
            status, _, body = await reply(reader)
    assert body == b'{"total":1}'
    assert await one.drain() == 0
    writer.close()
