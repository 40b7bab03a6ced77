"""Tables of broken files: see broken_functions.txt."""

from pathlib import Path
from typing import Any

import pytest


def cases(table: str) -> list[Any]:
    """(lines of the valid example, what they are replaced by, problems told) for each case of a table."""
    found = []
    for case in (Path(__file__).parent / table).read_text().split("\n=== ")[1:]:
        name, *lines = case.splitlines()
        old, new, told = ([line[2:] for line in lines if line.startswith(mark)] for mark in ("- ", "+ ", "> "))
        found.append(pytest.param("\n".join(old) + "\n", "".join(f"{line}\n" for line in new), told, id=name))
    return found
