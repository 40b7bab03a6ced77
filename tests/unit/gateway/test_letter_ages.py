"""When ages of dead letters are believed."""

from fleetfn_gateway.ages import STEADY, Ages

KEPT = 30 * 86400.0


class Times:
    def __init__(self):
        self.clock, self.even = 1_800_000_000.0, 50.0
        self.ages = Ages(KEPT, lambda: self.clock, lambda: self.even)

    def after(self, seconds, moved=0.0):
        self.clock += seconds + moved
        self.even += seconds
        return self.ages.believed()


def test_ages_are_believed_once_the_clock_was_steady_for_an_hour():
    times = Times()
    assert not times.after(0)
    assert not times.after(STEADY - 1)
    assert times.after(1)
    assert times.after(30 * KEPT)


def test_a_clock_that_is_moved_far_is_not_believed_until_it_was_steady_again():
    times = Times()
    assert times.after(STEADY)
    assert not times.after(30, moved=10 * KEPT)
    assert not times.after(STEADY - 1)
    assert times.after(1)


def test_a_clock_that_is_set_right_again_is_as_one_that_was_moved():
    times = Times()
    assert times.after(STEADY)
    assert not times.after(30, moved=10 * KEPT)
    assert not times.after(STEADY - 1, moved=-10 * KEPT)
    assert not times.after(STEADY - 1)
    assert times.after(1)


def test_small_moves_are_believed_until_they_are_much_together():
    times = Times()
    assert times.after(STEADY)
    assert times.after(30, moved=KEPT * 0.06)
    assert not times.after(30, moved=KEPT * 0.06)
