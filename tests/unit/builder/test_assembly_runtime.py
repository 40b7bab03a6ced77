"""FleetFn unpacked for an image, and what its wheel says a worker needs."""

import csv
import stat

import pytest
from fleetfn_builder.assembly import runtime
from fleetfn_builder.assembly.errors import AssemblyError
from tiny_wheels import wheel

METADATA = """Requires-Dist: msgspec>=0.20
Requires-Dist: typer<0.29,>=0.26
Requires-Dist: Rich>=13
Requires-Dist: tzdata
Requires-Dist: confluent-kafka>=2.8; extra == 'kafka'
Requires-Dist: httpcore>=1.0; extra == "http"
Requires-Dist: fastapi>=0.115; extra == 'node'
Requires-Dist: uvloop>=0.21; (sys_platform == 'linux') and extra == 'worker'
Requires-Dist: uvloop>=0.21; (sys_platform == 'linux') and extra == 'gateway'
Requires-Dist: backport; python_version < '3.12'
"""
FILES = {
    "fleetfn/__init__.py": "",
    "fleetfn_runtime/__main__.py": "",
    "fleetfn_cli/main.py": "",
    "fleetfn_node/node.py": "",
    "fleetfn_builder/builder.py": "",
    "fleetfn_deploy/target.py": "",
}


@pytest.fixture(name="own")
def _own(tmp_path):
    return wheel(tmp_path, "fleetfn", "0.1.0", files=FILES, metadata=METADATA, scripts=["fn"])


def test_needs_are_those_of_the_extras_without_the_command_lines(own):
    assert runtime.needs(own, ["worker", "gateway"]) == [
        "backport; python_version < '3.12'",
        "msgspec>=0.20",
        "tzdata",
        "uvloop>=0.21; (sys_platform == 'linux')",
    ]
    assert {"confluent-kafka>=2.8", "httpcore>=1.0"} < set(runtime.needs(own))
    assert runtime.version(own) == "0.1.0"


def test_only_what_a_worker_imports_is_unpacked(own, tmp_path):
    runtime.unpack(own, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "fleetfn",
        "fleetfn-0.1.0.dist-info",
        "fleetfn_runtime",
    ]


def test_its_metadata_tell_of_what_is_there(own, tmp_path):
    runtime.unpack(own, tmp_path / "out")
    info = tmp_path / "out" / "fleetfn-0.1.0.dist-info"
    with (info / "RECORD").open(newline="") as lines:
        named = {row[0] for row in csv.reader(lines)}
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert named == there
    assert not (info / "entry_points.txt").exists()


def test_modes_are_plain(own, tmp_path):
    runtime.unpack(own, tmp_path / "out")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_another_packages_wheel_is_refused(tmp_path):
    with pytest.raises(AssemblyError, match="the wheel of other, not of fleetfn"):
        runtime.needs(wheel(tmp_path, "other"))


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "fleetfn.whl").write_text("no zip")
    with pytest.raises(AssemblyError, match="cannot be read: File is not a zip file"):
        runtime.version(tmp_path / "fleetfn.whl")
    with pytest.raises(AssemblyError, match="cannot be read: No such file"):
        runtime.unpack(tmp_path / "none.whl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(own, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AssemblyError, match="cannot be unpacked to"):
        runtime.unpack(own, tmp_path / "file" / "out")


def test_a_folder_that_is_there_is_left_alone(own, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(AssemblyError, match="is there already"):
        runtime.unpack(own, tmp_path / "out")
    assert (tmp_path / "out" / "mine").is_file()
