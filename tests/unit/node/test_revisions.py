"""Revisions on disk: content-addressed, switched atomically, the last ten kept."""

import io
import os
import tarfile

import msgspec
import pytest
from fleetfn_node import durable, plans, sources
from fleetfn_node.revisions import KEPT, RevisionError, Revisions
from fleetfn_spec import differences, removals
from fleetfn_spec.environments import LOCAL, Environment
from fleetfn_spec.function import Function
from fleetfn_spec.gateway import TriggerRows


def function(name="battery-alert", **spec):
    return msgspec.convert(
        {
            "apiVersion": "fleetfn.dev/v1alpha1",
            "kind": "Function",
            "metadata": {"name": name},
            "spec": {
                "handler": "handler:watch",
                "triggers": [{"name": "show", "key": None, "http": {"path": "/battery"}}],
                **spec,
            },
        },
        Function,
    )


@pytest.fixture
def revisions(tmp_path):
    return Revisions(tmp_path / "battery-alert", clock=lambda: 1000.0)


def add(revisions, tmp_path, digest, text="x = 1\n"):
    source = tmp_path / f"in-{digest[:4]}"
    source.mkdir()
    (source / "handler.py").write_text(text)
    return revisions.add(source, function(), digest)


def digests(count):
    return [f"{number:064x}" for number in range(1, count + 1)]


def test_before_the_first_deploy_there_is_no_head(revisions):
    assert revisions.head() is None


def test_a_revision_keeps_its_source_and_function(revisions, tmp_path):
    digest = digests(1)[0]
    added = add(revisions, tmp_path, digest)
    assert added == revisions.get(digest)
    assert added.function == function()
    assert (revisions.source(digest) / "handler.py").read_text() == "x = 1\n"


def test_the_same_digest_again_is_the_same_revision(revisions, tmp_path):
    digest = digests(1)[0]
    add(revisions, tmp_path, digest)
    again = tmp_path / "again"
    again.mkdir()
    assert revisions.add(again, function(), digest).created == 1000.0


def test_switches_are_numbered_and_the_last_one_serves(revisions, tmp_path):
    one, two = digests(2)
    for digest in (one, two):
        add(revisions, tmp_path, digest)
        revisions.switch(digest, LOCAL)
    head = revisions.head()
    assert [(each.number, each.digest) for each in head.history] == [(1, one), (2, two)]
    assert head.serving.digest == two


def test_what_serves_already_is_no_new_deploy(revisions, tmp_path):
    digest = digests(1)[0]
    add(revisions, tmp_path, digest)
    assert revisions.switch(digest, LOCAL) == revisions.switch(digest, LOCAL)


def test_a_rollback_goes_to_what_served_before_and_back_again(revisions, tmp_path):
    one, two = digests(2)
    for digest in (one, two):
        add(revisions, tmp_path, digest)
        revisions.switch(digest, LOCAL)
    assert revisions.before(revisions.head()).digest == one
    head = revisions.switch(one, LOCAL)
    assert head.serving.number == 3
    assert revisions.before(head).digest == two


def test_an_environment_that_changed_is_something_to_go_back_to(revisions, tmp_path):
    digest = digests(1)[0]
    add(revisions, tmp_path, digest)
    revisions.switch(digest, LOCAL)
    head = revisions.switch(digest, Environment(name="bench"))
    assert revisions.before(head).environment.name == "local"


def test_with_one_revision_there_is_nothing_to_go_back_to(revisions, tmp_path):
    digest = digests(1)[0]
    add(revisions, tmp_path, digest)
    with pytest.raises(RevisionError, match="no earlier revision"):
        revisions.before(revisions.switch(digest, LOCAL))


def test_only_the_last_ten_are_kept(revisions, tmp_path):
    all_ = digests(KEPT + 2)
    for digest in all_:
        add(revisions, tmp_path, digest)
        revisions.switch(digest, LOCAL)
    head = revisions.head()
    assert [each.digest for each in head.history] == all_[2:]
    assert head.history[0].number == 3
    assert sorted(each.name for each in (revisions.folder / "revisions").iterdir()) == all_[2:]


def test_pauses_survive_a_switch(revisions, tmp_path):
    one, two = digests(2)
    add(revisions, tmp_path, one)
    revisions.switch(one, LOCAL)
    revisions.pause(["show"])
    add(revisions, tmp_path, two)
    assert revisions.switch(two, LOCAL).paused == ["show"]


def test_a_digest_may_be_given_by_its_first_digits(revisions, tmp_path):
    digest = "ab" + "0" * 62
    add(revisions, tmp_path, digest)
    assert revisions.get("ab0").digest == digest


def test_unknown_and_ambiguous_digits_name_what_is_there(revisions, tmp_path):
    for digest in ("ab" + "0" * 62, "ab" + "1" * 62):
        add(revisions, tmp_path, digest)
    with pytest.raises(RevisionError, match="several revisions start with 'ab'"):
        revisions.get("ab")
    with pytest.raises(RevisionError, match="no revision starts with 'ff'") as refused:
        revisions.get("ff")
    assert "ab0000000000" in refused.value.hint


def test_a_torn_head_is_told_and_not_taken_for_no_head(revisions):
    revisions.folder.mkdir()
    (revisions.folder / "head.json").write_text('{"history": [')
    with pytest.raises(RevisionError, match="does not read"):
        revisions.head()


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "head.json"
    durable.write(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        durable.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["head.json"]


# sources


def tar(*members):
    """(name, content, mode) each; content None: a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, content, mode in members:
            member = tarfile.TarInfo(name)
            member.mode = mode
            if content is None:
                member.type = tarfile.DIRTYPE
                file.addfile(member)
            elif isinstance(content, bytes):
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                file.addfile(member)
    packed.seek(0)
    return packed


def unpacked(tmp_path, name, *members):
    folder = tmp_path / name
    folder.mkdir()
    sources.unpack(tar(*members), folder)
    return folder


def test_equal_files_have_equal_digests_in_any_order(tmp_path):
    one = unpacked(tmp_path, "one", ("a.py", b"a", 0o644), ("b/c.py", b"c", 0o600))
    two = unpacked(tmp_path, "two", ("b", None, 0o755), ("b/c.py", b"c", 0o644), ("./a.py", b"a", 0o664))
    assert sources.digest(one) == sources.digest(two)


@pytest.mark.parametrize(
    "members",
    [
        [("a.py", b"A", 0o644), ("b.py", b"b", 0o644)],
        [("a.py", b"a", 0o755), ("b.py", b"b", 0o644)],
        [("A.py", b"a", 0o644), ("b.py", b"b", 0o644)],
        [("a.py", b"ab", 0o644), ("b.py", b"", 0o644)],
        [("a.py", b"a", 0o644)],
    ],
    ids=["content", "execute bit", "name", "bytes moved between files", "one file less"],
)
def test_what_differs_has_another_digest(tmp_path, members):
    one = unpacked(tmp_path, "one", ("a.py", b"a", 0o644), ("b.py", b"b", 0o644))
    assert sources.digest(one) != sources.digest(unpacked(tmp_path, "two", *members))


def test_caches_and_version_control_are_left_out(tmp_path):
    folder = unpacked(
        tmp_path, "in", ("a.py", b"a", 0o644), (".git/HEAD", b"x", 0o644), ("p/__pycache__/a.pyc", b"x", 0o644)
    )
    assert [path.name for path in folder.rglob("*")] == ["a.py"]
    plain = sources.digest(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled by a worker")
    assert sources.digest(folder) == plain


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../evil.py", b"x", 0o644), "outside its folder, '../evil.py'"),
        (("/etc/passwd", b"x", 0o644), "outside its folder, '/etc/passwd'"),
        (("a/../../evil.py", b"x", 0o644), "outside its folder"),
        (("caf\udce9.py", b"x", 0o644), r"not UTF-8, 'caf\\udce9.py'"),
        (("link", (tarfile.SYMTYPE, "/etc/passwd"), 0o777), "a link, 'link'"),
        (("link", (tarfile.LNKTYPE, "a.py"), 0o777), "a link, 'link'"),
    ],
    ids=["parent", "absolute", "parent inside", "latin-1", "symbolic link", "hard link"],
)
def test_members_that_would_leave_the_folder_are_refused(tmp_path, member, said):
    with pytest.raises(sources.SourceError, match=said):
        unpacked(tmp_path, "in", member)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("name", ["zeros", ".git/zeros"])
def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "LIMIT", 1000)
    with pytest.raises(sources.SourceError, match="larger than"):
        unpacked(tmp_path, "in", (name, bytes(1001), 0o644))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(sources.SourceError, match=r"'a/b\.py' cannot be written: File exists"):
        unpacked(tmp_path, "in", ("a", b"", 0o644), ("a/b.py", b"", 0o644))


@pytest.mark.parametrize(
    "packed", [b"", b"not a tar", tar(("a", b"a" * 5000, 0o644)).read()[:60]], ids=["empty", "text", "cut"]
)
def test_what_is_no_tar_is_refused(tmp_path, packed):
    with pytest.raises(sources.SourceError, match="does not read as a tar"):
        sources.unpack(io.BytesIO(packed), tmp_path)


# plans


def test_a_plan_names_the_fields_that_change(revisions, tmp_path):
    digest = digests(1)[0]
    revision = add(revisions, tmp_path, digest)
    head = revisions.switch(digest, LOCAL)
    new = function(timeout="5s", triggers=[{"name": "show", "key": None, "http": {"path": "/pack"}}])
    plan = plans.plan(new, Environment(name="bench"), "f" * 64, source="b", before=(head, revision, "a"))
    assert plan.serving == digest
    assert [(each.field, each.old, each.new) for each in plan.changes] == [
        ("spec.triggers.show.http.path", "/battery", "/pack"),
        ("spec.timeout", "30s", "5s"),
        ("environment.name", "local", "bench"),
        ("source", "a", "b"),
    ]


def test_the_plan_of_an_unchanged_function_is_empty(revisions, tmp_path):
    digest = digests(1)[0]
    revision = add(revisions, tmp_path, digest)
    head = revisions.switch(digest, LOCAL)
    assert plans.plan(function(), LOCAL, digest, source="a", before=(head, revision, "a")).changes == []


def test_a_trigger_that_is_new_is_one_change(revisions):
    old = {"triggers": [{"name": "a", "path": "/a"}]}
    new = {"triggers": [{"name": "a", "path": "/a"}, {"name": "b", "path": "/b"}]}
    assert [each.field for each in differences.differences("", old, new)] == ["triggers.b"]


def test_a_plan_tells_what_becomes_of_removed_triggers():
    old = function(
        triggers=[
            {"name": "kept", "http": {"path": "/a"}},
            {"name": "live", "mqtt": {"topic": "t"}},
            {"name": "nightly", "cron": {"schedule": "@daily"}},
            {"name": "telemetry", "kafka": {"topic": "t"}},
            {"name": "show", "http": {"path": "/b"}},
        ]
    )
    new = function(triggers=[{"name": "kept", "http": {"path": "/a"}}])
    rows = {"live": TriggerRows(waiting=2, dead=1), "nightly": TriggerRows(waiting=1), "kept": TriggerRows(waiting=9)}
    assert removals.removals(old, new, rows) == [
        (
            "trigger live is removed: its session at the broker ends, with what the broker keeps for it; 2 events stay "
            "in the inbox for it, until a revision has a trigger of that name again, or an hour has passed; its dead "
            "letters (1) stay"
        ),
        (
            "trigger nightly is removed: its clock stops; 1 event stays in the inbox for it, until a revision has a "
            "trigger of that name again, or an hour has passed"
        ),
        "trigger telemetry is removed: its offsets stay in Kafka",
        "trigger show is removed: its path is answered with 404",
    ]
    assert removals.removals(new, old, rows) == []
