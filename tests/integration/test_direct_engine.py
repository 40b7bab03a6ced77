"""The direct builder into a real Docker engine."""

import itertools
import os

import base_images
import pytest
import tiny_wheels
from fleetfn_builder import references
from fleetfn_builder.builder import Platform, Request, ToEngine
from fleetfn_builder.direct import DirectBuilder
from fleetfn_builder.layouts import Layout
from fleetfn_spec.load import load_function

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""
pytestmark = pytest.mark.docker
_numbers = itertools.count(1)


@pytest.fixture
def tags(docker_engine, tmp_path):
    name = f"fleetfn-tests/{tmp_path.name.replace('_', '-')}-{os.getpid()}-{next(_numbers)}"
    found = tuple(references.parse(f"{name}:{version}") for version in ("1", "latest"))
    yield found
    for each in found:
        if docker_engine.image(str(each)) is not None:
            docker_engine.remove_image(str(each))


@pytest.fixture
def build(tmp_path, tags):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    (source / "function.yaml").write_text(FUNCTION)
    base_images.leave(Layout(tmp_path / "base"))
    tiny_wheels.wheel(wheels, "tiny")
    own = tiny_wheels.wheel(tmp_path, "fleetfn", "9.9", files={"fleetfn_runtime/__init__.py": ""}, requires=["tiny"])

    def build(code):
        (source / "handler.py").write_text(code)
        request = Request(
            folder=source,
            function=load_function(source),
            tags=tags,
            destination=ToEngine(),
            platforms=(Platform("amd64"),),
            base=f"oci:{tmp_path / 'base'}",
            env={"UV_FIND_LINKS": str(wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"},
            wheel=own,
        )
        return DirectBuilder(tmp_path / "cache").build(request, lambda _: None)

    return build


def test_an_image_is_loaded_once_and_an_edit_changes_one_layer(build, docker_engine, tags):
    one = "def hello(name: str) -> str:\n    return name\n"
    first = build(one)
    seen = docker_engine.image(str(tags[0]))
    assert first.digest == seen.id == docker_engine.image(str(tags[1])).id
    assert first.reference.endswith(":1")
    assert seen.labels["dev.fleetfn.revision"] == first.revision
    assert build(one).unchanged

    second = build("def hello(name: str) -> str:\n    return name + name\n")
    after = docker_engine.image(str(tags[0]))
    assert not second.unchanged
    assert second.digest == after.id
    assert after.diff_ids[:-1] == seen.diff_ids[:-1]
    assert after.diff_ids[-1] != seen.diff_ids[-1]
    assert b"".join(docker_engine.save(after.id))  # every layer is there
