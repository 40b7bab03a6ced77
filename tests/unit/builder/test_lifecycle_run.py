"""What a container of the lifecycle's creator is given, and what is made of its end."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from fake_engine import FakeEngine, image
from fleetfn_builder import builder_labels, lifecycle_run
from fleetfn_builder.assembly.layers import Tree
from fleetfn_builder.builder import BuildError
from fleetfn_builder.buildpack.building import Plan, read_plan
from fleetfn_builder.buildpack_files import BuildpackFiles
from fleetfn_builder.inputs import Source
from fleetfn_builder.lifecycle_run import Errand
from fleetfn_plumbing import source as sources

REPORT = {"/layers/report.toml": b'[image]\nimage-id = "sha256:abc"\ndigest = "sha256:def"\n'}
SECRET = "-".join(["hunter2"] * 2)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in (*lifecycle_run._INDEX, *lifecycle_run._PROXY, "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def errand(tmp_path):
    def make(**changed):
        folder = tmp_path / "function"
        folder.mkdir(exist_ok=True)
        (folder / "function.yaml").write_text("name: alert\n")
        (folder / "secret.key").write_text("not a source\n")
        names = [Path("function.yaml")]
        (tmp_path / "detect").write_text("#!/bin/sh\n")
        metadata = builder_labels.Metadata(buildpacks=[builder_labels.Buildpack("paketo-buildpacks/cpython", "1.2.3")])
        plan = Plan(function="alert", wheel="fleetfn-1.whl", needs=["msgspec"])
        fields = {
            "names": ["registry.example/alert:1", "registry.example/alert:2"],
            "builder": builder_labels.BuilderImage(
                name="builder", image=image(), metadata=metadata, platform_api="0.13", user="1001", group="1002"
            ),
            "buildpack": BuildpackFiles(
                [Tree(tmp_path / "detect", "/cnb/buildpacks/fleetfn_python/0/bin/detect")], "d"
            ),
            "run_image": "registry.example/alert@sha256:1",
            "plan": plan,
            "source": Source(folder, names, 1, sources.digest(folder, names), "r"),
            "to_engine": True,
            "created": 0,
            "labels": lifecycle_run.labels("alert", tmp_path / "cache"),
            "env": {"COLOUR": "green"},
            "secrets": {"UV_INDEX_URL": f"https://fn:{SECRET}@index.example/simple"},
        }
        return Errand(**(fields | changed))

    return make


def test_hands_over_the_source_the_buildpack_the_order_and_the_plan(errand, tmp_path):
    engine = FakeEngine(results=REPORT)
    assert lifecycle_run.run(engine, errand(), lambda _: None) == "sha256:abc"

    [(spec, container)] = engine.containers
    files = {name: content for name, (content, _) in container.files.items()}
    assert files["/workspace/function.yaml"] == b"name: alert\n"
    assert "/workspace/secret.key" not in files
    assert "/cnb/buildpacks/fleetfn_python/0/bin/detect" in files
    assert files["/platform/env/COLOUR"] == b"green"
    groups = tomllib.loads(files["/fleetfn/order.toml"].decode())["order"]
    ids = [[each["id"] for each in one["group"]] for one in groups]
    assert ids == [["paketo-buildpacks/cpython", "fleetfn/python"], ["fleetfn/python"]]
    (tmp_path / "plan.json").write_bytes(files["/platform/fleetfn/plan.json"])
    assert read_plan(tmp_path / "plan.json") == Plan(function="alert", wheel="fleetfn-1.whl", needs=["msgspec"])
    folder = container.files["/layers"][1]
    assert (folder.uid, folder.gid) == (1001, 1002)
    assert engine.left == 0
    assert spec.command[-1] == "registry.example/alert:1"
    assert "-daemon" in spec.command
    assert [spec.command[at + 1] for at, word in enumerate(spec.command) if word == "-tag"] == [
        "registry.example/alert:2"
    ]
    assert spec.environment["CNB_PLATFORM_API"] == "0.13"


def test_a_source_that_changed_meanwhile_is_not_built(errand):
    engine = FakeEngine(results=REPORT)
    asked = errand()
    (asked.source.folder / "function.yaml").write_text("name: other\n")
    with pytest.raises(BuildError, match="changed while it was read"):
        lifecycle_run.run(engine, asked, lambda _: None)
    assert engine.left == 0


def test_a_secret_is_in_a_file_of_the_container_and_nowhere_else(errand):
    engine = FakeEngine(
        results=REPORT, says=[f"fetching https://fn:{SECRET}@index.example/simple/x", f"it is {SECRET}"]
    )
    told = []
    job = errand()
    lifecycle_run.run(engine, job, told.append)

    [(spec, container)] = engine.containers
    holding = [name for name, (content, _) in container.files.items() if SECRET.encode() in content]
    assert holding == ["/platform/env/UV_INDEX_URL"]
    assert SECRET not in repr(spec) + repr(job) + str(spec.command) + str(spec.environment) + "".join(told)
    assert told[1] == "it is ***"


def test_of_the_environment_what_chooses_versions_is_told(errand, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"https://fn:{SECRET}@index.example/simple")
    monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert lifecycle_run.choosing() == {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    engine = FakeEngine(results=REPORT)
    lifecycle_run.run(engine, errand(), lambda _: None)
    [(_, container)] = engine.containers
    assert container.files["/platform/env/UV_INDEX_STRATEGY"][0] == b"unsafe-best-match"


def test_credentials_go_by_the_environment_which_is_not_shown(errand):
    engine = FakeEngine(results=REPORT)
    job = errand(to_engine=False, credentials={"registry.example": f"Basic {SECRET}"}, insecure=["127.0.0.1:5"])
    assert lifecycle_run.run(engine, job, lambda _: None) == "sha256:def"

    [(spec, _)] = engine.containers
    assert json.loads(spec.environment["CNB_REGISTRY_AUTH"]) == {"registry.example": f"Basic {SECRET}"}
    assert SECRET not in repr(spec) + repr(job)
    assert "-daemon" not in spec.command
    assert spec.command[spec.command.index("-insecure-registry") + 1] == "127.0.0.1:5"
    assert all(mount.source != engine.socket_path for mount in spec.mounts)


def test_a_builder_that_has_this_very_buildpack_gets_no_other(errand):
    engine = FakeEngine(results=REPORT)
    job = errand()
    known = builder_labels.BuilderImage(
        name="builder",
        image=image(labels={"dev.fleetfn.buildpack": "d"}),
        metadata=job.builder.metadata,
        platform_api="0.13",
        user="1001",
        group="1002",
    )
    lifecycle_run.run(engine, errand(builder=known), lambda _: None)
    [(_, container)] = engine.containers
    assert not any(name.startswith("/cnb/") for name in container.files)


def test_a_fresh_build_removes_what_was_kept(errand):
    engine = FakeEngine(results=REPORT)
    lifecycle_run.run(engine, errand(fresh=True), lambda _: None)
    assert engine.removed == ["fleetfn-layers-alert"]
    [(spec, container)] = engine.containers
    assert not any(mount.source == "fleetfn-uv" for mount in spec.mounts)
    assert "/platform/env/UV_CACHE_DIR" not in container.files


@pytest.mark.parametrize(
    ("code", "says", "message", "hint"),
    [
        pytest.param(
            51,
            [
                "===> BUILDING",
                "Error: no such package",
                "  because it is not",
                "Hint: look again",
                "ERROR: failed to build",
            ],
            "no such package\n  because it is not",
            "look again",
            id="the buildpack says why",
        ),
        pytest.param(
            62,
            ["ERROR: failed to export: saving image", "ERROR: 401"],
            "the lifecycle ended with exit code 62: failed to export: saving image\n401",
            "",
            id="the lifecycle says why",
        ),
        pytest.param(
            20, ["fail: fleetfn/python"], "no buildpack of builder takes the folder", "function.yaml", id="none"
        ),
        pytest.param(137, ["one", "", "two"], "exit code 137: one\ntwo", "", id="nobody says why"),
    ],
)
def test_says_why_a_build_failed(errand, code, says, message, hint):
    engine = FakeEngine(code=code, says=says)
    with pytest.raises(BuildError) as caught:
        lifecycle_run.run(engine, errand(), lambda _: None)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert engine.left == 0


def test_a_container_says_of_which_function_and_by_which_cache_it_is(errand, tmp_path):
    engine = FakeEngine(results=REPORT)
    lifecycle_run.run(engine, errand(), lambda _: None)
    [(spec, _)] = engine.containers
    assert spec.labels[lifecycle_run.LABEL] == "alert"
    assert spec.labels == lifecycle_run.labels("alert", tmp_path / "other" / ".." / "cache")
    assert spec.labels != lifecycle_run.labels("alert", tmp_path / "other")


def test_ctrl_c_leaves_no_container(errand):
    engine = FakeEngine(raises=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        lifecycle_run.run(engine, errand(), lambda _: None)
    assert (len(engine.containers), engine.left) == (1, 0)
