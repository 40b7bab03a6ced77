"""What is read off a builder image, and off what its lifecycle has left."""

from __future__ import annotations

import json

import pytest
from fake_engine import FakeEngine, image
from fleetfn_builder import builder_labels, lifecycle_result
from fleetfn_builder.builder import BuildError

ENV = ["PATH=/bin", "CNB_USER_ID=1000", "CNB_GROUP_ID=1001"]


def labels(*apis: str, **more: object) -> dict[str, str]:
    told = {"lifecycle": {"version": "0.21.17", "apis": {"platform": {"supported": list(apis)}}}} | more
    return {builder_labels.METADATA: json.dumps(told)}


def test_reads_whom_buildpacks_run_as_and_the_newest_api_that_both_know():
    engine = FakeEngine({"b": image(labels=labels("0.7", "0.12", "0.13", "0.15"), env=ENV)})
    found = builder_labels.describe("b", engine)
    assert (found.platform_api, found.user, found.group, found.run_image) == ("0.13", "1000", "1001", "")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"images": [{"image": "run:1"}, {"image": "run:2"}]}, id="images"),
        pytest.param({"stack": {"runImage": {"image": "run:1", "mirrors": []}}}, id="stack"),
    ],
)
def test_reads_the_run_image(more):
    engine = FakeEngine({"b": image(labels=labels("0.12", **more), env=ENV)})
    assert builder_labels.describe("b", engine).run_image == "run:1"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param(None, "no builder image 'b'", id="none"),
        pytest.param(image(), "lacks io.buildpacks.builder.metadata, CNB_USER_ID, CNB_GROUP_ID", id="another image"),
        pytest.param(image(labels=labels("0.12"), env=ENV[:2]), "lacks CNB_GROUP_ID", id="no group"),
        pytest.param(image(labels={builder_labels.METADATA: "{"}, env=ENV), "cannot be read", id="garbled"),
        pytest.param(image(labels=labels("0.3", "0.4"), env=ENV), "APIs 0.3, 0.4: 0.12 or later", id="too old"),
    ],
)
def test_refuses_what_is_no_builder(found, message):
    with pytest.raises(BuildError, match=message):
        builder_labels.describe("b", FakeEngine({"b": found} if found else {}))


def test_calls_layers_by_what_they_hold():
    told = {
        "app": [{"sha": "code"}],
        "sbom": {"sha": "sbom"},
        "config": {"sha": "config"},
        "buildpacks": [
            {"key": "paketo-buildpacks/cpython", "layers": {"cpython": {"sha": "python"}}},
            {"key": "fleetfn/python", "layers": {"dependencies": {"sha": "deps"}, "runtime": {"sha": "own"}}},
        ],
        "runImage": {"topLayer": "b2"},
    }
    diff_ids = ["b1", "b2", "python", "deps", "own", "code", "sbom", "launcher", "config"]
    expected = ["base", "base", "dependencies", "dependencies", "runtime", "code", "sbom", "launch", "launch"]
    assert lifecycle_result.names({lifecycle_result.LABEL: json.dumps(told)}, diff_ids) == expected


def test_says_that_no_lifecycle_has_made_it():
    with pytest.raises(BuildError, match="cannot be read"):
        lifecycle_result.names({}, ["a"])
