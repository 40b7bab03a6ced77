"""The wheel of the FleetFn that runs here: made once, by whatever way it is installed."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from fleetfn_builder import wheel
from fleetfn_builder.assembly import runtime
from fleetfn_builder.builder import BuildError
from tiny_wheels import wheel as tiny

PROJECT = """[project]
name = "fleetfn"
[tool.hatch.build.targets.wheel]
packages = ["functions/fleetfn"]
"""


@pytest.fixture(name="site")
def _site(tmp_path, monkeypatch):
    """An installed FleetFn of two files, in the way of the real one."""
    tiny(tmp_path / "wheels", "fleetfn", "9.9", files={"fleetfn/__init__.py": "X = 1\n", "fleetfn/py.typed": ""})
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / "wheels" / "fleetfn-9.9-py3-none-any.whl") as packed:
        packed.extractall(site)
    info = site / "fleetfn-9.9.dist-info"
    (info / "INSTALLER").write_text("pip")
    with (info / "RECORD").open("a") as record:
        record.write("../../bin/fn,,\nfleetfn/__pycache__/__init__.cpython-311.pyc,,\n")
        record.write("fleetfn-9.9.dist-info/INSTALLER,,\n")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture(name="checkout")
def _checkout(tmp_path, site):
    """The same, installed editable, with a uv that notes its calls."""
    folder = tmp_path / "a checkout"
    (folder / "functions/fleetfn").mkdir(parents=True)
    (folder / "functions/fleetfn/__init__.py").write_text("X = 1\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    origin = f'{{"url": "{folder.as_uri()}", "dir_info": {{"editable": true}}}}'
    (site / "fleetfn-9.9.dist-info" / "direct_url.json").write_text(origin)
    return folder


@pytest.fixture(name="builds")
def _builds(tmp_path, monkeypatch):
    """How often uv was asked to build."""
    folder = tmp_path / "bin"
    folder.mkdir()
    uv = folder / "uv"
    built = tiny(tmp_path / "built", "fleetfn", "9.9")
    uv.write_text(
        f'#!/bin/sh\necho "$SOURCE_DATE_EPOCH" >> {tmp_path}/calls\n'
        f'while [ "$1" != --out-dir ]; do shift; done\ncp {built} "$2"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return lambda: len((tmp_path / "calls").read_text().splitlines())


@pytest.mark.usefixtures("site")
def test_an_installed_one_is_put_together_again(tmp_path):
    made = wheel.of_this_fleetfn(tmp_path / "cache")
    with zipfile.ZipFile(made) as packed:
        assert packed.namelist() == [
            "fleetfn-9.9.dist-info/METADATA",
            "fleetfn-9.9.dist-info/WHEEL",
            "fleetfn/__init__.py",
            "fleetfn/py.typed",
            "fleetfn-9.9.dist-info/RECORD",
        ]
        assert "../../bin/fn" not in packed.read("fleetfn-9.9.dist-info/RECORD").decode()
    assert runtime.version(made) == "9.9"


@pytest.mark.usefixtures("site")
def test_it_is_equal_whenever_it_is_made_and_pip_takes_it(tmp_path):
    first = wheel.of_this_fleetfn(tmp_path / "one")
    os.utime(tmp_path / "site/fleetfn/__init__.py", (1, 1))
    second = wheel.of_this_fleetfn(tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    into = str(tmp_path / "into")
    command = [wheel.uv_path(), "pip", "install", "--offline", "--no-deps", "--target", into, str(first)]
    subprocess.run([*command, "--python", sys.executable], check=True, capture_output=True)
    assert (tmp_path / "into/fleetfn/__init__.py").read_text() == "X = 1\n"


def test_an_installation_that_is_not_whole_is_told(tmp_path, site):
    (site / "fleetfn/py.typed").unlink()
    with pytest.raises(BuildError, match=r"not whole: fleetfn/py\.typed"):
        wheel.of_this_fleetfn(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_an_installation_without_a_list_of_its_files_is_told(tmp_path, site):
    (site / "fleetfn-9.9.dist-info/RECORD").unlink()
    with pytest.raises(BuildError, match="no list of its files"):
        wheel.of_this_fleetfn(tmp_path / "cache")


@pytest.mark.usefixtures("checkout")
def test_an_editable_one_is_built_once(tmp_path, builds):
    heard = []
    first = wheel.of_this_fleetfn(tmp_path / "cache", heard.append)
    assert wheel.of_this_fleetfn(tmp_path / "cache", heard.append) == first
    assert builds() == 1
    assert heard == [f"building FleetFn's wheel from {tmp_path / 'a checkout'}"]
    assert (tmp_path / "calls").read_text() == "315532800\n"
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [first.parent.name]


def test_a_change_of_a_checkout_is_seen(tmp_path, checkout, builds):
    wheel.of_this_fleetfn(tmp_path / "cache")
    (checkout / "functions/fleetfn/new.py").write_text("")
    wheel.of_this_fleetfn(tmp_path / "cache")
    (checkout / "pyproject.toml").write_text(PROJECT + "# changed\n")
    wheel.of_this_fleetfn(tmp_path / "cache")
    assert builds() == 3


def test_what_is_not_in_the_wheel_changes_nothing(tmp_path, checkout, builds):
    wheel.of_this_fleetfn(tmp_path / "cache")
    (checkout / "functions/fleetfn/__pycache__").mkdir()
    (checkout / "functions/fleetfn/__pycache__/x.pyc").write_text("")
    (checkout / "notes.txt").write_text("")
    wheel.of_this_fleetfn(tmp_path / "cache")
    assert builds() == 1


def test_old_wheels_go(tmp_path, checkout, builds):
    for number in range(wheel._KEPT + 3):
        (checkout / "functions/fleetfn/__init__.py").write_text("#" * number)
        last = wheel.of_this_fleetfn(tmp_path / "cache")
        os.utime(last, (number, number))
    assert len(list((tmp_path / "cache").iterdir())) == wheel._KEPT
    assert last.is_file()
    assert builds() == wheel._KEPT + 3


@pytest.mark.usefixtures("checkout", "builds")
def test_a_build_that_fails_says_why_and_what_to_do(tmp_path):
    (tmp_path / "bin/uv").write_text("#!/bin/sh\necho 'error: Failed to resolve requirements'\nexit 2\n")
    with pytest.raises(BuildError, match="Failed to resolve requirements") as caught:
        wheel.of_this_fleetfn(tmp_path / "cache")
    assert "name its file" in caught.value.hint
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("site")
def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="cannot be written to"):
        wheel.of_this_fleetfn(tmp_path / "file" / "cache")


def test_uv_that_is_missing_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="uv is not there") as caught:
        wheel.uv_path()
    assert caught.value.hint == "pip install 'fleetfn[build]'"


def test_a_look_at_a_checkout_takes_a_blink():
    """Of this very checkout, in seconds of the processor, and the best of several: other tests run beside it."""
    checkout = Path(__file__).parents[3]

    def once():
        start = time.thread_time()
        wheel._of_checkout(checkout)
        return time.thread_time() - start

    assert min(once() for _ in range(5)) < 0.05


def test_what_says_why_it_cannot_be_built_shows_no_key_of_an_index(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://pypi.example/simple?key=k3y-k3y")
    said = ["error: Failed to fetch: `https://pypi.example/simple/hatchling/?key=k3y-k3y`"]
    monkeypatch.setattr(wheel, "run", lambda *_, **__: (2, said))
    with pytest.raises(BuildError, match="cannot be built") as caught:
        wheel._build(tmp_path, tmp_path)
    assert "k3y-k3y" not in caught.value.message
