"""What is wrong with a YAML file or a deploy: every problem at once, each with its place and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetfn.errors import FleetError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`line` and `column` count from 1; 0: not known. `field`: `spec.triggers[0].kafka.topic`, or ''."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [place, self.field, self.message] if self.field else [place, self.message]
        return ": ".join(parts) + (f"; {self.hint}" if self.hint else "")


class SpecError(FleetError):
    """function.yaml, environments.yaml or a deploy is wrong; `problems` holds all of it, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))
