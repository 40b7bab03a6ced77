import pytest
from fleetfn_spec.durations import DurationError, seconds, shown


@pytest.mark.parametrize(
    ("text", "value"),
    [("1h30m", 5400.0), ("500ms", 0.5), ("30s", 30.0), ("1.5s", 1.5), ("90d", 7_776_000.0), ("1d2h3m4s5ms", 93784.005)],
)
def test_reads_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1 s", "5m1h", "5m5m", "1S", "1s\n", "1e3s", ".5s", "٣s", "1h-1m"]
)
def test_refuses_what_is_none(text: str) -> None:
    with pytest.raises(DurationError, match="is not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("value", "text"), [(5400, "1h30m"), (0, "0s"), (0.25, "250ms"), (86400, "1d"), (61.5, "1m1s500ms")]
)
def test_shows_durations(value: float, text: str) -> None:
    assert shown(value) == text
