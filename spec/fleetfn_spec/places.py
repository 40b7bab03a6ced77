"""Where in a YAML file each value stands, so that rules across fields can say so."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleetfn_spec.problems import Problem

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Places:
    """`spots`: path of a value -> (line, column), from 1. A path that is not there has the place of its parent."""

    file: str
    spots: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def problem(self, path: Path, message: str, hint: str = "") -> Problem:
        at = path
        while at and at not in self.spots:
            at = at[:-1]
        line, column = self.spots.get(at, (0, 0))
        return Problem(self.file, line, column, dotted(path), message, hint)


def dotted(path: Path) -> str:
    """("spec", "triggers", 0, "name") -> `spec.triggers[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
