"""Trips out of frames, and a day's report out of trips."""

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fleetfn import Tick, testing
from handler import Frame, Trip, Trips
from page import night_hours

FUNCTION = Path(__file__).parents[1]
START = datetime(2026, 1, 5, 8, tzinfo=UTC)
NIGHTLY = Tick(at=datetime(2026, 1, 6, 2, 30, tzinfo=UTC))


@pytest.fixture
def run():
    return testing.Function(FUNCTION, trigger="telemetry", key="V1")


@pytest.fixture
def report(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIP_REPORTS", str(tmp_path))
    made = testing.Function(FUNCTION, trigger="daily")
    made.store = run.store
    return made


def frame(second, *, speed=36.0, odometer=None, power=10.0, brake=0.0, vehicle="V1", start=START):
    """At 36 km/h a car makes 10 m a second."""
    went = second / 100 if odometer is None else odometer
    return Frame(vehicle, start + timedelta(seconds=second), speed, went, power, brake, "model-3")


def drive(run, seconds, **what):
    for second in seconds:
        result = run(frame(second, **what))
    return result.state


def test_a_drive_is_one_trip_with_distance_and_energy(run):
    book = drive(run, range(0, 601, 10))
    (trip,) = book.trips
    assert trip.distance == pytest.approx(6.0)
    assert trip.energy == pytest.approx(10 * 600 / 3600)
    assert sum(trip.hours.values()) == 600


def test_a_gap_begins_another_trip(run):
    book = drive(run, [*range(0, 101, 10), *range(1000, 1101, 10)])
    assert [round(trip.distance, 2) for trip in book.trips] == [1.0, 1.0]


def test_a_lost_frame_costs_no_distance(run):
    assert drive(run, [0, 10, 200]).trips[0].distance == pytest.approx(2.0)


def test_a_frame_that_comes_late_or_twice_is_left_out(run):
    drive(run, [0, 10, 20])
    book = drive(run, [10, 20])
    assert book.late == 2
    assert book.trips[0].distance == pytest.approx(0.2)


def test_an_odometer_that_was_replaced_adds_nothing(run):
    drive(run, [0, 10])
    run(frame(20, odometer=90_000.0))
    assert drive(run, [30], odometer=90_000.1).trips[0].distance == pytest.approx(0.2)


def test_harsh_braking_and_standstill_are_counted(run):
    drive(run, [0, 10], brake=3.2)
    book = drive(run, range(20, 81, 10), speed=0.0, odometer=0.1)
    assert book.trips[0].harsh == 1
    assert book.trips[0].standing == 60


def test_old_trips_are_forgotten(run):
    drive(run, [0, 10])
    book = drive(run, [0, 10], start=START + timedelta(days=40))
    assert len(book.trips) == 1


def test_the_report_is_of_the_day_before(run, report, tmp_path):
    drive(run, range(0, 3601, 10))
    drive(run, range(7200, 9001, 10))
    drive(run, range(0, 601, 10), start=START + timedelta(days=1))
    fleet = report(NIGHTLY).returned
    assert (fleet.day.isoformat(), len(fleet.cars), fleet.cars[0].trips) == ("2026-01-05", 1, 2)
    assert fleet.cars[0].longest_stop == 3600
    assert fleet.distance == pytest.approx(54.0)
    assert fleet.per_100_km == pytest.approx((10 * 5400 / 3600) / 54 * 100, rel=0.01)
    assert json.loads((tmp_path / "fleet-2026-01-05.json").read_text())["distance"] == fleet.distance


def test_every_vehicle_is_in_it(run, report):
    for number in range(30):
        run.put(Trips(trips=[Trip(START.timestamp(), START.timestamp() + 60, distance=number)]), key=f"V{number:02}")
    fleet = report(NIGHTLY).returned
    assert [car.distance for car in fleet.cars] == list(range(29, -1, -1))


def test_a_rerun_writes_the_same_day_again(run, report, tmp_path):
    drive(run, range(0, 601, 10))
    report(NIGHTLY)
    before = (tmp_path / "fleet-2026-01-05.html").read_text()
    report(NIGHTLY)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fleet-2026-01-05.html", "fleet-2026-01-05.json"]
    assert (tmp_path / "fleet-2026-01-05.html").read_text() == before
    drive(run, range(610, 1201, 10))
    report(NIGHTLY)
    assert (tmp_path / "fleet-2026-01-05.html").read_text() != before


def test_a_day_on_which_nobody_drove_is_a_page_too(report, tmp_path):
    assert report(NIGHTLY).returned.cars == []
    assert "0 cars drove" in (tmp_path / "fleet-2026-01-05.html").read_text()


class Outside(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, value) for name, value in attrs if name in ("src", "href")]
        assert tag != "script"


def test_the_page_needs_nothing_but_itself(run, report, tmp_path):
    run.put(Trips(trips=[Trip(START.timestamp(), START.timestamp() + 60, distance=9)]), key="<b>&")
    report(NIGHTLY)
    text = (tmp_path / "fleet-2026-01-05.html").read_text()
    page = Outside()
    page.feed(text)
    assert page.found == []
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_night_goes_over_midnight():
    assert night_hours((22, 6)) == [0, 1, 2, 3, 4, 5, 22, 23]
    assert night_hours((0, 5)) == [0, 1, 2, 3, 4]


def test_a_car_can_be_asked_for(run):
    asked = testing.Function(FUNCTION, trigger="show", key="V1")
    assert asked.http("GET", "/trips/V1").reply.status == 404
    asked.store = run.store
    drive(run, [0, 10])
    assert b'"distance":0.1' in asked.http("GET", "/trips/V1").reply.body
