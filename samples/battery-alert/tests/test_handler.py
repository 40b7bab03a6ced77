"""The rules of battery-alert, one by one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleetfn import testing
from handler import Reading

FUNCTION = Path(__file__).parents[1]
START = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture
def run():
    return testing.Function(FUNCTION, key="V1")


def frame(second, *, temperature=25.0, low=3.9, high=3.91, current=20.0, resent=False):
    return Reading("V1", START + timedelta(seconds=second), temperature, high, low, current, resent)


def alerts(run, frames):
    return [(emit.data["level"], emit.data["reason"]) for each in frames for emit in run(each).emits]


def test_a_healthy_drive_raises_nothing(run):
    assert alerts(run, [frame(second, temperature=25 + second / 100) for second in range(120)]) == []


def test_over_temperature_alarms_once(run):
    found = alerts(run, [frame(0)] + [frame(60 * n, temperature=61) for n in range(1, 10)])
    assert found == [(2, "over temperature: 61.0 degrees Celsius")]


def test_a_worse_alarm_is_told_a_milder_one_is_not(run):
    climb = [frame(10 * n, temperature=min(25 + n, 62)) for n in range(60)]
    fall = [frame(1000 + 10 * n, temperature=62 - n) for n in range(10)]
    assert [level for level, _ in alerts(run, climb + fall)] == [1, 2]


def test_fast_rise_above_the_limit_is_runaway(run):
    found = alerts(run, [frame(n, temperature=50 + 1.5 * n) for n in range(20)])
    assert found[-1][0] == 3
    assert "1.5 K/s" in found[-1][1]


def test_a_collapsing_cell_with_a_fast_rise_is_runaway_before_it_is_hot(run):
    calm = [frame(n) for n in range(30)]
    fault = [frame(30 + n, temperature=25 + 1.5 * n, low=2.7) for n in range(5)]
    found = alerts(run, calm + fault)
    assert found[0][0] == 3
    assert "cell voltage collapsed" in found[0][1]


def test_cell_spread_counts_only_near_rest_and_in_a_row(run):
    loaded = [frame(n, low=3.5, current=120) for n in range(10)]
    assert alerts(run, loaded) == []
    resting = [frame(20 + n, low=3.5, current=2) for n in range(3)]
    assert alerts(run, resting) == [(2, "cell spread: 410 mV near rest")]


def test_the_latch_opens_after_a_calm_while_and_not_before(run):
    hot = [frame(0), frame(60, temperature=61)]
    below_hot = [frame(120, temperature=55), frame(130, temperature=61)]
    assert len(alerts(run, hot + below_hot)) == 1
    calm = [frame(200 + 10 * n, temperature=45) for n in range(8)]
    assert len(alerts(run, [*calm, frame(400, temperature=61)])) == 1


def test_a_resent_frame_is_recorded_and_raises_nothing(run):
    run(frame(100))
    result = run(frame(40, temperature=80, resent=True))
    assert result.emits == []
    assert result.state.late == 1
    assert alerts(run, [frame(50, temperature=80)]) == []


def test_a_broken_probe_is_counted_and_raises_nothing(run):
    run(frame(0))
    result = run(frame(1, temperature=210))
    assert result.emits == []
    assert result.state.probe_faults == 1


def test_a_probe_that_jumped_is_not_believed_until_it_is_back(run):
    run(frame(0))
    jumped = [frame(10 * n, temperature=120) for n in range(1, 30)]
    assert alerts(run, jumped) == []
    assert alerts(run, [frame(300, temperature=26), frame(360, temperature=61)]) == [
        (2, "over temperature: 61.0 degrees Celsius")
    ]


def test_a_jump_with_a_collapsing_cell_is_believed(run):
    found = alerts(run, [frame(0), frame(1), frame(2, temperature=80, low=2.0)])
    assert found[0][0] == 3


def test_a_vehicle_can_be_asked_for(run):
    asked = testing.Function(FUNCTION, trigger="show", key="V1")
    assert asked.http("GET", "/battery/V1").reply.status == 404
    asked.store = run.store
    run(frame(0, temperature=30))
    assert b'"hottest":30.0' in asked.http("GET", "/battery/V1").reply.body
