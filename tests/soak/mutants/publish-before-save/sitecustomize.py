"""What runs emit is published before their record is saved, by a disk that takes its time."""

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

    async def publish_first(self: Any, runs: list[Any]) -> None:
        await self._publisher.publish(tuple(emit for run in runs for emit in run.emits))
        await asyncio.sleep(SLOW)
        await save(self, runs)

    stages.Stages._save = publish_first


when_imported("fleetfn_runtime.stages", _change)
