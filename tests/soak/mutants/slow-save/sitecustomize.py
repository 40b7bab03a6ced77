"""The disk takes its time, as with the mutants beside this one, and nothing else: no fault, and none may be found."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

from patching import SLOW, when_imported


def _change(stages: ModuleType) -> None:
    save = stages.Stages._save

    async def save_late(self: Any, runs: list[Any]) -> None:
        await asyncio.sleep(SLOW)
        await save(self, runs)

    stages.Stages._save = save_late


when_imported("fleetfn_runtime.stages", _change)
