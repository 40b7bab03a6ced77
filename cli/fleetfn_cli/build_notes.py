"""What earlier builds told: that a source passed its checks, and which layers a function's last image had.

Beside the builders' own cache. Losing a note costs a check, or a word in a table.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path


class Notes:
    def __init__(self, cache: Path) -> None:
        self._folder = cache / "notes"

    def passed(self, revision: str) -> bool:
        """The very source, with this Python and this FleetFn."""
        return self._path("checked", revision).exists()

    def passes(self, revision: str) -> None:
        self._write(self._path("checked", revision), "")

    def layers(self, image: str) -> set[str]:
        """Digests."""
        try:
            return set(self._path("layers", image).read_text("utf-8").split())
        except OSError:
            return set()

    def has_layers(self, image: str, digests: list[str]) -> None:
        self._write(self._path("layers", image), "\n".join(digests))

    def _path(self, kind: str, key: str) -> Path:
        whole = f"{key} {version('fleetfn')} {sys.executable}" if kind == "checked" else key
        return self._folder / kind / hashlib.sha256(whole.encode()).hexdigest()

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
