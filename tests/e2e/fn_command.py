"""`fn` for tests: what a user types, in a folder with an environments.yaml, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FN = Path(sys.executable).parent / "fn"


class Fn:
    """`fn` in a folder; `environ`: variables beside the test's own."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = {**os.environ, "FN_QUIET": "", **environ}

    def __call__(self, *words: object, given: str | None = None) -> str:
        """What it prints; AssertionError with its complaint where it fails."""
        done = self.run(*words, given=given)
        assert done.returncode == 0, f"fn {' '.join(map(str, words))}: {done.stderr}"
        return done.stdout

    def read(self, *words: object) -> Any:
        return json.loads(self(*words, "-o", "json"))

    def refused(self, *words: object) -> str:
        """Its complaint, from the `Error:` on."""
        done = self.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr[done.stderr.index("Error:") :]

    def run(self, *words: object, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FN, *map(str, words)],
            cwd=self.folder,
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *words: object) -> subprocess.Popen[str]:
        """One that goes on; its output is read line by line."""
        return subprocess.Popen(
            [FN, *map(str, words)], cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=None, text=True
        )


def write_environments(folder: Path, *environments: dict[str, Any]) -> None:
    described = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments", "environments": list(environments)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environments.yaml").write_text(json.dumps(described, indent=1))  # JSON is YAML
