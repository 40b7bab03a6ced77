"""A Docker engine for tests (`scripts/docker.sh`), and an image with Python to build on (`scripts/base_image.sh`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fleetfn_builder import builder_create, references
from fleetfn_builder import engine as engines
from fleetfn_builder.builder import BuildError
from fleetfn_builder.engine import Engine

SCRIPTS = Path(__file__).parent.parent / "scripts"
CACHE = SCRIPTS.parent / ".cache" / "buildpacks"
"""With the lifecycle's programs, which Go takes a minute to build."""


@pytest.fixture(scope="session")
def docker_address() -> str:
    """FN_TEST_DOCKER, or the engine that `scripts/docker.sh` started: unix://..."""
    named = os.environ.get("FN_TEST_DOCKER")
    address = named or _said("docker.sh", "address")
    if not Path(address.removeprefix("unix://")).exists():
        _missing(f"no Docker engine at {address}; start one: scripts/docker.sh start && scripts/docker.sh wait", named)
    return address


@pytest.fixture
def docker_engine(docker_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Spoken to by DOCKER_HOST, as a user names it."""
    monkeypatch.setenv("DOCKER_HOST", docker_address)
    try:
        engine = engines.connect()
    except BuildError as error:
        _missing(f"{error.message}; start one: scripts/docker.sh start", docker_address)
    with closing(engine):
        yield engine


@pytest.fixture(scope="session")
def base_tarball() -> Path:
    """FN_TEST_BASE, or what `scripts/base_image.sh` has made."""
    named = os.environ.get("FN_TEST_BASE")
    found = Path(named) if named else next((SCRIPTS.parent / ".cache").glob("base-image-*.tar"), None)
    if found is None or not found.is_file():
        _missing("no base image with Python; make one: scripts/base_image.sh", named)
    return found


@pytest.fixture(scope="session")
def builder_image(docker_address: str, base_tarball: Path) -> str:
    """Made once, by Go and from the tarball."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", docker_address)
        wanted = builder_create.Wanted(name=references.parse("fleetfn-tests/builder:1"), base=str(base_tarball))
        return builder_create.create(wanted, lambda _: None, cache=CACHE).reference


def _missing(text: str, named: str | None) -> None:
    if os.environ.get("CI") == "true" or named:
        pytest.fail(text)
    pytest.skip(text)


def _said(script: str, command: str) -> str:
    done = subprocess.run([str(SCRIPTS / script), command], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()
