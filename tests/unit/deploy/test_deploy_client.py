import threading

import pytest
from fake_node import Lines, Refused, streaming
from fleetfn.errors import TargetError
from fleetfn_deploy.client import NodeClient, NotRunningError, RefusedError
from fleetfn_spec.control import API, InvokeReply, InvokeRequest, NodeInfo, SendItem, SendLine, StateEntry
from fleetfn_spec.gateway import Fired, FireRequest, Redrive
from fleetfn_triggers.inbox import Which

INFO = NodeInfo(
    name="default",
    version="0.1.0",
    api=API,
    pid=7,
    data="/d",
    log="/d/node.log",
    url="http://127.0.0.1:8080",
    started=1,
)


def test_every_request_says_which_api_it_speaks(node, client):
    node.answers["GET", "/v1/node"] = INFO
    assert client.node() == INFO
    assert node.last().headers["fleetfn-api"] == API


def test_a_node_that_is_not_there_is_told_with_the_command_that_starts_it(tmp_path):
    with pytest.raises(NotRunningError) as caught:
        NodeClient(tmp_path / "control.sock", name="bench").functions()
    assert "'bench' is not running" in caught.value.message
    assert caught.value.hint == "Start it: fn up -n bench"


def test_a_refusal_keeps_its_hint_and_all_problems(node, client):
    node.answers["GET", "/v1/functions/x"] = Refused(404, "no function 'x'", "Known: y", ["a", "b"])
    with pytest.raises(RefusedError) as caught:
        client.function("x")
    assert (caught.value.message, caught.value.hint, caught.value.problems, caught.value.status) == (
        "no function 'x'",
        "Known: y",
        ["a", "b"],
        404,
    )


@pytest.mark.parametrize(("theirs", "older"), [("2.0", "Update fn"), ("0.9", "Update the node")])
def test_another_major_says_which_side_to_update(node, client, theirs, older):
    node.api = theirs
    node.answers["GET", "/v1/node"] = INFO
    with pytest.raises(TargetError) as caught:
        client.node()
    assert theirs in caught.value.message
    assert caught.value.hint.startswith(older)


def test_a_newer_minor_is_fine(node, client):
    node.api = "1.7"
    node.answers["GET", "/v1/node"] = {**{f: getattr(INFO, f) for f in INFO.__struct_fields__}, "moon": "full"}
    assert client.node() == INFO


def test_an_answer_of_the_wrong_shape_is_no_traceback(node, client):
    node.answers["GET", "/v1/node"] = b"<html>"
    with pytest.raises(TargetError, match="cannot read"):
        client.node()


def test_nor_is_a_line_of_the_wrong_shape(node, client):
    node.answers["POST", "/v1/functions/f/rollback"] = Lines([b'{"step": 7}\n'])
    with client.rollback("f") as lines, pytest.raises(TargetError, match="cannot read"):
        next(lines)


def test_an_error_that_is_no_refusal_is_shown_as_it_is(node, client):
    node.answers["POST", "/v1/node/stop"] = Refused(503, "busy")
    with pytest.raises(TargetError, match="busy"):
        client.stop()


def test_lines_arrive_one_by_one_while_the_answer_is_written(node, client):
    go_on = threading.Event()

    def lines():
        yield b'{"n":1}\n{"n":2}\n'
        assert go_on.wait(60)
        yield b'{"n":'
        yield b"3}\n"

    node.answers["GET", "/v1/functions/f/logs"] = Lines(lines())
    with client.logs("f", follow=True, since=5.5, key="V 1") as log:
        assert [next(log), next(log)] == [b'{"n":1}', b'{"n":2}']
        go_on.set()
        assert list(log) == [b'{"n":3}']
    assert node.last().query == {"follow": "true", "since": "5.5", "key": "V 1"}


def test_an_answer_cut_off_is_an_error_not_an_end(node, client):
    node.answers["GET", "/v1/functions/f/logs"] = Lines([b"{}\n"], cut=True)
    log = client.logs("f")
    assert next(log) == b"{}"
    with pytest.raises(TargetError, match="went away"):
        next(log)
    log.close()


def test_progress_comes_back_while_items_are_still_being_sent(node, client):
    first_seen = threading.Event()

    @streaming
    def answer(asked):
        def lines():
            for sent, _ in enumerate(asked.blocks, 1):
                yield SendLine(sent=sent)
            yield SendLine(sent=sent, finished=True)

        return Lines(lines())

    def items():
        yield SendItem(key="a", data=1)
        assert first_seen.wait(60)
        yield SendItem(key="b", data=2)

    node.answers["POST", "/v1/functions/f/send"] = answer
    with client.send("f", "telemetry", items()) as progress:
        assert next(progress).sent == 1
        first_seen.set()
        assert [line.sent for line in progress] == [2, 2]
    assert node.last().query == {"trigger": "telemetry"}


def test_a_problem_in_the_items_is_raised_where_progress_is_read(node, client):
    @streaming
    def answer(asked):
        def lines():
            yield SendLine(sent=0)
            for _ in asked.blocks:
                yield SendLine(sent=1)

        return Lines(lines())

    def items():
        yield SendItem(data=1)
        raise TargetError("line 2 is broken")

    node.answers["POST", "/v1/functions/f/send"] = answer
    with client.send("f", "t", items()) as progress, pytest.raises(TargetError, match="line 2 is broken"):
        list(progress)


def test_items_go_in_batches_where_asked_to(node, client):
    blocks = []

    @streaming
    def answer(asked):
        blocks.extend(asked.blocks)
        return Lines([SendLine(sent=5, finished=True)])

    node.answers["POST", "/v1/functions/f/send"] = answer
    with client.send("f", "t", (SendItem(data=n) for n in range(5)), batch=2) as progress:
        assert [line.finished for line in progress] == [True]
    assert [block.count(b"\n") for block in blocks] == [2, 2, 1]


def test_closing_from_another_thread_ends_a_read(node, client):
    def lines():
        yield b"{}\n"
        threading.Event().wait(0.5)

    node.answers["GET", "/v1/functions/f/logs"] = Lines(lines())
    log = client.logs("f", follow=True)
    assert next(log) == b"{}"
    threading.Timer(0.05, log.close).start()
    assert list(log) == []


def test_a_refusal_of_what_is_being_sent_is_heard(node, client):
    @streaming
    def answer(asked):
        next(asked.blocks)
        return Refused(404, "no trigger 't'")

    def items():
        while True:
            yield SendItem(data="x" * 10_000)

    node.answers["POST", "/v1/functions/f/send"] = answer
    with pytest.raises(RefusedError, match="no trigger"):
        client.send("f", "t", items())


def test_names_and_keys_travel_quoted(node, client):
    node.answers["GET", "/v1/functions/f/state/a/b ü"] = StateEntry(key="a/b ü", value=1)
    assert client.state("f", "a/b ü").value == 1


def test_calls_carry_their_values(node, client):
    node.answers["POST", "/v1/functions/f/invoke"] = InvokeReply(outcome="done", reply=3)
    assert client.invoke("f", InvokeRequest(event={"data": 1})).reply == 3
    node.answers["POST", "/v1/dlq/discard"] = {"discarded": 2}
    assert client.discard(Which(sequences=(4, 5))) == 2
    assert node.last().json()["sequences"] == [4, 5]
    node.answers["POST", "/v1/dlq/redrive"] = {"redriven": 1}
    assert client.redrive(Redrive(which=Which(key="V1"), rate=10.0)) == 1
    assert (node.last().json()["which"]["key"], node.last().json()["rate"]) == ("V1", 10.0)
    node.answers["POST", "/v1/functions/f/fire"] = Fired(sequence=7, id="f/nightly/5", at=5.0)
    assert client.fire("f", FireRequest(trigger="nightly", at=5.0)).sequence == 7
    assert node.last().json() == {"trigger": "nightly", "at": 5.0}
