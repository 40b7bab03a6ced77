"""pause, resume, state, dlq: what is held and kept."""

import io
import json

import msgspec
import pytest
from fake_node import Refused
from fleetfn_spec.control import StateEntry, StatePage, TriggerStatus
from fleetfn_spec.gateway import Fired
from fleetfn_triggers.inbox import Row
from samples_of_control import NOW, ROW, SHOW, STATUS


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def answer(monkeypatch):
    """Somebody at the terminal types this."""
    return lambda text: monkeypatch.setattr("sys.stdin", Terminal(text))


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_name_triggers(fn, node, verb):
    node.answers["POST", f"/v1/functions/battery-alert/{verb}"] = STATUS
    said = fn(verb, "battery-alert", "--trigger", "telemetry")
    assert said.status == 0
    assert said.out == "telemetry: takes events\nshow: takes events\n"
    assert node.last().json() == {"triggers": ["telemetry"]}
    fn(verb, "battery-alert")
    assert node.last().json() == {"triggers": []}


def test_state_list_walks_pages_up_to_its_limit(fn, node):
    def page(asked):
        after, limit = asked.query.get("after"), int(asked.query["limit"])
        keys = [f"V{n}" for n in range(1, 8) if after is None or f"V{n}" > after][: min(3, limit)]
        return StatePage(keys=keys, after=keys[-1] if keys and keys[-1] != "V7" else None)

    node.answers["GET", "/v1/functions/f/state"] = page
    assert fn("state", "list", "f").out.split() == [f"V{n}" for n in range(1, 8)]
    said = fn("state", "list", "f", "--limit", "4")
    assert said.out.split() == ["V1", "V2", "V3", "V4"]
    assert "--after 'V4'" in said.err
    assert json.loads(fn("state", "list", "f", "--limit", "0", "-o", "json").out)["keys"][-1] == "V7"


def test_an_empty_state_says_how_to_make_some(fn, node):
    node.answers["GET", "/v1/functions/f/state"] = StatePage(keys=[])
    said = fn("state", "list", "f")
    assert (said.status, said.out) == (0, "")
    assert "State[T]" in said.err


def test_state_get_prints_the_value_and_remarks_apart(fn, node):
    node.answers["GET", "/v1/functions/f/state/V/1"] = StateEntry(key="V/1", value={"a": 1}, unsent=2)
    said = fn("state", "get", "f", "V/1")
    assert json.loads(said.out) == {"a": 1}
    assert "2 emitted events are not published yet" in said.err
    node.answers["GET", "/v1/functions/f/state/V/1"] = Refused(
        404, "f keeps nothing of key 'V/1'", "list the keys it has"
    )
    said = fn("state", "get", "f", "V/1")
    assert said.status == 1
    assert "Hint: List the keys it has: fn state list f\n" in said.err


def test_dlq_list_filters_and_names_the_next_step(fn, node):
    node.answers["GET", "/v1/dlq"] = [ROW]
    said = fn("dlq", "list", "battery-alert", "--trigger", "telemetry", "--key", "V1", "--reason", "attempts")
    assert said.out.splitlines()[1].split()[0] == "12"
    assert "ValueError: no cell" in said.out
    assert "fn dlq show 12" in said.err
    assert node.last().query == {
        "function": "battery-alert",
        "trigger": "telemetry",
        "key": "V1",
        "reason": "attempts",
        "limit": "50",
    }
    assert msgspec.json.decode(fn("dlq", "list", "-o", "json").out, type=list[Row]) == [ROW]


def test_no_dead_letters_say_what_would_be_one(fn, node):
    node.answers["GET", "/v1/dlq"] = []
    said = fn("dlq", "list")
    assert (said.status, said.out) == (0, "")
    assert "Reject" in said.err


def test_dlq_show_tells_event_position_and_traceback(fn, node):
    node.answers["GET", "/v1/dlq/12"] = ROW
    out = fn("dlq", "show", "12").out
    for part in ("attempts: ValueError: no cell", "kafka:vehicle.telemetry: partition 0 offset 7", '{"vehicle":"V1"}'):
        assert part in out
    assert "ValueError: no cell at handler.py:7" in out
    assert "  Traceback ..." in out
    assert msgspec.json.decode(fn("dlq", "show", "12", "-o", "json").out, type=Row) == ROW


def test_dlq_show_gives_the_event_to_send_again_with_its_key(fn, node):
    node.answers["GET", "/v1/dlq/12"] = ROW
    said = fn("dlq", "show", "12", "-o", "event")
    event = json.loads(said.out)
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", "7", "vehicle.telemetry")
    assert event["partitionkey"] == "V1"
    assert len(said.out.splitlines()) == 1


def test_a_parked_key_shows_what_waits_behind_its_dead_letter(fn, node):
    node.answers["GET", "/v1/dlq/12"] = msgspec.structs.replace(ROW, parked=3)
    assert "3 later events of its key wait behind it" in fn("dlq", "show", "12").out
    node.answers["GET", "/v1/dlq"] = [msgspec.structs.replace(ROW, parked=3)]
    assert "3 wait behind it" in fn("dlq", "list").out


def test_dlq_list_chooses_by_age(fn, node, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    node.answers["GET", "/v1/dlq"] = [ROW, msgspec.structs.replace(ROW, sequence=13, created=NOW - 10)]
    said = fn("dlq", "list", "--newer-than", "1m", "-o", "json")
    assert [row["sequence"] for row in json.loads(said.out)] == [13]
    fn("dlq", "list", "--older-than", "1m")
    assert float(node.last().query["before"]) == NOW - 60


def test_a_choice_that_nothing_fits_says_how_to_see_all(fn, node):
    node.answers["GET", "/v1/dlq"] = []
    said = fn("dlq", "list", "battery-alert", "--reason", "crashed")
    assert (said.status, said.out) == (0, "")
    assert "No dead letter fits. All of them: fn dlq list" in said.err


def test_dlq_redrive_by_number_by_options_or_all(fn, node):
    node.answers["POST", "/v1/dlq/redrive"] = {"redriven": 2}
    assert fn("dlq", "redrive", "12", "13").out == "redriven 2 dead letters\n"
    assert node.last().json()["which"]["sequences"] == [12, 13]
    assert fn("dlq", "redrive", "--key", "V1", "--function", "battery-alert").status == 0
    which = node.last().json()["which"]
    assert (which["key"], which["function"], which["sequences"]) == ("V1", "battery-alert", [])
    assert json.loads(fn("dlq", "redrive", "--all", "-o", "json").out) == {"redriven": 2}
    assert not any(node.last().json()["which"].values())


def test_dlq_redrive_counts_without_doing_and_goes_at_a_rate(fn, node):
    node.answers["POST", "/v1/dlq/redrive"] = {"redriven": 120}
    said = fn("dlq", "redrive", "--all", "--dry-run")
    assert said.out == "would redrive 120 dead letters\n"
    assert node.last().json()["dry_run"] is True
    said = fn("dlq", "redrive", "--all", "--rate", "2/s")
    assert node.last().json()["rate"] == 2.0
    assert "for 1 min" in said.err


def test_numbers_that_are_no_dead_letters_are_told(fn, node):
    node.answers["POST", "/v1/dlq/redrive"] = {"redriven": 1}
    said = fn("dlq", "redrive", "12", "99")
    assert said.status == 0
    assert "Warning: 1 number of those is no dead letter" in said.err


def test_those_younger_than_a_duration_go_by_number(fn, node, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    rows = [msgspec.structs.replace(ROW, sequence=n, created=NOW - n * 60) for n in range(1, 6)]
    node.answers["GET", "/v1/dlq"] = rows
    node.answers["POST", "/v1/dlq/discard"] = {"discarded": 2}
    assert fn("dlq", "discard", "--newer-than", "2m", "--yes").out == "discarded 2 dead letters\n"
    assert node.last().json()["sequences"] == [1, 2]


def test_dlq_discard_asks_and_no_changes_nothing(fn, node, answer):
    answer("n\n")
    said = fn("dlq", "discard", "12", "13")
    assert (said.status, said.out) == (1, "")
    assert "Discard 2 dead letters?" in said.err
    assert "Nothing was changed." in said.err
    assert [asked.method for asked in node.asked] == []


def test_dlq_discard_goes_on_after_yes(fn, node, answer):
    node.answers["POST", "/v1/dlq/discard"] = {"discarded": 2}
    answer("y\n")
    assert fn("dlq", "discard", "12", "13").out == "discarded 2 dead letters\n"
    assert node.last().json()["sequences"] == [12, 13]


def test_dlq_discard_by_options_says_how_many_that_are(fn, node, answer):
    node.answers["POST", "/v1/dlq/redrive"] = {"redriven": 5}
    node.answers["POST", "/v1/dlq/discard"] = {"discarded": 5}
    answer("y\n")
    said = fn("dlq", "discard", "--function", "battery-alert")
    assert (said.status, said.out) == (0, "discarded 5 dead letters\n")
    assert "Discard 5 dead letters?" in said.err
    assert [asked.path for asked in node.asked] == ["/v1/dlq/redrive", "/v1/dlq/discard"]
    assert node.asked[0].json()["dry_run"] is True


@pytest.mark.parametrize("verb", ["discard", "redrive"])
@pytest.mark.parametrize("line", [[], ["12", "--key", "V1"], ["--all", "--key", "V1"], ["12", "--all"]])
def test_dead_letters_are_chosen_in_one_way(fn, node, verb, line):
    assert fn("dlq", verb, *line).status == 2
    assert node.asked == []


def test_nobody_to_answer_is_wrong_usage(fn, node):
    said = fn("dlq", "discard", "12")
    assert said.status == 2
    assert "--yes" in said.err


CLOCK = TriggerStatus(name="nightly", kind="cron", where="cron 30 2 * * * UTC")


@pytest.fixture
def clock(node):
    node.answers["GET", "/v1/functions/trips"] = msgspec.structs.replace(STATUS, name="trips", triggers=[CLOCK, SHOW])
    node.answers["POST", "/v1/functions/trips/fire"] = Fired(sequence=7, id="i", at=NOW)
    return node


def test_a_clock_is_fired_by_hand(fn, clock):
    said = fn("trigger", "fire", "trips", "--at", "2026-03-01T02:30Z")
    assert said.out.startswith("fired trips nightly for ")
    assert clock.last().json() == {"trigger": "nightly", "at": 1772332200.0}
    assert json.loads(fn("trigger", "fire", "trips", "nightly", "-o", "json").out)["sequence"] == 7
    assert clock.last().json()["at"] is None


def test_a_paused_clock_says_when_its_fire_runs(fn, clock):
    paused = msgspec.structs.replace(CLOCK, paused=True)
    clock.answers["GET", "/v1/functions/trips"] = msgspec.structs.replace(STATUS, name="trips", triggers=[paused])
    assert "runs after fn resume trips" in fn("trigger", "fire", "trips").err


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["trips", "show"], 1, "has no cron trigger 'show'"),
        (["trips", "--at", "soon"], 2, "'soon' is no time"),
        (["battery-alert"], 1, "has no cron trigger"),
    ],
    ids=["http", "time", "none"],
)
def test_what_cannot_be_fired_is_told(fn, clock, line, status, said):
    clock.answers["GET", "/v1/functions/battery-alert"] = STATUS
    found = fn("trigger", "fire", *line)
    assert (found.status, said in found.err) == (status, True)
