"""The judge of the soak finds what is planted in the record of a run without fault, and names it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from soak.judge.__main__ import faults
from soak.judge.evidence import Evidence, Kill, Letter, Offset, Record
from soak.judge.expected import expected

VEHICLES = ("V0000", "V0001")

ENDS = {"reject": ("rejected", 1), "exit": ("crashed", 3), "bad": ("unreadable", 0), "fail": ("attempts", 6)}
"""How events are given up that are to do so: reason and attempts."""


class Flawless:
    """Makes a small run's evidence as `chains`, `relay` and `audit` would have left it."""

    def __init__(self) -> None:
        self.evidence = Evidence(plan={}, attempts={"k": 6, "x": 3})
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        self._runs = 0
        for topic in ("in", "risky", "raw", "out", "relayed"):
            self.evidence.log[topic] = []
        for number in range(40):
            self._event(number)
        self.evidence.offsets = [Offset("g", "in", 0, self._offsets["in", 0], self._offsets["in", 0])]

    def _event(self, number: int) -> None:
        vehicle = VEHICLES[number % 2]
        source = ("k0", "mqtt", "http", "async", "k1", "x0", "raw", "k0")[number % 8]
        do = {8: "reject", 21: "exit", 16: "flaky1", 17: "bad", 31: "fail"}.get(number, "ok")
        plan = {"id": f"e{number}", "vehicle": vehicle, "source": source, "do": do, "times": 1, "also": ""}
        plan["also"] = {1: "mqtt", 2: "http"}.get(number, "")
        self.evidence.plan[plan["id"]] = plan
        name = self._send(plan)
        if source == "raw":
            self._log("relayed", 0, vehicle, {"of": name, "id": plan["id"]}, f"r/{name}-0")
        elif do in ENDS:
            reason, attempts = ENDS[do]
            data = json.dumps({"id": plan["id"]}).encode()
            self.evidence.letters.append(Letter("chains", source[0], vehicle, reason, attempts, data))
        else:
            self._take(plan, name)

    def _send(self, plan: dict[str, Any]) -> str:
        """What the event is called."""
        id_, source = plan["id"], plan["source"]
        if source == "mqtt":
            self.evidence.sent_mqtt.append(sent(id_, plan["vehicle"]))
        elif source in {"http", "async"}:
            status = 200 if source == "http" else 202
            answer = {"id": id_, "status": status, "body": "", "tries": 1, "duplicate": True}
            self.evidence.answers.append(answer)
        else:
            topic = {"k": "in", "x": "risky", "r": "raw"}[source[0]]
            partition = int(source[1:]) if source != "raw" else 0
            record = self._log(topic, partition, plan["vehicle"], {"id": id_}, None)
            place = {"topic": topic, "partition": partition, "offset": record.offset}
            self.evidence.sent_kafka.append({"id": id_, **place})
            return record.place
        return str(id_)

    def _take(self, plan: dict[str, Any], name: str) -> None:
        vehicle, source = plan["vehicle"], plan["source"]
        empty = {"all": {"n": 0, "hash": ""}, "sources": {}}
        state = self.evidence.chains.setdefault(vehicle, empty)
        chain = state["sources"].setdefault(source, {"n": 0, "hash": ""})
        extend(chain, plan["id"])
        extend(state["all"], f"{source}/{plan['id']}")
        self._runs += 1
        link = {"vehicle": vehicle, "id": plan["id"], "of": name, "source": source, **chain, "run": f"run-{self._runs}"}
        link |= {"at": state["all"]["n"], "all": state["all"]["hash"]}
        self.tell(vehicle, link, f"chains/{name}-0")
        if plan["also"]:
            received = self.evidence.out_mqtt if plan["also"] == "mqtt" else self.evidence.out_http
            received.append({"id": f"chains/{name}-1", "data": json.dumps(link)})

    def tell(self, vehicle: str, link: dict[str, Any], id_: str) -> None:
        self._log("out", 0, vehicle, link, id_)
        extend(self.evidence.audit.setdefault(vehicle, {"n": 0, "hash": ""}), link["id"])

    def _log(self, topic: str, partition: int, key: str, value: dict[str, Any], id_: str | None) -> Record:
        offset = self._offsets[topic, partition]
        self._offsets[topic, partition] += 1
        record = Record(topic, partition, offset, key, id_, json.dumps(value).encode())
        self.evidence.log[topic].append(record)
        return record


def sent(id_: str, vehicle: str) -> dict[str, Any]:
    """Acknowledged by the MQTT broker a minute after the start, which is when everything was."""
    return {"id": id_, "vehicle": vehicle, "sends": 1, "acked": True, "began": 60.0, "ended": 60.0}


def extend(chain: dict[str, Any], what: str) -> None:
    chain["n"] += 1
    chain["hash"] = hashlib.sha256((chain["hash"] + what).encode()).hexdigest()[:16]


@pytest.fixture
def flawless() -> Flawless:
    return Flawless()


@pytest.fixture
def run(flawless: Flawless) -> Evidence:
    return flawless.evidence


def found(evidence: Evidence) -> str:
    return "\n".join(faults(evidence, expected(evidence)))


def told(evidence: Evidence, id_: str) -> int:
    """The place of an event's emit in the log of the output."""
    return next(at for at, one in enumerate(evidence.log["out"]) if json.loads(one.value)["id"] == id_)


def retell(evidence: Evidence) -> None:
    """The function behind took what there is now, and no more is to be found there."""
    evidence.audit.clear()
    for record in evidence.log["out"]:
        extend(evidence.audit.setdefault(record.key, {"n": 0, "hash": ""}), json.loads(record.value)["id"])


def test_a_run_without_fault_has_none(run: Evidence) -> None:
    assert found(run) == ""


def test_a_repeat_under_its_own_id_is_no_fault(run: Evidence) -> None:
    run.log["out"].append(replace(run.log["out"][0], offset=100))
    retell(run)
    assert found(run) == ""


def test_an_event_that_was_lost_is_named(run: Evidence) -> None:
    """Its state, emits and offsets are as if it had never been there: only its source tells."""
    record = Record("in", 0, 50, "V0000", None, b'{"id": "e99"}')
    run.log["in"].append(record)
    run.sent_kafka.append({"id": "e99", "topic": "in", "partition": 0, "offset": 50})
    run.plan["e99"] = {"id": "e99", "vehicle": "V0000", "source": "k0", "do": "ok", "times": 1, "also": ""}
    assert found(run) == "V0000, source k0: e99 (in/0/50) was lost: 0 times instead of 1"


@pytest.mark.parametrize("source", ["mqtt", "async"])
def test_an_acknowledged_message_that_was_lost_is_named(run: Evidence, source: str) -> None:
    run.plan["e99"] = {"id": "e99", "vehicle": "V0001", "source": source, "do": "ok", "times": 1, "also": ""}
    if source == "mqtt":
        run.sent_mqtt.append(sent("e99", "V0001"))
    else:
        run.answers.append({"id": "e99", "status": 202, "body": "", "tries": 1, "duplicate": False})
    assert f"V0001, source {source}: e99 (e99) was lost: 0 times instead of 1" in found(run)


def test_a_message_without_acknowledgement_may_be_lost_but_the_plan_is_not_carried_out(run: Evidence) -> None:
    run.plan["e99"] = {"id": "e99", "vehicle": "V0001", "source": "mqtt", "do": "ok", "times": 1, "also": ""}
    run.sent_mqtt.append(sent("e99", "V0001") | {"acked": False})
    assert found(run) == "e99: the MQTT broker acknowledged it 0 times of 1"


@pytest.mark.parametrize(("saved", "claimed"), [(59.0, 0), (61.0, 1)])
def test_what_a_killed_broker_acknowledged_and_had_not_saved_is_not_claimed(
    run: Evidence, saved: float, claimed: int
) -> None:
    run.plan["e99"] = {"id": "e99", "vehicle": "V0001", "source": "mqtt", "do": "ok", "times": 1, "also": ""}
    run.sent_mqtt.append(sent("e99", "V0001"))
    run.kills.append(Kill(saved, saved + 2))
    assert found(run).count("V0001, source mqtt: e99 (e99) was lost") == claimed


def test_a_swapped_order_is_found(run: Evidence) -> None:
    """Two records of one vehicle and partition lie in the log the other way round than they were taken."""
    mine = [at for at, one in enumerate(run.log["in"]) if one.partition == 0 and one.key == "V0000"]
    first, second = mine[2], mine[3]  # between them lies none that was rejected
    values = run.log["in"][first].value, run.log["in"][second].value
    for at, value in zip((second, first), values, strict=True):
        run.log["in"][at] = replace(run.log["in"][at], value=value)
    one, other = (json.loads(value)["id"] for value in values)
    for each in run.sent_kafka:
        each["id"] = {one: other, other: one}.get(each["id"], each["id"])
    swapped = {run.log["in"][at].place for at in (first, second)}
    for at, record in enumerate(run.log["out"]):
        link = json.loads(record.value)
        if link["of"] in swapped:
            link["of"] = (swapped - {link["of"]}).pop()
            run.log["out"][at] = replace(record, value=json.dumps(link).encode())
    assert "V0000, source k0: order is broken" in found(run)


def test_a_state_to_which_an_event_was_applied_twice_is_found(run: Evidence) -> None:
    state = run.chains["V0000"]
    extend(state["sources"]["k0"], "e32")
    extend(state["all"], "k0/e32")
    assert "V0000: its state is not that of a serial replay: stored" in found(run)
    assert "sources that differ: k0" in found(run)


def test_an_event_that_was_taken_twice_and_told_so_is_found(flawless: Flawless) -> None:
    run = flawless.evidence
    state = run.chains["V0001"]
    chain = state["sources"]["mqtt"]
    extend(chain, "e33")
    extend(state["all"], "mqtt/e33")
    link = {"vehicle": "V0001", "id": "e33", "of": "again", "source": "mqtt", **chain, "run": "run-x"}
    flawless.tell("V0001", link | {"at": state["all"]["n"], "all": state["all"]["hash"]}, "chains/again-0")
    assert "V0001, source mqtt: e33 (e33) was taken too often: 2 times instead of 1" in found(run)


def test_a_missing_emit_is_found(run: Evidence) -> None:
    del run.log["out"][told(run, "e16")]
    retell(run)
    assert "V0000: link 6 was never told: an emit is missing between" in found(run)


def test_a_missing_emit_at_the_end_of_a_history_is_found(run: Evidence) -> None:
    del run.log["out"][told(run, "e39")]
    retell(run)
    assert "V0001: its state is not that of a serial replay" in found(run)


def test_a_repeat_under_another_id_is_found(run: Evidence) -> None:
    run.log["out"].append(replace(run.log["out"][0], offset=100, id="another"))
    retell(run)
    assert "V0000: link 1 (k0/e0 n=1 run run-1) was told under two ids, chains/in/0/0-0 and another" in found(run)


def test_two_emits_under_one_id_are_found(run: Evidence) -> None:
    run.log["out"][told(run, "e16")] = replace(run.log["out"][told(run, "e16")], id="chains/in/0/0-0")
    assert "were told under one id, chains/in/0/0-0" in found(run)


def test_an_emit_of_a_run_that_was_never_saved_is_found(run: Evidence) -> None:
    first = run.log["out"][0]
    link = json.loads(first.value) | {"run": "run-before-the-kill"}
    run.log["out"].insert(0, replace(first, value=json.dumps(link).encode(), offset=99))
    retell(run)
    assert "V0000: link 1 was told twice and differently" in found(run)


def test_emits_out_of_order_are_found(run: Evidence) -> None:
    log = run.log["out"]
    mine = [at for at, record in enumerate(log) if record.key == "V0000"]
    log[mine[2]], log[mine[3]] = log[mine[3]], log[mine[2]]
    retell(run)
    assert "was first told after link 4" in found(run)


@pytest.mark.parametrize("output", ["mqtt", "http"])
def test_an_emit_that_another_output_lacks_is_found(run: Evidence, output: str) -> None:
    (run.out_mqtt if output == "mqtt" else run.out_http).clear()
    assert f"was not told to output {output}" in found(run)


def test_a_repeat_to_another_output_under_another_id_is_found(run: Evidence) -> None:
    run.out_mqtt.append(run.out_mqtt[0] | {"id": "another"})
    assert "output mqtt was told the same under several ids" in found(run)


def test_a_missing_dead_letter_is_found(run: Evidence) -> None:
    run.letters = [letter for letter in run.letters if letter.reason != "crashed"]
    assert found(run) == "V0001 e21 (x0, to exit): 0 dead letters instead of 1"


def test_a_second_dead_letter_of_one_event_is_found(run: Evidence) -> None:
    run.letters.append(copy.copy(run.letters[0]))
    assert found(run) == "V0000 e8 (k0, to reject): 2 dead letters instead of 1"


def test_a_dead_letter_that_nobody_planned_is_found(run: Evidence) -> None:
    run.letters.append(Letter("chains", "k", "V0000", "attempts", 6, b'{"id": "e0"}'))
    assert "V0000 e0: a dead letter that nobody planned (chains/k, attempts, 6 attempts)" in found(run)


def test_a_worker_may_be_killed_in_the_last_attempt_of_an_event_that_fails(run: Evidence) -> None:
    def ended(reason: str, attempts: int) -> str:
        letters = [letter for letter in run.letters if letter.data != b'{"id": "e31"}']
        run.letters = [*letters, Letter("chains", "k", "V0001", reason, attempts, b'{"id": "e31"}')]
        return found(run)

    assert ended("crashed", 6) == ""
    assert ended("crashed", 5) == "V0001 e31 (k0, to fail): given up after 5 attempts instead of 6"
    assert ended("rejected", 6) == "V0001 e31 (k0, to fail): its dead letter says 'rejected' instead of 'attempts'"


def test_an_event_that_was_given_up_too_soon_is_found(run: Evidence) -> None:
    run.letters = [replace(one, attempts=2) if one.reason == "crashed" else one for one in run.letters]
    assert found(run) == "V0001 e21 (x0, to exit): given up after 2 attempts instead of 3"


def test_what_still_waits_is_found(run: Evidence) -> None:
    run.waiting.append("V0000: an event waits")
    run.unsent.append("V0001 holds emits")
    run.offsets.append(Offset("g", "in", 1, 4, 5))
    assert found(run).splitlines()[-3:] == [
        "V0000: an event waits",
        "V0001 holds emits",
        "g: partition 1 of in is committed up to 4 of 5",
    ]


def test_what_was_not_relayed_is_found(run: Evidence) -> None:
    del run.log["relayed"][0]
    assert found(run) == "V0000: e6 (raw/0/0) was not relayed"


def test_what_the_function_behind_did_not_take_is_found(run: Evidence) -> None:
    run.audit["V0000"]["n"] -= 1
    assert "V0000: audit holds" in found(run)
