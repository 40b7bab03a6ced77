"""A function's tally: kept in a file now and then, once something has changed."""

from fleetfn_node.counting import Tally
from fleetfn_runtime.channel import Stats
from fleetfn_spec.control import Counters


def test_whoever_saves_is_told_of_each_change_and_need_not_look(tmp_path):
    told = []
    tally = Tally(tmp_path / "counters.json", lambda: told.append(1))
    tally.add(Stats(counters=Counters(done=2), in_flight=0))
    tally.error("it broke", 1.0)
    tally.activated(2.0)
    assert len(told) == 3
    tally.save()
    again = Tally(tmp_path / "counters.json")
    assert (again.kept.counters.done, again.kept.last_error, again.kept.last_activation) == (2, "it broke", 2.0)
    assert len(told) == 3
