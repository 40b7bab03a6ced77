"""The image with Python that functions of a run on a cluster are built on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from e2e.e2e_images import push, python_image

from soak.brokers import SCRIPTS


def pushed() -> str:
    """Its name in the cluster's registry, into which it is pushed."""
    made = subprocess.run([str(SCRIPTS / "base_image.sh")], capture_output=True, text=True, check=True)
    tarball = Path(made.stdout.strip())
    return push(tarball, python_image(tarball, os.environ["FN_E2E_REGISTRY"]))
