import io
import os
import tarfile

import pytest
from fleetfn.errors import TargetError
from fleetfn_plumbing import source


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder):
    return [path.as_posix() for path in source.files(folder)]


def packed(folder):
    into = io.BytesIO()
    source.pack(folder, into)
    return into.getvalue()


def test_what_is_never_a_source_stays_out(tmp_path):
    write(tmp_path, "function.yaml", "handler.py", "a/b.py", ".git/config", "a/__pycache__/b.pyc", ".venv/x", "c.pyc")
    write(tmp_path, ".fleetfn/dev/id", ".pytest_cache/x", ".env", ".env.local", ".envrc", "a/own.egg-info/PKG-INFO")
    assert names(tmp_path) == ["a/b.py", "function.yaml", "handler.py"]


def test_fnignore_names_folders_names_and_paths(tmp_path):
    write(tmp_path, "handler.py", "data/big.csv", "a/small.csv", "docs/x.md", "x.md", "deep/data/y")
    (tmp_path / ".fnignore").write_text("# big\ndata/\n*.csv\n\ndocs/*.md\n")
    assert names(tmp_path) == [".fnignore", "handler.py", "x.md"]


def test_a_folder_pattern_spares_a_file_of_that_name(tmp_path):
    write(tmp_path, "data")
    (tmp_path / ".fnignore").write_text("data/\n")
    assert "data" in names(tmp_path)


def test_fnignore_refuses_to_take_back(tmp_path):
    (tmp_path / ".fnignore").write_text("*.csv\n!keep.csv\n")
    with pytest.raises(TargetError, match=r"\.fnignore:2: '!keep\.csv'"):
        source.files(tmp_path)


def test_equal_folders_give_equal_bytes(tmp_path):
    for folder in ("one", "two"):
        write(tmp_path / folder, "handler.py", "b.py")
    os.utime(tmp_path / "two" / "b.py", (1, 1))
    assert packed(tmp_path / "one") == packed(tmp_path / "two")
    assert packed(tmp_path / "one")[4:8] == b"\0\0\0\0"


def test_the_tar_holds_the_files(tmp_path):
    write(tmp_path, "handler.py", "a/ü.txt")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as tar:
        assert tar.getnames() == ["a/ü.txt", "handler.py"]
        assert tar.extractfile("handler.py").read() == b"handler.py"


def test_a_link_inside_is_packed_as_what_it_points_to(tmp_path):
    write(tmp_path, "shared.py")
    (tmp_path / "link.py").symlink_to("shared.py")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as tar:
        assert tar.getmember("link.py").isfile()


@pytest.mark.parametrize("target", ["/etc/hostname", "missing", "sub"])
def test_a_link_that_is_no_file_of_the_folder_is_refused(tmp_path, target):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "sub").mkdir()
    (tmp_path / "f" / "link").symlink_to(target)
    with pytest.raises(TargetError, match="is a link to"):
        source.files(tmp_path / "f")


def test_a_mark_that_an_editor_begins_with_is_no_part_of_a_pattern(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("k")
    (tmp_path / ".fnignore").write_bytes(b"\xef\xbb\xbfsecret/\r\n")
    assert names(tmp_path) == [".fnignore"]


def test_an_fnignore_that_is_no_text_is_told(tmp_path):
    (tmp_path / ".fnignore").write_bytes(b"caf\xe9/\n")
    with pytest.raises(TargetError, match=r"\.fnignore is no UTF-8 text"):
        source.files(tmp_path)
