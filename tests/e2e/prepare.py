"""What builds inside the cluster's network need of the world, fetched while there is one: that network has no way out.

    python tests/e2e/prepare.py        prints the path of FleetFn's wheel, for FN_E2E_WHEEL

The builder's cache then has a wheel, and the layers of dependencies of all functions that tests deploy: one without
brokers, one with Kafka, the gateway. FN_E2E_REGISTRY as in conftest.py; tests/cluster/e2e.sh runs it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from e2e_images import push, python_image
from fleetfn_builder import keeping, wheel
from fleetfn_builder.builder import Platform
from fleetfn_cli.build_options import ARCHITECTURES
from fleetfn_cli.cluster_images import BuiltImages
from fleetfn_deploy.target import Source
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function

BASE_IMAGE = Path(__file__).parents[2] / "scripts" / "base_image.sh"

TRIGGERS: tuple[dict[str, Any], ...] = (
    {"name": "web", "http": {"path": "/prepared"}},
    {"name": "telemetry", "key": None, "kafka": {"topic": "prepared"}},
)
"""One for each set of libraries."""


def main() -> None:
    registry = os.environ.get("FN_E2E_REGISTRY", "127.0.0.1:5000")
    archive = Path(subprocess.run([BASE_IMAGE], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    environment = place(registry, push(archive, python_image(archive, registry)))
    made = wheel.of_this_fleetfn(keeping.default_folder() / "wheels", say)
    images = BuiltImages((Platform(ARCHITECTURES[platform.machine()]),), made)
    for source in sources():
        images.image(source, environment, say)
    images.gateway(environment, say)
    print(made)


def place(registry: str, base: str) -> Environment:
    target = {"namespace": "prepared", "registry": f"{registry}/prepared", "insecure": True, "base": base}
    return msgspec.convert({"name": "e2e", "target": {"kubernetes": target}}, Environment)


def sources() -> Iterator[Source]:
    for trigger in TRIGGERS:
        described = {
            "apiVersion": "fleetfn.dev/v1alpha1",
            "kind": "Function",
            "metadata": {"name": f"prepared-{trigger['name']}"},
            "spec": {"handler": "handler:nothing", "triggers": [trigger]},
        }
        with tempfile.TemporaryDirectory(prefix="fn-prepare-") as text:
            folder = Path(text)
            (folder / "function.yaml").write_bytes(msgspec.json.encode(described))
            (folder / "handler.py").write_text("def nothing() -> None: ...\n")
            yield Source(folder, msgspec.convert(described, Function))


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
