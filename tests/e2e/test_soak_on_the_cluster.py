"""The soak in a namespace of the cluster: kills, deleted pods and sleep under load, and the judge that knows nothing of
FleetFn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TESTS = Path(__file__).parent.parent
PORT = 21500
LIMIT = 1800.0
"""Seconds. A short run takes three minutes, a full one about ten."""


def test_nothing_is_lost_and_nothing_counts_twice_while_pods_are_killed(
    kubeconfig: Path, registry_address: str, python_image: str
) -> None:
    size = os.environ.get("FN_E2E_SOAK", "short" if os.environ.get("CI") == "true" else "full")
    command = [sys.executable, "-m", "soak", "--place", "cluster", "--size", size, "--seeds", "1"]
    command += ["--port", str(PORT), "--base", python_image, "--settle", "400"]
    names = {"FN_E2E_KUBECONFIG": str(kubeconfig), "FN_E2E_REGISTRY": registry_address}
    done = subprocess.run(
        command, cwd=TESTS, env=os.environ | names, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
