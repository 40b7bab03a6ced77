from __future__ import annotations

import pytest
from fleetfn_runtime.metrics import DURATIONS, Distribution, Metrics, Reading
from fleetfn_spec.control import Counters
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def metrics() -> Metrics:
    depth = [3]
    metrics = Metrics(
        "battery-alert",
        readings=(
            Reading("lane_depth", "Deliveries that wait.", lambda: depth[0]),
            Reading("store_commits", "Group commits.", lambda: 7, counts=True),
        ),
    )
    metrics.done("telemetry", [0.0004], age=2.0)
    metrics.done("telemetry", [0.02])
    metrics.done("show", [100.0])
    metrics.duplicate("telemetry")
    metrics.retried("telemetry")
    metrics.rejected("telemetry")
    metrics.dead("telemetry")
    metrics.emitted("alerts")
    metrics.emitted("alerts")
    metrics.cold_start = 0.05
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values except the function) -> value."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("function") == "battery-alert"
            found[(sample.name, *(labels[name] for name in sorted(labels)))] = sample.value
    return found


def test_what_was_counted_is_shown_with_few_labels(metrics: Metrics) -> None:
    found = samples(metrics)
    assert found["fleetfn_invocations_total", "done", "telemetry"] == 2
    assert found["fleetfn_invocations_total", "retry", "telemetry"] == 1
    assert found["fleetfn_invocations_total", "reject", "telemetry"] == 1
    assert found["fleetfn_invocations_total", "done", "show"] == 1
    assert found["fleetfn_duplicates_total", "telemetry"] == 1
    assert found["fleetfn_dead_letters_total", "telemetry"] == 1
    assert found["fleetfn_emits_total", "alerts"] == 2
    assert found["fleetfn_lane_depth",] == 3
    assert found["fleetfn_store_commits_total",] == 7
    assert found["fleetfn_cold_start_seconds",] == 0.05


def test_histograms_are_cumulative(metrics: Metrics) -> None:
    found = samples(metrics)
    bucket = "fleetfn_invocation_duration_seconds_bucket"
    assert found[bucket, "0.00025", "telemetry"] == 0
    assert found[bucket, "0.0005", "telemetry"] == 1
    assert found[bucket, "+Inf", "telemetry"] == 2
    assert found["fleetfn_invocation_duration_seconds_sum", "telemetry"] == pytest.approx(0.0204)
    assert found[bucket, "60.0", "show"] == 0
    assert found[bucket, "+Inf", "show"] == 1
    assert found["fleetfn_event_age_seconds_count", "telemetry"] == 1


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    distribution = Distribution(DURATIONS)
    distribution.add(DURATIONS[3])
    assert distribution.counts[3] == 1


def test_deltas_are_what_came_since_the_last_one(metrics: Metrics) -> None:
    assert metrics.delta() == Counters(done=3, retried=1, rejected=1, dead=1, emitted=2)
    assert metrics.delta() is None
    metrics.done("telemetry", [0.1])
    assert metrics.delta() == Counters(done=1)


def test_nothing_counted_is_no_error() -> None:
    empty = Metrics("battery-alert")
    assert empty.delta() is None
    assert samples(empty) == {}
