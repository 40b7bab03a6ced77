"""The node's gateway as a process: kept running, told of functions, and what waits there wakes them."""

import concurrent.futures
import contextlib
import fcntl
import signal

import httpx
import msgspec
import psutil
import pytest
from fleetfn_deploy.client import RefusedError
from fleetfn_spec.control import SendItem
from fleetfn_spec.gateway import FireRequest, GatewayStatus
from running_node import RunningNode, alive, wait_for, write_function

pytestmark = [pytest.mark.node]

HANDLER = """
from dataclasses import dataclass, field
from fleetfn import Context, State, Tick

@dataclass
class Seen:
    numbers: list[int] = field(default_factory=list)

def take(number: int, state: State[Seen]):
    state.value.numbers.append(number)

def tick(tick: Tick, ctx: Context):
    ctx.log.info("fired for %s", tick.at.isoformat())
"""
SPEC = """
handler: handler:take
triggers:
- {name: live, key: topic.vehicle, mqtt: {topic: "v/{vehicle}/n"}}
- {name: nightly, handler: "handler:tick", cron: {schedule: "0 3 * * *"}}
scale: {idle: 1s}
"""
WITHOUT_LIVE = """
handler: handler:tick
triggers:
- {name: nightly, cron: {schedule: "0 3 * * *"}}
scale: {idle: 1s}
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path)
    yield node
    node.close()


@pytest.fixture
def deployed(node, tmp_path):
    node.start()
    node.folder = write_function(tmp_path / "hello", HANDLER, SPEC)
    _, last = node.deploy(node.folder)
    assert last.revision is not None, last
    return node


def child(node, module):
    """The node's living child that runs this module, from the table of processes; None: there is none."""
    for each in psutil.Process(node.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may just end
            if module in each.cmdline():
                return each
    return None


def gateway(node):
    return child(node, "fleetfn_gateway")


def send(node, *numbers, key="V1", trigger="live"):
    with node.client.send("hello", trigger, [SendItem(key=key, data=number) for number in numbers]) as lines:
        last = list(lines)[-1]
    assert (last.sent, last.refusal) == (len(numbers), None)


def seen(node, key="V1"):
    try:
        return node.client.state("hello", key).value["numbers"]
    except RefusedError:
        return []


def trigger(node, name="live"):
    return next(each for each in node.status("hello").triggers if each.name == name)


def test_a_message_wakes_a_sleeping_function(deployed):
    deployed.asleep("hello")
    send(deployed, 1, 2, 3)
    wait_for(lambda: seen(deployed) == [1, 2, 3], what="the messages, in order")
    deployed.asleep("hello")
    wait_for(lambda: trigger(deployed).waiting == 0, what="an empty inbox")
    assert deployed.client.node().embedded_mqtt is not None


def test_a_clock_tells_its_next_fire_and_fires_by_hand(deployed):
    deployed.asleep("hello")
    wait_for(lambda: trigger(deployed, "nightly").next_fire is not None, what="its next fire")
    fired = deployed.client.fire("hello", FireRequest(trigger="nightly", at=1772332200.0))
    assert fired.at == 1772332200.0

    def told():
        with deployed.client.logs("hello") as lines:
            return any(b"fired for 2026-03-01T02:30:00+00:00" in line for line in lines)

    wait_for(told, what="the handler's line")


def test_a_worker_wakes_for_a_fire_by_hand_before_its_row_is_written(deployed):
    """The longest part of it is the start of the worker: the gateway writes meanwhile."""
    deployed.asleep("hello")
    standing = gateway(deployed)
    standing.send_signal(signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        fired = pool.submit(deployed.client.fire, "hello", FireRequest(trigger="nightly"))
        wait_for(deployed.workers, what="a worker, though nothing is written")
        standing.send_signal(signal.SIGCONT)
        assert fired.result(60).sequence > 0


def test_a_fire_of_a_paused_clock_wakes_nobody(deployed):
    deployed.client.pause("hello", ["nightly"])
    deployed.asleep("hello")
    wait_for(lambda: not deployed.workers(), what="the end of its process")
    deployed.client.fire("hello", FireRequest(trigger="nightly"))
    assert deployed.workers() == []
    wait_for(lambda: trigger(deployed, "nightly").waiting == 1, what="the row")
    assert deployed.workers() == []


@pytest.mark.parametrize(
    ("name", "said"), [("live", "is no clock: it is a mqtt trigger"), ("none", "has no trigger 'none'")]
)
def test_only_a_clock_is_fired(deployed, name, said):
    with pytest.raises(RefusedError, match=said):
        deployed.client.fire("hello", FireRequest(trigger=name))


def test_a_gateway_that_dies_is_started_again_and_the_node_goes_on(deployed):
    first = gateway(deployed)
    first.send_signal(signal.SIGSTOP)  # the status is asked for while it says nothing
    assert "does not tell" in deployed.status("hello").problems[0]
    first.kill()
    wait_for(lambda: (other := gateway(deployed)) and other.pid != first.pid, what="another one")
    wait_for(lambda: deployed.client.node().gateway == "", what="its being told of the function")
    assert deployed.process.poll() is None
    send(deployed, 7)
    wait_for(lambda: seen(deployed) == [7], what="a message through the new one")
    wait_for(lambda: deployed.status("hello").problems == [], what="an end of its problems")


def test_a_node_works_without_its_gateway_and_says_what_does_not(deployed):
    deployed.stop()
    with (deployed.data / "gateway" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as if another one held its folder
        deployed.start()
        assert deployed.client.node().gateway
        assert deployed.status("hello").problems
        assert "stands still without the gateway" in trigger(deployed).problem
        steps, last = deployed.deploy(deployed.folder)
        assert last.revision is not None
        assert any("nothing comes yet" in step for step in steps)
        with pytest.raises(RefusedError, match="the gateway"):
            deployed.client.dead()
        with pytest.raises(RefusedError, match="the gateway"):
            deployed.client.delete("hello", keep_state=False)
    wait_for(lambda: deployed.client.node().gateway == "", 60, "a gateway")
    send(deployed, 7)
    wait_for(lambda: seen(deployed) == [7], what="a message")


def test_a_paused_trigger_keeps_what_comes_until_it_is_resumed(deployed):
    deployed.client.pause("hello", ["live"])
    send(deployed, 1, 2)
    wait_for(lambda: (row := trigger(deployed)).waiting == 2 and row.oldest is not None, what="two rows")
    assert seen(deployed) == []
    deployed.client.resume("hello", ["live"])
    wait_for(lambda: seen(deployed) == [1, 2], what="both")


def test_events_of_a_removed_trigger_stay_for_a_rollback_and_the_deploy_says_so(deployed, tmp_path):
    deployed.client.pause("hello", ["live"])
    send(deployed, 1, 2)
    wait_for(lambda: trigger(deployed).waiting == 2, what="two rows")
    folder = write_function(tmp_path / "without", HANDLER, WITHOUT_LIVE)
    _, planned = deployed.deploy(folder, dry_run=True)
    said = (
        "trigger live is removed: its session at the broker ends, with what the broker keeps for it; "
        "2 events stay in the inbox for it, until a revision has a trigger of that name again, or an hour has passed"
    )
    assert planned.plan.notes == [said]
    steps, _ = deployed.deploy(folder)
    assert said in steps
    waits = "until a revision has a trigger of that name again, or an hour has passed"
    problem = f"trigger live is removed: 2 events stay in the inbox for it, {waits}"
    wait_for(lambda: deployed.status("hello").problems == [problem], what=problem)
    deployed.rollback("hello")
    deployed.client.resume("hello")
    wait_for(lambda: seen(deployed) == [1, 2], what="what had waited")


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "dropped"])
def test_what_waits_goes_or_stays_with_the_state_of_a_deleted_function(deployed, keep):
    deployed.client.pause("hello", ["live"])
    send(deployed, 1, 2)
    wait_for(lambda: trigger(deployed).waiting == 2, what="two rows")
    deployed.client.delete("hello", keep_state=keep)
    deployed.deploy(deployed.folder)
    deployed.client.resume("hello")
    send(deployed, 3)
    expected = [1, 2, 3] if keep else [3]
    wait_for(lambda: seen(deployed) == expected, what=f"{expected}")


def test_a_delete_at_which_the_gateway_fails_is_refused_and_can_be_repeated(deployed):
    inbox, folder = deployed.data / "gateway" / "inbox.db", deployed.data / "functions" / "hello"
    aside = inbox.rename(inbox.with_name("aside"))  # its gateway answers, and writes nothing down
    with pytest.raises(RefusedError, match="hello is not deleted, the gateway failed") as refused:
        deployed.client.delete("hello", keep_state=False)
    assert "delete it again" in refused.value.hint
    aside.rename(inbox)
    wait_for(lambda: deployed.client.node().gateway == "", 30, "a gateway that knows all functions")
    send(deployed, 7)
    wait_for(lambda: seen(deployed) == [7], what="a message to the function, which is still there")
    deployed.client.delete("hello", keep_state=False)
    assert not folder.exists()
    assert deployed.client.functions() == []


def test_rows_outlive_a_killed_node_and_its_gateway(deployed):
    deployed.client.pause("hello", ["live"])
    send(deployed, 1, 2)
    wait_for(lambda: trigger(deployed).waiting == 2, what="two rows")
    old = gateway(deployed)
    deployed.kill()
    wait_for(lambda: not alive(old), what="the end of a gateway whose owner is gone")
    deployed.start()
    wait_for(lambda: trigger(deployed).waiting == 2, what="the same rows")
    deployed.client.resume("hello")
    wait_for(lambda: seen(deployed) == [1, 2], what="both")


def test_the_gateway_goes_on_with_a_function_that_its_node_cannot_read(deployed):
    head = deployed.data / "functions" / "hello" / "head.json"
    kept = head.read_bytes()
    deployed.stop()
    head.write_text("{")
    deployed.start()
    assert [each.phase for each in deployed.client.functions()] == ["failed"]
    wait_for(lambda: deployed.client.node().gateway == "", what="its gateway")
    assert "live" in told(deployed).functions["hello"]
    deployed.stop()
    head.write_bytes(kept)
    deployed.start()
    send(deployed, 1)
    wait_for(lambda: seen(deployed) == [1], what="a message")


def told(node):
    """What the gateway says of itself."""
    transport = httpx.HTTPTransport(uds=str(node.run / "gateway.sock"))
    with httpx.Client(transport=transport, base_url="http://gateway", timeout=60) as client:
        return msgspec.json.decode(client.get("/v1/gateway").content, type=GatewayStatus)


def test_the_gateway_ends_with_its_node(deployed):
    process = gateway(deployed)
    assert deployed.stop() == 0
    assert not alive(process)
    assert not (deployed.run / "gateway.sock").exists()


def test_a_sleeping_function_says_that_its_broker_is_away(deployed):
    deployed.asleep("hello")
    said = "no process, and live cannot wake it now: see the problem there"

    def told():
        with contextlib.suppress(psutil.Error):
            if (broker := child(deployed, "fleetfn_node.embedded_mqtt")) is not None:
                broker.kill()  # each time that it is back
        status = deployed.status("hello")
        return status.phase == "sleeping" and status.reason == said and status.triggers[0].problem

    wait_for(told, what=said)


def test_a_full_inbox_is_told_and_the_source_waits(node, tmp_path):
    node.start("--quota", "300kB")
    handler = HANDLER.replace("number: int", "text: str").replace("append(number)", "append(len(text))")
    node.deploy(write_function(tmp_path / "hello", handler, SPEC))
    node.client.pause("hello", ["live"])
    send(node, *["x" * 10_000] * 60)
    wait_for(lambda: any("over its quota" in each for each in node.status("hello").problems), what="the quota")
    before = wait_for(lambda: trigger(node).waiting, what="rows")
    send(node, *["y" * 9_000] * 40)
    row = wait_for(lambda: (row := trigger(node)).problem and row.waiting and row, what="a word on that")
    assert row.waiting == before
    node.client.resume("hello")
    wait_for(lambda: seen(node) == [10_002] * 60 + [9_002] * 40, what="all, in order, with their quotes")
    wait_for(lambda: not node.status("hello").problems, what="the problem's end")


def test_metrics_hold_the_gateways_own(deployed):
    def text():
        transport = httpx.HTTPTransport(uds=str(deployed.run / "control.sock"))
        with httpx.Client(transport=transport, base_url="http://node", timeout=60) as client:
            return client.get("/metrics").text

    wait_for(lambda: "fleetfn_gateway" in text(), what="the gateway's figures")
    assert "fleetfn_node" in text()
