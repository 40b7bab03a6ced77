"""What builds leave for later ones, in a folder that several use at once."""

import os
import threading

import msgspec
import pytest
from fleetfn_builder import choosing, keeping, registry_auth
from fleetfn_builder.builder import Access, BuildError
from fleetfn_builder.keeping import Keeping


class Made(msgspec.Struct):
    name: str


@pytest.fixture
def kept(tmp_path):
    return Keeping(tmp_path / "cache")


def age(path, seconds):
    status = path.stat()
    os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def test_what_was_written_is_read(kept):
    assert kept.read("builds", "key", Made) is None
    kept.write("builds", "key", Made("x"))
    assert kept.read("builds", "key", Made) == Made("x")
    assert kept.read("builds", "other", Made) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"name": 1}', b"[]"])
def test_a_damaged_record_is_none(kept, damage):
    kept.write("builds", "key", Made("x"))
    (record,) = (kept.folder / "builds").iterdir()
    record.write_bytes(damage)
    assert kept.read("builds", "key", Made) is None


def test_a_damaged_blob_is_found_and_forgotten(kept):
    good, bad = kept.keep(b"good", "text/plain"), kept.keep(b"bad!", "text/plain")
    kept.blobs.path(bad.digest).write_bytes(b"xxxx")
    assert kept.content(bad) is None
    assert kept.content(good) == b"good"
    assert kept.forget_damaged() == [bad]
    assert (kept.has(good), kept.has(bad)) == (True, False)


def test_what_was_used_least_recently_goes_first(tmp_path):
    kept = Keeping(tmp_path / "cache", limit=250)
    blobs = [kept.keep(bytes([number]) * 100, "text/plain") for number in range(4)]
    for number, blob in enumerate(blobs):
        age(kept.blobs.path(blob.digest), 1000 - number)
    assert kept.has(blobs[0])  # a use
    with kept.building():
        pass
    assert [kept.has(blob) for blob in blobs] == [True, False, False, True]


def test_nothing_is_removed_while_another_builds(tmp_path):
    kept = Keeping(tmp_path / "cache", limit=10)
    blob = kept.keep(b"x" * 100, "text/plain")
    with Keeping(tmp_path / "cache").building():
        with kept.building():
            pass
        assert kept.has(blob)
    with kept.building():
        pass
    assert not kept.has(blob)


def test_folders_to_work_in_are_gone_afterwards_those_of_killed_builds_too(kept):
    with kept.building():
        with kept.workshop() as folder:
            (folder / "half").write_bytes(b"x")
        assert not folder.exists()
        left = kept.folder / "work" / "of-a-killed-build"
        wheel = kept.folder / "wheels" / ".making-of-a-killed-build"
        wheel.mkdir(parents=True)
        left.mkdir()
        (left / "half").write_bytes(b"x")
    assert not left.exists()
    assert not wheel.exists()


def test_one_at_a_time_makes_what_has_a_key(kept):
    order = []
    began = threading.Event()

    def second():
        began.set()
        with Keeping(kept.folder).making("key"):
            order.append("second")

    thread = threading.Thread(target=second)
    with kept.making("key"):
        thread.start()
        began.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file/cache") as caught:
        Keeping(tmp_path / "file" / "cache")
    assert keeping.VARIABLE in caught.value.hint


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(keeping.VARIABLE, raising=False)
    assert keeping.default_folder() == tmp_path / "fleetfn" / "builds"
    monkeypatch.setenv(keeping.VARIABLE, str(tmp_path / "own"))
    assert keeping.default_folder() == tmp_path / "own"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", keeping.VARIABLE, "DOCKER_CONFIG", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(BuildError, match="no home folder") as caught:
        keeping.default_folder()
    assert keeping.VARIABLE in caught.value.hint
    assert registry_auth.find("registry.example", Access()) is None
    choosing._may_have_engine()
