import os

import pytest
from fleetfn.errors import TargetError, UsageError
from fleetfn_deploy import places


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("FN_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(places, "SOCKET_LIMIT", 1000)


def test_a_node_lives_in_the_users_data_folder(tmp_path):
    place = places.find("bench")
    assert place.data == tmp_path / "share" / "fleetfn" / "nodes" / "bench"
    assert place.socket == tmp_path / "r" / "fleetfn" / "bench" / "control.sock"


def test_fn_data_names_a_data_folder_with_sockets_of_its_own(tmp_path, monkeypatch):
    usual = places.find()
    monkeypatch.setenv("FN_DATA", str(tmp_path / "mine"))
    mine = places.find()
    assert mine.data == tmp_path / "mine"
    assert mine.run != usual.run


def test_a_data_folder_given_by_hand_leaves_the_name_to_find_it_by(tmp_path):
    assert places.find(data=tmp_path / "x").run == places.find().run


def test_sockets_move_where_their_paths_fit(monkeypatch):
    monkeypatch.setattr(places, "SOCKET_LIMIT", 107)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * 90)
    assert len(os.fsencode(places.find("n" * 40).run / "deliver-4194304.sock")) <= 107


@pytest.mark.parametrize("name", ["", "../up", "Bench", "a" * 41])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(UsageError):
        places.find(name)


def test_folders_are_the_users_alone():
    place = places.find()
    places.prepare(place)
    assert place.data.stat().st_mode & 0o777 == 0o700
    assert place.run.stat().st_mode & 0o777 == 0o700
    places.check(place)


def test_folders_are_the_users_alone_whatever_the_umask():
    before = os.umask(0o002)
    try:
        places.prepare(places.find())
    finally:
        os.umask(before)


def test_a_link_to_a_folder_of_sockets_is_refused(tmp_path):
    place = places.find()
    places.prepare(place)
    place.run.rename(tmp_path / "elsewhere")
    place.run.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError, match="cannot be trusted"):
        places.check(place)


def test_a_folder_of_sockets_open_to_others_is_refused():
    place = places.find()
    places.prepare(place)
    place.run.chmod(0o777)
    with pytest.raises(TargetError, match="cannot be trusted"):
        places.check(place)
