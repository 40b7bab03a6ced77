"""Where a worker in an image may write."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
from fleetfn.errors import UsageError
from fleetfn_runtime import lone_home


@pytest.fixture
def mounts(tmp_path):
    """A list of mounts that has one folder, bound from the same file system."""
    bound = tmp_path / "my volume"
    bound.mkdir()
    listed = tmp_path / "mountinfo"
    listed.write_text(f"31 1 8:1 /x {str(bound).replace(' ', chr(92) + '040')} rw,relatime - ext4 /dev/sda rw\n")
    return bound, listed


def test_a_folder_bound_from_the_same_file_system_is_a_mount(mounts, tmp_path):
    bound, listed = mounts
    assert lone_home.is_mounted(bound, mounts=listed)
    assert not lone_home.is_mounted(tmp_path, mounts=listed)
    assert not lone_home.is_mounted(tmp_path, mounts=tmp_path / "not there")
    assert lone_home.is_mounted(Path("/proc"), mounts=listed)


@pytest.mark.parametrize(
    ("kinds", "told"),
    [(["ext4"], False), (["tmpfs"], True), (["ramfs"], True), (["tmpfs", "ext4"], False), (["ext4", "tmpfs"], True)],
)
def test_memory_that_is_mounted_last_is_told_from_a_volume(tmp_path, kinds, told):
    listed = tmp_path / "mountinfo"
    lines = [f"31 1 8:1 / {tmp_path} rw,relatime shared:1 - {kind} {kind} rw\n" for kind in kinds]
    listed.write_text("".join(["30 1 0:9 / /dev/shm rw - tmpfs tmpfs rw\n", *lines]))
    assert lone_home.is_mounted(tmp_path, mounts=listed)
    assert lone_home.is_in_memory(tmp_path, mounts=listed) is told
    assert not lone_home.is_in_memory(tmp_path / "below", mounts=listed)


def test_without_a_volume_it_says_what_to_mount(tmp_path):
    with pytest.raises(UsageError, match="nothing is mounted at") as refused:
        lone_home.check_volume(tmp_path, "battery-alert", named="")
    assert f"-v battery-alert:{tmp_path}" in refused.value.hint
    assert "FLEETFN_GATEWAY" in refused.value.hint


def test_a_gateway_that_runs_elsewhere_needs_no_volume(tmp_path):
    assert not lone_home.check_volume(tmp_path, "battery-alert", named="/run/gateway.sock")


def test_a_volume_that_is_not_this_users_is_told_with_the_users_id(tmp_path, monkeypatch):
    monkeypatch.setattr(lone_home, "is_mounted", lambda _: True)
    assert lone_home.check_volume(tmp_path, "battery-alert", named="")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=f"cannot be written by user {os.getuid()}"):
        lone_home.check_volume(tmp_path, "battery-alert", named="")


@pytest.fixture
def short():
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        yield Path(folder)


@pytest.fixture
def places(short, monkeypatch):
    """The usual places, none of which exists yet."""
    usual = short / "tmp", short / "shm"
    monkeypatch.setattr(lone_home, "_ALWAYS", usual)
    monkeypatch.delenv("TMPDIR", raising=False)
    return usual


def test_sockets_lie_where_temporary_files_usually_do(places):
    places[0].mkdir()
    with lone_home.sockets() as folder:
        assert folder.parent == places[0]
        assert "TMPDIR" not in os.environ
    assert not folder.exists()


def test_where_the_usual_place_is_missing_temporary_files_of_handlers_move_too(places, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(places[0]))
    places[1].mkdir()
    with lone_home.sockets() as folder:
        assert folder.parent == places[1]
        assert os.environ["TMPDIR"] == str(folder)


@pytest.mark.usefixtures("places")
def test_the_volume_is_the_last_place(short):
    with lone_home.sockets(short) as folder:
        assert folder.parent == short


def test_a_place_whose_path_is_too_long_for_a_socket_is_left_out(places, tmp_path):
    places[0].mkdir()
    with lone_home.sockets() as folder, socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(folder / "deliver.sock"))
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    places[0].rmdir()
    with pytest.raises(UsageError, match="longer than 107 bytes") as refused, lone_home.sockets(deep):
        pass
    assert "--tmpfs /tmp" in refused.value.hint
    assert list(deep.iterdir()) == []
