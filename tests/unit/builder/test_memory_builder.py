"""The builder in memory, where its images do not go to a registry."""

import pytest
import seen_images
from fleetfn_builder import references
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError, Platform, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.layouts import Layout
from fleetfn_builder.memory import MemoryBuilder
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
TAG = references.parse("hello:1")


@pytest.fixture
def ask(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "function.yaml").write_text(FUNCTION)
    (source / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    function = load_function(source)
    return lambda destination: Request(source, function, (TAG,), destination, (Platform("amd64"),))


def test_into_a_file(ask, tmp_path):
    built = MemoryBuilder().build(ask(ToFile(tmp_path / "out")), lambda _: None)
    layout = Layout(tmp_path / "out")
    seen = seen_images.look(layout, layout.resolve(str(TAG)))
    assert (built.reference, built.digest) == (str(tmp_path / "out"), seen.digest)
    assert f"{anatomy.CODE}/handler.py" in seen.files()


def test_into_an_engine_which_knows_it_by_its_config(ask):
    builder = MemoryBuilder()
    built = builder.build(ask(ToEngine()), lambda _: None)
    seen = seen_images.look(builder.engine, builder.engine.resolve("hello:1"))
    assert (built.reference, built.digest) == ("hello:1", seen.manifest.config.digest)
    assert builder.build(ask(ToEngine()), lambda _: None).unchanged


def test_one_that_is_broken_says_why_and_leaves_nothing(ask):
    builder = MemoryBuilder(broken=lambda request: f"{request.function.name} has no wheel")
    with pytest.raises(BuildError, match="hello has no wheel"):
        builder.build(ask(ToRegistry()), lambda _: None)
    assert builder.repositories[TAG.repository].versions == {}
