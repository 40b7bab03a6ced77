"""Marks against a model that remembers everything."""

from __future__ import annotations

import msgspec
from fleetfn.position import REMEMBER, REPLIES, REPLY_LIMIT, At, Marks, Named, Reply
from hypothesis import given
from hypothesis import strategies as st

topics = st.sampled_from(["kafka:t:1", "kafka:t:2"])
logs = st.tuples(st.sampled_from(["telemetry", "audit"]), topics, st.integers(0, 2))
# Per log, offsets rise, with gaps (other keys' events), as a lane hands them over.
steps = st.lists(st.tuples(logs, st.integers(1, 5)), max_size=60)


@given(steps, st.data())
def test_taken_is_exact_for_rising_offsets(given_steps, data):
    marks = Marks()
    last: dict[tuple[str, str, int], int] = {}
    taken: set[tuple[str, str, int, int]] = set()
    for log, gap in given_steps:
        offset = last.get(log, -1) + gap
        trigger, stream, partition = log
        assert not marks.taken(trigger, At(stream, partition, offset))
        marks = marks.with_(trigger, At(stream, partition, offset))
        last[log] = offset
        taken.add((*log, offset))
    for trigger, stream, partition, offset in taken:
        assert marks.taken(trigger, At(stream, partition, offset))
    for (trigger, stream, partition), offset in last.items():
        assert not marks.taken(trigger, At(stream, partition, offset + 1))
    assert len(marks.offsets) == len(last)
    unseen = data.draw(logs.filter(lambda log: log not in last) if len(last) < 12 else st.none())
    if unseen:
        assert not marks.taken(unseen[0], At(unseen[1], unseen[2], 0))


@given(st.integers(0, 100), st.integers(0, 100))
def test_an_offset_taken_again_never_turns_the_mark_back(first, second):
    marks = Marks().with_("t", At("s", 0, first)).with_("t", At("s", 0, second))
    assert marks.offsets == {"t|s|0": max(first, second)}


names = st.lists(st.integers(0, 10_000).map(str), unique=True, min_size=1, max_size=REMEMBER + 20)


@given(names)
def test_the_last_64_callers_ids_are_remembered_and_the_last_4_replies(ids):
    marks = Marks()
    for id_ in ids:
        assert not marks.taken("t", Named(id_))
        marks = marks.with_("t", Named(id_), Reply(200, [("a", "b")], id_.encode()))
    remembered = ids[-REMEMBER:]
    assert [id_ for id_ in ids if marks.taken("t", Named(id_))] == remembered
    assert not any(marks.taken("other", Named(id_)) for id_ in ids)
    with_reply = [id_ for id_ in ids if marks.reply("t", Named(id_)) is not None]
    assert with_reply == ids[-REPLIES:]
    assert all(marks.reply("t", Named(id_)).body == id_.encode() for id_ in with_reply)


@given(names, steps)
def test_marks_survive_being_stored(ids, given_steps):
    marks = Marks()
    for id_ in ids:
        marks = marks.with_("t", Named(id_), Reply(200, [], b"x"))
    for (trigger, stream, partition), gap in given_steps:
        marks = marks.with_(trigger, At(stream, partition, gap))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(marks), type=Marks) == marks
    assert msgspec.json.decode(msgspec.json.encode(marks), type=Marks) == marks


def test_a_reply_that_is_too_large_is_not_kept():
    fits = Marks().with_("t", Named("1"), Reply(200, [], b"x" * REPLY_LIMIT))
    large = Marks().with_("t", Named("1"), Reply(200, [], b"x" * (REPLY_LIMIT + 1)))
    assert fits.reply("t", Named("1")) is not None
    assert large.reply("t", Named("1")) is None
    assert large.taken("t", Named("1"))


def test_an_event_without_position_is_never_a_duplicate():
    marks = Marks()
    assert marks.with_("t", None) is marks
    assert not marks.taken("t", None)


def test_a_recreated_topic_is_another_stream():
    marks = Marks().with_("t", At("kafka:telemetry:old", 0, 1000))
    assert not marks.taken("t", At("kafka:telemetry:new", 0, 3))


requests = st.lists(st.tuples(st.sampled_from(["show", "set"]), st.integers(0, 90)), max_size=150)


@given(requests, steps, st.randoms(use_true_random=False))
def test_names_and_offsets_of_several_triggers_never_touch_each_other(asked, given_steps, random):
    """As of a record that callers and logs share: a ring of names, the highest offset of each log, whatever comes."""
    marks = Marks()
    ring: list[str] = []
    replies: dict[str, bytes] = {}
    last: dict[tuple[str, str, int], int] = {}
    both = [*((trigger, Named(str(id_))) for trigger, id_ in asked), *given_steps]
    random.shuffle(both)
    for number, (what, how) in enumerate(both):
        if isinstance(how, Named):
            name = f"{what}|{how.id}"
            assert marks.taken(what, how) is (name in ring)
            if name in ring:
                kept = marks.reply(what, how)
                assert kept is None if name not in ring[-REPLIES:] else kept.body == replies[name]
                continue
            replies[name] = b"%d" % number
            marks = marks.with_(what, how, Reply(200, [], replies[name]))
            ring = [*ring, name][-REMEMBER:]
        else:
            trigger, stream, partition = what
            offset = last.get(what, -1) + how
            at = At(stream, partition, offset)
            assert not marks.taken(trigger, at)
            marks = marks.with_(trigger, at)
            last[what] = offset
    assert len(marks.named) == len(ring) <= REMEMBER
    assert all(marks.taken(trigger, At(stream, number, at)) for (trigger, stream, number), at in last.items())
