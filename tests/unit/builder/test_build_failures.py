"""What is said where a build cannot go on."""

from __future__ import annotations

import pytest
from fleetfn_builder import references
from fleetfn_builder.builder import BuildError, Platform, Request, ToFile
from fleetfn_builder.buildpacks import BuildpacksBuilder
from fleetfn_builder.direct import DirectBuilder
from fleetfn_spec.load import load_function
from listed_engine import ListedEngine

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@pytest.fixture
def request_for(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    return Request(
        folder=folder,
        function=load_function(folder),
        tags=(references.parse("registry.example/hello:1"),),
        destination=ToFile(tmp_path / "out"),
        platforms=(Platform("amd64"),),
    )


@pytest.mark.parametrize("kind", [DirectBuilder, BuildpacksBuilder])
def test_a_disk_that_does_not_take_files_is_named(tmp_path, monkeypatch, request_for, kind):
    (tmp_path / "cache" / "lock").mkdir(parents=True)
    with ListedEngine(tmp_path / "engine.sock") as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        with pytest.raises(BuildError, match=r"the build cannot go on: .*cache/lock: Is a directory"):
            kind(cache=tmp_path / "cache").build(request_for, lambda _: None)
