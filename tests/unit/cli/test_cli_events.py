"""invoke and send."""

import base64
import io
import json

import msgspec
import pytest
from fake_node import Lines, streaming
from fleetfn.errors import UsageError
from fleetfn_cli import durations, pacing, payloads
from fleetfn_cli.commands import sending
from fleetfn_spec.control import InvokeReply, Refusal, SendItem, SendLine, TriggerStatus
from samples_of_control import SHOW, STATUS, TELEMETRY

DECODER = msgspec.json.Decoder(SendItem)

INVOKE = ("POST", "/v1/functions/battery-alert/invoke")
SEND = ("POST", "/v1/functions/battery-alert/send")


def test_invoke_prints_the_reply_alone_on_stdout(fn, node):
    node.answers[INVOKE] = InvokeReply(
        outcome="done", reply={"level": 2}, emits=[{"output": "alerts"}], duration=0.0123, invocation="i"
    )
    said = fn("invoke", "battery-alert", "--data", '{"vehicle": "V1"}', "--key", "V1", "-t", "telemetry")
    assert said.status == 0
    assert json.loads(said.out) == {"level": 2}
    assert "done in 12 ms" in said.err
    assert 'emitted {"output":"alerts"}' in said.err
    assert node.last().json() == {
        "trigger": "telemetry", "key": "V1", "event": {"data": {"vehicle": "V1"}}, "topic": None,
    }  # fmt: skip


def test_invoke_says_the_topic_and_the_instant_where_the_trigger_has_them(fn, node):
    node.answers[INVOKE] = InvokeReply(outcome="done")
    assert fn("invoke", "battery-alert", "--topic", "vehicles/V1/x", "--at", "2026-03-01T02:30+01:00").status == 0
    asked = node.last().json()
    assert (asked["topic"], asked["event"]["time"]) == ("vehicles/V1/x", "2026-03-01T01:30:00+00:00")
    said = fn("invoke", "battery-alert", "--at", "tomorrow")
    assert (said.status, "'tomorrow' is no time" in said.err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [("invoke", "battery-alert", "--key"), ("state", "get", "battery-alert"), ("logs", "battery-alert", "--key")],
    ids=lambda words: words[0],
)
@pytest.mark.usefixtures("node")
def test_a_key_that_is_not_utf8_is_a_mistake_of_usage(fn, words):
    said = fn(*words, "V\udcff1")
    assert (said.status, said.out) == (2, "")
    assert "the argument 'V\\udcff1' is not UTF-8" in said.err


@pytest.mark.parametrize("outcome", ["retry", "reject"])
def test_invoke_exits_1_for_any_other_outcome(fn, node, outcome):
    node.answers[INVOKE] = InvokeReply(outcome=outcome, reason="no cell", traceback="Traceback: here", invocation="i7")
    said = fn("invoke", "battery-alert")
    assert (said.status, said.out) == (1, "")
    assert f"{outcome} in 0 ms: no cell" in said.err
    assert "Traceback: here" in said.err
    assert "--invocation i7" in said.err


def test_invoke_gives_all_as_json(fn, node):
    reply = InvokeReply(outcome="reject", reason="no")
    node.answers[INVOKE] = reply
    said = fn("invoke", "battery-alert", "-o", "json")
    assert said.status == 1
    assert msgspec.json.decode(said.out, type=InvokeReply) == reply


def test_invoke_takes_files_events_and_attributes(fn, node, tmp_path):
    node.answers[INVOKE] = InvokeReply(outcome="done")
    (tmp_path / "raw").write_bytes(b"\xff\x00")
    fn("invoke", "battery-alert", "--file", tmp_path / "raw")
    assert node.last().json()["event"] == {"data_base64": base64.b64encode(b"\xff\x00").decode()}
    (tmp_path / "e.json").write_text('{"id": "1", "type": "t", "data": 3}')
    fn("invoke", "battery-alert", "--event", tmp_path / "e.json", "-H", "ce-subject=V1")
    assert node.last().json()["event"] == {"id": "1", "type": "t", "data": 3, "subject": "V1"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--data", "{"], "is not JSON"),
        (["--data", "1", "--file", "x"], "exclude each other"),
        (["--file", "missing"], "cannot read missing"),
        (["--header", "x", "--data", "1"], "no NAME=VALUE"),
    ],
)
def test_bad_payloads_are_wrong_usage(fn, node, options, problem):
    said = fn("invoke", "battery-alert", *options)
    assert said.status == 2
    assert problem in said.err


@pytest.fixture
def sent(node):
    """What was sent through the fake node, which counts as it reads."""
    items = []

    @streaming
    def answer(asked):
        def lines():
            for block in asked.blocks:
                items.extend(DECODER.decode_lines(block))
            yield SendLine(sent=len(items), lag=0, finished=True)

        return Lines(lines())

    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers[SEND] = answer
    return items


def test_send_takes_the_only_trigger_that_pulls(fn, node, sent):
    said = fn("send", "battery-alert", "--key", "V1", "--data", '{"a": 1}')
    assert (said.status, said.out) == (0, "")
    assert node.last().query == {"trigger": "telemetry"}
    assert sent == [SendItem(key="V1", data={"a": 1})]
    assert "1 sent to battery-alert telemetry" in said.err
    assert json.loads(fn("send", "battery-alert", "--data", "1", "-o", "json").out)["finished"] is True


def test_send_repeats_one_event(fn, sent):
    fn("send", "battery-alert", "--data", "1", "--count", "3")
    assert [item.data for item in sent] == [1, 1, 1]


def test_send_takes_the_first_lines_of_a_recording(fn, sent, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"key": "V1", "data": {"n": 1}}\n\n{"n": 2}\n{"n": 3}\n')
    assert fn("send", "battery-alert", "--recording", tmp_path / "r.jsonl", "--count", "2").status == 0
    assert sent == [SendItem(key="V1", data={"n": 1}), SendItem(data={"n": 2})]


def test_a_broken_line_is_named_and_nothing_after_it_sent(fn, sent, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n{"n": 3}\n')
    said = fn("send", "battery-alert", "--recording", path)
    assert said.status == 1
    assert f"{path}:2: not JSON" in said.err
    assert "--skip-bad" in said.err
    assert [item.data for item in sent] == [{"n": 1}]


def test_broken_lines_are_left_out_on_request(fn, sent, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join([b'{"n": 1}\n', b"\xff\n" * 7, b'{"n": 9}\n']))
    said = fn("send", "battery-alert", "--recording", path, "--skip-bad")
    assert said.status == 0
    assert [item.data for item in sent] == [{"n": 1}, {"n": 9}]
    assert said.err.count("left out") == 6
    assert "left out 7 broken lines in all" in said.err


def test_the_reply_of_an_http_trigger_is_the_result(fn, node):
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers[SEND] = Lines(
        [SendLine(sent=1, finished=True, reply={"status": 200, "headers": {}, "body": {"a": 1}})]
    )
    said = fn("send", "battery-alert", "--trigger", "show", "--data", "1")
    assert (said.status, said.out) == (0, '{"a":1}\n')
    assert "HTTP 200" in said.err
    node.answers[SEND] = Lines([SendLine(sent=1, finished=True, reply={"status": 422, "headers": {}, "body": "no"})])
    assert fn("send", "battery-alert", "--trigger", "show", "--data", "1").status == 1


def test_a_refusal_while_sending_says_how_many_went(fn, node):
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers[SEND] = Lines([SendLine(sent=5), SendLine(sent=7, refusal=Refusal("broker gone", "start it"))])
    said = fn("send", "battery-alert", "--data", "1")
    assert said.status == 1
    assert "Error: broker gone (7 were sent)\n\nHint: start it" in said.err


def test_an_answer_without_its_end_is_a_failure(fn, node):
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers[SEND] = Lines([SendLine(sent=5)])
    said = fn("send", "battery-alert", "--data", "1")
    assert said.status == 1
    assert "at least 5 were sent" in said.err


def test_progress_that_stands_still_is_told_with_where_to_look(fn, node, monkeypatch):
    monkeypatch.setattr(sending, "STILL", 0.0)
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers[SEND] = Lines([SendLine(sent=5, lag=5)] * 3 + [SendLine(sent=6, finished=True)])
    said = fn("send", "battery-alert", "--data", "1")
    assert said.err.count("Warning: nothing moves") == 1
    assert "fn describe battery-alert" in said.err


@pytest.fixture
def stdin(monkeypatch):
    """These bytes come on stdin."""
    return lambda content: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_an_event_on_stdin_is_sent_without_being_asked_for(fn, sent, stdin):
    stdin(b'{"specversion":"1.0","id":"7","source":"s","type":"t","partitionkey":"V1","data":1}\n')
    assert fn("send", "battery-alert").status == 0
    assert [(item.event or {})["partitionkey"] for item in sent] == ["V1"]


def test_a_topic_goes_with_every_event(fn, sent):
    assert fn("send", "battery-alert", "--data", "1", "--count", "2", "--topic", "a/b").status == 0
    assert [item.topic for item in sent] == ["a/b", "a/b"]


def test_nothing_is_sent_to_a_clock(fn, node):
    clock = TriggerStatus(name="nightly", kind="cron", where="cron @daily UTC")
    node.answers["GET", "/v1/functions/trips"] = msgspec.structs.replace(STATUS, name="trips", triggers=[clock])
    said = fn("send", "trips", "--data", "1")
    assert (said.status, "Fire it: fn trigger fire trips nightly" in said.err) == (2, True)


def test_nothing_to_send_is_wrong_usage(fn, sent, stdin):
    stdin(b"")
    assert fn("send", "battery-alert").status == 2
    assert fn("send", "battery-alert", "--recording", "r", "--data", "1").status == 2
    assert fn("send", "battery-alert", "--trigger", "nope", "--data", "1").status == 1
    assert sent == []


def test_several_triggers_that_could_be_meant_must_be_told_apart():
    other = msgspec.structs.replace(TELEMETRY, name="other")
    status = msgspec.structs.replace(STATUS, triggers=[TELEMETRY, other, SHOW])
    with pytest.raises(UsageError) as caught:
        sending.choose(status, None)
    assert "telemetry, other, show" in caught.value.hint
    assert sending.choose(status, "other") is other


def test_recordings_know_three_forms_of_a_line():
    lines = [
        b'{"specversion": "1.0", "id": "1", "data": 5}',
        b'{"key": "V1", "data": {"a": 1}, "headers": {"h": "x"}}',
        b'{"data": 1, "speed": 2}',
        b'"text"',
    ]
    items = list(payloads.recording(io.BytesIO(b"\n".join(lines)), "r", key=None))
    assert items == [
        SendItem(event={"specversion": "1.0", "id": "1", "data": 5}),
        SendItem(key="V1", data={"a": 1}, headers={"h": "x"}),
        SendItem(data={"data": 1, "speed": 2}),
        SendItem(data="text"),
    ]


def test_a_rate_is_kept_by_the_clock_and_a_late_item_caught_up_with():
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(round(seconds, 3))
        now[0] += seconds

    taken = []
    for item in pacing.paced(range(5), 10, clock=lambda: now[0], sleep=sleep):
        taken.append((item, round(now[0] - 100, 3)))
        if item == 1:
            now[0] += 0.25  # a slow one
    assert taken == [(0, 0), (1, 0.1), (2, 0.35), (3, 0.35), (4, 0.4)]
    assert slept == [0.1, 0.05]


@pytest.mark.parametrize(("text", "rate"), [("100/s", 100), ("5", 5), ("6/m", 0.1), ("0.5/s", 0.5)])
def test_rates(text, rate):
    assert durations.per_second(text, "--rate") == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0", "-1/s", "x/s", "1/y", "nan", "inf/s"])
def test_rates_that_are_none(text):
    with pytest.raises(UsageError):
        durations.per_second(text, "--rate")
