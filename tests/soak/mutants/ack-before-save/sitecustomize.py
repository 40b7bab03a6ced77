"""Deliveries are settled with their source before their record is saved, by a disk that takes its time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

from patching import SLOW, when_imported


def _change(stages: ModuleType) -> None:
    save = stages.Stages._save

    async def settle_first(self: Any, runs: list[Any]) -> None:
        for run in runs:
            for link in run.links():
                delivery = link.delivery
                source = delivery.source
                if link.asked is None and not link.waits and source.owns(delivery):
                    source.settle(delivery, stages.Done())
                    delivery.source = SimpleNamespace(owns=source.owns, settle=lambda *_: None)
        await asyncio.sleep(SLOW)
        await save(self, runs)

    stages.Stages._save = settle_first


when_imported("fleetfn_runtime.stages", _change)
