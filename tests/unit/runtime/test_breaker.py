"""When a breaker opens, and when it probes."""

from __future__ import annotations

from fleetfn_runtime.breaker import KEPT, LONGEST, Alike, Breaker, Limits

DOWN = Alike("ConnectionError", "handler.py:31")
OTHER = Alike("KeyError", "handler.py:12")


class Runs:
    """Of one trigger, on a clock of their own."""

    def __init__(self, keys: int = 3, window: float = 5.0) -> None:
        self.breaker: Breaker[str] = Breaker(Limits(keys, window), jitter=lambda *_: 1.0)
        self.now = 100.0
        self.ended = 0
        self.breaker.look(self.now, 0, 0.0)

    def done(self, count: int) -> None:
        self.ended += count
        self.breaker.look(self.now, self.ended, 1_800_000_000.0)

    def fail(self, key: str, alike: Alike = DOWN) -> list[str] | None:
        self.ended += 1
        return self.breaker.failed(self.now, self.ended, alike, key, f"run of {key}", 1_800_000_000.0)


def test_opens_when_runs_of_enough_keys_failed_alike_and_names_them() -> None:
    runs = Runs()
    assert runs.fail("a") is None
    assert runs.fail("a") is None
    assert runs.fail("b") is None
    assert runs.fail("c") == ["run of a", "run of a", "run of b", "run of c"]
    assert str(runs.breaker.opened) == (
        "breaker open since 08:00:00 UTC: 4 of 4 runs of 3 keys failed with ConnectionError at handler.py:31"
    )


def test_one_key_that_fails_for_ever_opens_nothing() -> None:
    runs = Runs()
    assert not any(runs.fail("a") for _ in range(100))


def test_failures_that_differ_open_nothing() -> None:
    runs = Runs()
    for n in range(20):
        assert runs.fail(f"k{n}", Alike("ValueError", f"handler.py:{n}")) is None


def test_opens_for_nothing_that_most_runs_do_not_meet() -> None:
    runs = Runs()
    runs.done(100)
    for n in range(100):
        assert runs.fail(f"k{n}") is None
    assert runs.fail("last") is not None


def test_what_happened_before_the_window_counts_no_more() -> None:
    runs = Runs()
    runs.done(1000)
    runs.fail("a")
    runs.fail("b")
    runs.now += 5.1
    runs.done(0)
    assert runs.fail("c") is None
    assert runs.fail("d") is None
    assert runs.fail("e") == ["run of c", "run of d", "run of e"]


def test_failures_of_another_sort_are_left_alone_when_it_opens() -> None:
    runs = Runs()
    runs.fail("x", OTHER)
    runs.fail("a")
    runs.fail("b")
    assert runs.fail("c") == ["run of a", "run of b", "run of c"]


def test_probes_come_ever_later_up_to_a_limit() -> None:
    runs = Runs(keys=2)
    runs.fail("a")
    runs.fail("b")
    waits = []
    for _ in range(6):
        waits.append(runs.breaker.probe_at - runs.now)
        runs.now = runs.breaker.probe_at
        runs.breaker.probe_failed(runs.now)
    assert waits == [1.0, 2.0, 4.0, 8.0, LONGEST, LONGEST]


def test_closed_again_it_begins_to_count_anew() -> None:
    runs = Runs(keys=2)
    runs.fail("a")
    runs.fail("b")
    runs.breaker.close(runs.now, runs.ended)
    assert runs.breaker.opened is None
    assert runs.fail("a") is None
    assert runs.fail("b") is None, "it looks at what else ends first"
    runs.now = runs.breaker.settled
    assert runs.fail("b") == ["run of a", "run of b", "run of b"]


def test_keeps_a_bounded_number_of_failures() -> None:
    runs = Runs(keys=10_000)
    for n in range(2 * KEPT):
        runs.fail(f"k{n % 10}")
    assert runs.breaker.opened is None
    assert len(runs.breaker._failures) == KEPT


def test_timeouts_are_alike_wherever_they_were() -> None:
    runs = Runs(keys=2)
    runs.fail("a", Alike("", ""))
    runs.fail("b", Alike("", ""))
    assert str(runs.breaker.opened).endswith("2 of 2 runs of 2 keys did not end within their timeout")


def test_opens_once_what_went_well_has_left_the_window_though_nothing_more_fails() -> None:
    runs = Runs()
    runs.done(1000)
    runs.now += 0.5
    assert not any(runs.fail(key) for key in "abc")
    found = None
    while found is None:
        runs.now += 0.5
        found = runs.breaker.look(runs.now, runs.ended, 1_800_000_000.0)
    assert found == ["run of a", "run of b", "run of c"]
    assert runs.now == 105.0
    assert "3 of 3 runs of 3 keys" in str(runs.breaker.opened)
