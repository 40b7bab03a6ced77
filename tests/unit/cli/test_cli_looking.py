import json

import msgspec
import pytest
from fake_node import Lines
from fleetfn_cli import describing, loglines
from fleetfn_spec.control import FunctionStatus
from samples_of_control import NOW, SHOW, STATUS, TELEMETRY


def plain(text, _colour):
    return text


def test_list_is_a_table_or_data(fn, node):
    node.answers["GET", "/v1/functions"] = [STATUS]
    said = fn("list")
    assert (said.status, said.err) == (0, "")
    header, line = said.out.splitlines()
    assert header.split()[:5] == ["NAME", "PHASE", "REVISION", "WORKERS", "DONE"]
    assert line.split()[:6] == ["battery-alert", "running", "2", "a1b2c3d4e5f6", "1", "120"]
    assert msgspec.json.decode(fn("list", "-o", "json").out, type=list[FunctionStatus]) == [STATUS]


def test_an_empty_list_says_how_to_fill_it(fn, node):
    node.answers["GET", "/v1/functions"] = []
    said = fn("list")
    assert (said.status, said.out) == (0, "")
    assert "fn deploy FOLDER" in said.err
    assert json.loads(fn("list", "-o", "json").out) == []


def test_describe_shows_all_on_one_screen():
    page = describing.page(STATUS, NOW, plain)
    assert page == (
        "battery-alert  running: 1 worker serves\n"
        "revision 2 a1b2c3d4e5f6, deployed 2 h ago, environment local\n"
        "\n"
        "Triggers\n"
        "  telemetry  kafka topic vehicle.telemetry (embedded)     backlog 12\n"
        "  show       GET http://127.0.0.1:8080/battery/{vehicle}\n"
        "\n"
        "Workers\n"
        "  pid 99  ready  3 in flight  45 MB  since 5.0 s\n"
        "\n"
        "Since its first deploy\n"
        "  120 done, 2 retried, 0 rejected, 7 emitted, 1 cold start, 1 dead letter kept\n"
        "  last woken 5.0 s ago, ready after 43 ms\n"
        "\n"
        "Last error 30 s ago\n"
        "  ValueError: no cell\n"
        "\n"
        "Next  fn dlq list battery-alert"
    )


def with_trigger(**changes):
    return msgspec.structs.replace(STATUS, triggers=[msgspec.structs.replace(TELEMETRY, **changes), SHOW])


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (msgspec.structs.replace(STATUS, phase="backing-off"), "fn logs battery-alert --level error"),
        (with_trigger(paused=True), "fn resume battery-alert"),
        (STATUS, "fn dlq list battery-alert"),
        (msgspec.structs.replace(STATUS, dead_letters=0), "fn logs battery-alert --level warning"),
        (msgspec.structs.replace(STATUS, dead_letters=0, last_error=""), ""),
    ],
    ids=["backing-off", "paused", "dead letters", "last error", "well"],
)
def test_describe_names_the_step_that_helps_most(status, step):
    assert describing.next_step(status) == step


def test_describe_shows_problems_and_pauses_of_triggers():
    page = describing.page(with_trigger(paused=True, problem="broker unreachable since 12:00:03"), NOW, plain)
    assert "paused, backlog 12" in page
    assert "! telemetry: broker unreachable since 12:00:03" in page


def test_a_sleeping_function_says_that_it_costs_nothing():
    page = describing.page(msgspec.structs.replace(STATUS, phase="sleeping", workers=[]), NOW, plain)
    assert "none: it costs nothing until an event arrives" in page


def test_hints_name_the_node_that_was_asked(fn, node, monkeypatch):
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    assert "fn dlq list battery-alert\n" in fn("describe", "battery-alert").out


LINE = {
    "time": "2026-01-05T08:00:01.234Z",
    "level": "warning",
    "message": "cell spread",
    "function": "battery-alert",
    "revision": "a1b2c3d4e5f6",
    "invocation": "i1",
    "trigger": "telemetry",
    "key_hash": "99aa",
    "attempt": 2,
}
ERROR = {
    "time": "2026-01-05T08:00:02.000Z",
    "level": "error",
    "message": "failed",
    "exception": "ValueError: no cell",
    "traceback": "Traceback ...\nValueError: no cell\n",
    "revision": "bbbb",
    "invocation": "i2",
}


@pytest.fixture
def log(node):
    node.answers["GET", "/v1/functions/battery-alert/logs"] = Lines([LINE, ERROR])
    return node


def test_log_lines_for_people(fn, log):
    said = fn("logs", "battery-alert")
    first, second, *trace = said.out.splitlines()
    assert "WARNING cell spread  trigger=telemetry attempt=2 key=99aa invocation=i1" in first
    assert "ERROR   failed: ValueError: no cell" in second
    assert trace == ["    Traceback ...", "    ValueError: no cell"]


def test_log_lines_as_they_are(fn, log):
    assert [json.loads(line) for line in fn("logs", "battery-alert", "-o", "json").out.splitlines()] == [LINE, ERROR]
    assert fn("logs", "battery-alert", "-o", "yaml").out.startswith("---\ntime:")


def test_log_options_reach_the_node(fn, log):
    fn("logs", "battery-alert", "-f", "--since", "10m", "--level", "warning", "--key", "V1")
    query = log.last().query
    assert (query["follow"], query["level"], query["key"]) == ("true", "warning", "V1")
    assert float(query["since"]) > 0


def test_revision_and_invocation_are_filtered_here(fn, log):
    assert "failed" in fn("logs", "battery-alert", "--invocation", "i2").out
    assert "cell spread" not in fn("logs", "battery-alert", "--revision", "bb").out


def test_no_log_lines_are_said_to_be_none(fn, node):
    node.answers["GET", "/v1/functions/battery-alert/logs"] = Lines([])
    said = fn("logs", "battery-alert", "--level", "error")
    assert (said.status, said.out) == (0, "")
    assert "No log lines that fit" in said.err


def test_a_bad_duration_is_wrong_usage(fn, node):
    said = fn("logs", "battery-alert", "--since", "soon")
    assert said.status == 2
    assert '"soon"' in said.err


def test_a_line_that_is_no_json_is_shown_all_the_same():
    assert loglines.text(b"Segmentation fault\n", plain).strip().endswith("Segmentation fault")


def test_describe_shows_what_waits_is_held_and_fires():
    page = describing.page(
        with_trigger(
            backlog=None, waiting=1200, held=3, parked=1, in_flight=8, dead=2, oldest=NOW - 180, next_due=NOW + 20
        ),
        NOW,
        plain,
    )
    assert (
        "1,200 waiting (oldest for 3 min, next in 20 s), 3 keys held (1 behind a dead letter), "
        "8 in flight, 2 dead letters"
    ) in page
    clock = with_trigger(backlog=None, kind="cron", last_fire=NOW - 60, next_fire=NOW + 86_400)
    assert "last fired 1 min ago, fires in 1 d (20" in describing.page(clock, NOW, plain)
    due = with_trigger(backlog=None, waiting=1, next_fire=NOW - 1)
    assert "1 waiting, fires now" in describing.page(due, NOW, plain)


def test_problems_of_the_gateway_are_told_once(fn, node):
    away = msgspec.structs.replace(STATUS, problems=["the gateway was killed"])
    assert "! the gateway was killed" in describing.page(away, NOW, plain)
    node.answers["GET", "/v1/functions"] = [away, msgspec.structs.replace(away, name="other")]
    assert fn("list").err == "Warning: the gateway was killed\n"
