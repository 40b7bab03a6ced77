"""What the pages on images tell to type works as it stands there, with a registry and a base of this machine's."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.registry, pytest.mark.slow]

TYPED = [
    ("docs/building.md", "fn build samples/tyre-pressure"),
    ("docs/building.md", "fn build samples/tyre-pressure --to tyre-pressure.tar"),
    ("docs/building.md", "fn build samples/tyre-pressure --to tyre-pressure.oci"),
    ("docs/building.md", "fn build samples/tyre-pressure -t registry.example/fleet/tyre-pressure:1.4 --push"),
    ("docs/sbom.md", "fn build samples/battery-alert --sbom battery-alert.cdx.json"),
    ("docs/sbom.md", "docker create --name look battery-alert:latest"),
    ("docs/sbom.md", "docker cp look:/layers/sbom/launch/fleetfn_python/sbom.cdx.json battery-alert.cdx.json"),
    ("docs/sbom.md", "docker rm look"),
    ("docs/air-gapped.md", "fn build samples/battery-alert --to battery-alert.tar"),
    ("docs/air-gapped.md", "docker load -i battery-alert.tar"),
    ("docs/registries.md", "fn build -t registry.example/fleet/battery-alert:1.4 --push"),
    (
        "docs/registries.md",
        "fn build -t registry.example/fleet/battery-alert:1.4 -t registry.example/fleet/battery-alert:latest --push",
    ),
]


@pytest.fixture(scope="module")
def reader(docker_address, base_tarball, registry, tmp_path_factory):
    home = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "samples", home / "samples", ignore=shutil.ignore_patterns("__pycache__", ".fleetfn"))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FN_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOCKER_HOST": docker_address,
        "FN_BUILD_BASE": str(base_tarball),
        "FN_CACHE": str(home / "cache"),
    }

    def run(line):
        where = home if "samples/" in line or not line.startswith("fn ") else home / "samples" / "battery-alert"
        line = line.replace("registry.example", registry)
        return subprocess.run(
            ["bash", "-c", line], cwd=where, env=environ, capture_output=True, text=True, timeout=300, check=False
        )

    run("docker rm -f look")  # of a reader who did not come to its removal
    yield run
    run("docker rm -f look")
    for name in ("tyre-pressure", "battery-alert"):
        run(f"docker rmi -f $(docker images -q {name})")


def test_what_is_typed_works(reader):
    if not shutil.which("docker"):
        pytest.skip("no docker command here")
    for page, line in TYPED:
        assert re.search(rf"(^|`){re.escape(line)}($|`)", (ROOT / page).read_text("utf-8"), re.MULTILINE), line
        done = reader(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
