"""Which builder is taken, and what an unchanged build does not import."""

import gc
import subprocess
import sys

import pytest
from fleetfn.errors import UsageError
from fleetfn_builder import choosing
from fleetfn_builder.builder import BuildError


@pytest.fixture
def no_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    yield
    gc.collect()  # the Docker SDK leaves sockets open that do not connect


@pytest.fixture
def no_uv(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_direct_where_nobody_says_though_an_engine_may_be_there():
    builder, why = choosing.choose(None)
    assert (builder.name, why) == ("direct", "it needs no Docker")


@pytest.mark.parametrize("name", ["direct", "buildpacks"])
def test_the_one_that_is_asked_for(name):
    builder, why = choosing.choose(name)
    assert (builder.name, why) == (name, "as asked")


def test_a_builder_image_is_for_buildpacks():
    builder, why = choosing.choose(None, builder_image="registry.example/builder:1")
    assert builder.name == "buildpacks"
    assert "registry.example/builder:1" in why
    with pytest.raises(UsageError, match="is for buildpacks"):
        choosing.choose("direct", builder_image="registry.example/builder:1")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_direct_cannot_work_it_says_why(no_uv, no_engine):
    with pytest.raises(BuildError, match="uv"):
        choosing.choose("direct")
    with pytest.raises(BuildError, match=r"no builder can work here: direct: .*uv.*; buildpacks: .*none\.sock"):
        choosing.choose(None)


def test_is_there_an_engine(no_engine):
    assert not choosing.has_engine()


def test_neither_http_nor_docker_is_imported_before_somebody_needs_it():
    code = "import sys, fleetfn_builder.choosing, fleetfn_builder.direct; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"httpx", "docker", "requests", "concurrent.futures"} & set(done.stdout.split())
