"""What bin/build makes of a plan, and of none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from fleetfn_builder import buildpack_files
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.target import of_this_machine
from fleetfn_builder.buildpack import building
from fleetfn_builder.buildpack.building import Base, Place, Plan
from tiny_wheels import wheel

OWN = Path(buildpack_files.__file__).parent / "buildpack"
WHEEL = "fleetfn-9.1-py3-none-any.whl"
METADATA = "Provides-Extra: worker\nProvides-Extra: gateway\nProvides-Extra: kafka\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A buildpack whose FleetFn needs nothing, and a function's folder."""
    made = Place(
        app=tmp_path / "app",
        layers=tmp_path / "layers",
        buildpack=tmp_path / "buildpack",
        platform=tmp_path / "platform",
    )
    for folder in (made.app, made.layers, made.buildpack / "bin", made.platform / "fleetfn"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    (made.buildpack / "bin" / "uv").symlink_to(buildpack_files.uv_path())
    wheel(made.buildpack / "wheels", "fleetfn", "9.1", metadata=METADATA, files={"fleetfn/__init__.py": "V = 1\n"})
    return made


def write_plan(place: Place, **changed: object) -> None:
    plan = {"function": "alert", "labels": {"dev.fleetfn.function": "alert"}, "wheel": WHEEL, "needs": []} | changed
    (place.platform / building.PLAN).write_bytes(msgspec.json.encode(plan))


def test_makes_layers_the_process_labels_and_the_bill(place):
    write_plan(place)
    building.build(place)

    launch = tomllib.loads((place.layers / "launch.toml").read_text())
    [process] = launch["processes"]
    assert process["command"] == anatomy.COMMAND
    assert (process["type"], process["default"], process["working-dir"]) == ("worker", True, anatomy.CODE)
    assert launch["labels"] == [{"key": "dev.fleetfn.function", "value": "alert"}]
    bill = json.loads((place.layers / "launch.sbom.cdx.json").read_text())
    assert [each["name"] for each in bill["components"]] == ["fleetfn"]
    assert (place.layers / "runtime" / "fleetfn" / "__init__.py").is_file()
    assert {each.name.removesuffix(".override") for each in (place.layers / "runtime/env.launch").iterdir()} == set(
        anatomy.ENVIRONMENT
    )
    types = tomllib.loads((place.layers / "dependencies.toml").read_text())["types"]
    assert types == {"launch": True, "cache": True}
    assert not list(place.app.iterdir())


def test_keeps_layers_until_what_they_are_made_of_changes(place, tmp_path):
    write_plan(place)
    building.build(place)
    marks = [place.layers / name / "mark" for name in ("dependencies", "runtime")]
    for mark in marks:
        mark.touch()

    building.build(place)
    assert [mark.exists() for mark in marks] == [True, True]

    wheel(tmp_path / "wheels", "tyres")
    (place.app / "requirements.txt").write_text(f"--find-links {tmp_path / 'wheels'}\ntyres\n")
    building.build(place)
    assert [mark.exists() for mark in marks] == [False, True]
    assert (place.layers / "dependencies" / of_this_machine().site_packages / "tyres").is_dir()


NESTED = "-r more.txt\n"


@pytest.mark.parametrize(
    ("path", "requirements"),
    [("pins.txt", NESTED), ("uv.toml", ""), ("own/own.txt", "# / and .\n--find-links=./own\n"), ("plan", "")],
    ids=["named by what is named", "uv's own file", "in a folder", "variables"],
)
def test_makes_dependencies_anew_for_all_that_decides_them(place, path, requirements):
    (place.app / "more.txt").write_text("-c pins.txt\n")
    (place.app / "pins.txt").write_text("")
    (place.app / "own").mkdir()
    (place.app / "requirements.txt").write_text(requirements)
    write_plan(place)
    building.build(place)
    mark = place.layers / "dependencies" / "mark"
    mark.touch()
    (place.app / "code.py").write_text("X = 1\n")
    building.build(place)
    assert mark.exists()

    if path == "plan":
        write_plan(place, variables="others")
    else:
        (place.app / path).write_text("resolution = 'lowest'\n" if path == "uv.toml" else "idna<3\n")
    building.build(place)
    assert not mark.exists()


def test_makes_a_layer_anew_that_did_not_come_back(place):
    write_plan(place)
    building.build(place)
    before = (place.layers / "runtime.toml").read_text()
    for path in sorted((place.layers / "runtime").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (place.layers / "runtime").rmdir()

    building.build(place)
    assert (place.layers / "runtime" / "fleetfn" / "__init__.py").is_file()
    assert (place.layers / "runtime.toml").read_text() == before


def test_refuses_a_run_image_with_another_python(place):
    write_plan(place, base={"name": "slim", "digest": "sha256:0", "python": "3.9", "interpreter": "/usr/bin/python3.9"})
    with pytest.raises(AssemblyError, match=r"run image slim has 3\.9 at /usr/bin/python3\.9"):
        building.build(place)


def test_does_not_ask_the_run_image_where_a_buildpack_brings_python(place):
    plan = Plan(function="a", wheel=WHEEL, needs=[], base=Base("slim", "sha256:0", "", ""))
    target = of_this_machine()
    brought = type(target)(target.python, target.architecture, target.libc, "/layers/some_python/bin/python3")
    building._check_base(brought, plan)


def test_takes_the_wheel_that_came_with_the_plan(place):
    write_plan(place)
    wheel(place.buildpack / "wheels", "fleetfn", "8.0", files={"fleetfn/old.py": ""})
    building.build(place)
    assert not (place.layers / "runtime" / "fleetfn" / "old.py").exists()


def test_says_that_a_plan_is_of_another_version(place):
    write_plan(place, colour="green")
    with pytest.raises(AssemblyError, match=r"plan .* cannot be read"):
        building.build(place)


def test_detects_a_function_by_its_yaml(tmp_path):
    plan = tmp_path / "plan.toml"
    env = {"CNB_BUILD_PLAN_PATH": str(plan), "PATH": os.environ["PATH"]}
    run = subprocess.run([str(OWN / "bin" / "detect")], cwd=tmp_path, env=env, check=False)
    assert run.returncode == 100
    (tmp_path / "function.yaml").touch()
    subprocess.run([str(OWN / "bin" / "detect")], cwd=tmp_path, env=env, check=True)
    written = tomllib.loads(plan.read_text())
    assert written["requires"] == [{"name": "cpython", "metadata": {"build": True, "launch": True}}]
    assert [[each["name"] for each in one.get("requires", [])] for one in written["or"]] == [["python"], []]


def test_says_that_there_is_no_python(tmp_path):
    env = {"PATH": str(tmp_path), "CNB_BUILDPACK_DIR": str(tmp_path)}
    run = subprocess.run(["/bin/sh", str(OWN / "bin" / "build")], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("Error: the builder image has no Python")


def test_runs_from_a_copy_by_nothing_but_python(place, tmp_path):
    """As it lies in a builder image."""
    write_plan(place)
    fleetfn = next((place.buildpack / "wheels").iterdir())
    for tree in buildpack_files.collect(fleetfn).trees:
        path = place.buildpack / tree.path.removeprefix(f"{buildpack_files.folder()}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(tree.source)
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "python3").symlink_to(Path(sys.executable).resolve())
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'python'}:/usr/bin:/bin",
        "CNB_LAYERS_DIR": str(place.layers),
        "CNB_BUILDPACK_DIR": str(place.buildpack),
        "CNB_PLATFORM_DIR": str(place.platform),
    }
    run = subprocess.run(
        [str(place.buildpack / "bin" / "build")], cwd=place.app, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (place.layers / "launch.toml").is_file()


def test_has_a_version_and_an_api_that_lifecycles_know():
    assert buildpack_files.about()["id"] == "fleetfn/python"
    assert buildpack_files.folder() == "/cnb/buildpacks/fleetfn_python/0.1.0"
    assert anatomy.DEPENDENCIES == "/layers/fleetfn_python/dependencies"
