"""The rules of tyre-pressure, one by one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleetfn import testing
from handler import Message, Wheel

FUNCTION = Path(__file__).parents[1]
START = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture
def run():
    return testing.Function(FUNCTION, key="V1")


def message(minute, fl=250.0, *, others=250.0, temperature=20.0, speed=50.0):
    wheels = {"fl": fl, "fr": others, "rl": others, "rr": others}
    told = {name: Wheel(pressure, None if pressure is None else temperature) for name, pressure in wheels.items()}
    return Message("V1", START + timedelta(minutes=minute), speed, told)


def warnings(run, messages):
    return [(emit.data["wheel"], emit.data["kind"]) for each in messages for emit in run(each).emits]


def test_healthy_tyres_raise_nothing(run):
    assert warnings(run, [message(n) for n in range(60)]) == []


def test_low_is_told_once_and_after_it_stayed_low(run):
    assert warnings(run, [message(0, 187)]) == []
    assert warnings(run, [message(n, 187) for n in range(1, 30)]) == [("fl", "low")]


def test_a_moment_below_the_limit_is_nothing(run):
    assert warnings(run, [message(n / 2, 195 if n % 2 else 187) for n in range(10)]) == []


def test_low_ends_only_above_the_upper_limit(run):
    low = [message(n, 180) for n in range(3)]
    between = [message(10 + n, 205 - 8 * n) for n in range(5)]
    assert warnings(run, low + between) == [("fl", "low")]
    filled = [message(20, 250)]
    assert warnings(run, filled + [message(40 + n, 180) for n in range(3)]) == [("fl", "low")]


def test_a_cold_night_is_no_leak(run):
    """At -20 degrees Celsius a tyre filled to 250 at 20 has 210, which is 84 % of the placard."""
    cold = [message(n, 210, others=210, temperature=-20) for n in range(5)]
    assert warnings(run, cold) == []
    assert run(message(6, 210, others=210, temperature=-20)).state.tyres["fl"].pressure == 250


def test_a_torn_tyre_is_told_before_it_is_low(run):
    assert warnings(run, [message(0), message(1, 222), message(2, 195)]) == [("fl", "fast")]


def test_a_slow_leak_is_told_against_the_other_wheels(run):
    hours = [message(15 * n, 250 - 0.5 * n, others=250.0) for n in range(40)]
    assert warnings(run, hours) == [("fl", "slow")]


def test_weather_that_all_wheels_feel_is_no_leak(run):
    hours = [message(15 * n, 250 - 0.5 * n, others=250 - 0.5 * n) for n in range(40)]
    assert warnings(run, hours) == []


def test_a_tyre_that_was_pumped_up_begins_anew(run):
    leaking = [message(15 * n, 250 - 0.5 * n) for n in range(40)]
    again = [message(15 * (40 + n), 250 - 0.5 * n) for n in range(40)]
    assert warnings(run, leaking + again) == [("fl", "slow"), ("fl", "slow")]


@pytest.mark.parametrize(("unit", "kpa"), [("psi", 6.894757), ("bar", 100.0), ("Pa", 0.001), ("kPa", 1.0)])
def test_another_unit_is_understood(run, unit, kpa):
    low = [message(n, 180 / kpa, others=250 / kpa) for n in range(3)]
    assert warnings(run, low) == [("fl", "low")]
    assert run(message(3, 180 / kpa, others=250 / kpa)).state.unit == unit


def test_pressures_that_no_tyre_has_are_counted_and_judged_by_nobody(run):
    result = run(message(0, 3000.0, others=3000.0))
    assert result.emits == []
    assert result.state.implausible == 1


def test_a_flat_tyre_is_not_taken_for_another_unit(run):
    assert warnings(run, [message(0), *[message(10 + n, 35.0) for n in range(3)]]) == [("fl", "low")]


def test_a_sensor_that_falls_silent_while_driving_is_told_once(run):
    assert warnings(run, [message(n, None) for n in range(60)]) == [("fl", "silent")]


def test_a_sensor_that_sleeps_while_parked_is_no_news(run):
    parked = [message(n, None, others=None, speed=0) for n in range(60)]
    drives = [message(600 * n, None, others=None, speed=30) for n in range(1, 30)]
    assert warnings(run, parked + drives) == []


def test_a_message_from_before_the_last_one_is_counted_and_left_out(run):
    run(message(10))
    result = run(message(5, 100))
    assert result.emits == []
    assert result.state.late == 1


def test_a_vehicle_can_be_asked_for(run):
    asked = testing.Function(FUNCTION, trigger="show", key="V1")
    assert asked.http("GET", "/tyres/V1").reply.status == 404
    asked.store = run.store
    run(message(0))
    assert b'"pressure":250.0' in asked.http("GET", "/tyres/V1").reply.body
