"""What importing a function's handlers and binding them has found, and the process of its own that does it.

`python -P -m fleetfn_cli.found FOLDER FUNCTION RESULT`: what a user's module does while it is imported (crash, hang,
print) then happens to nobody else. FUNCTION holds what was read of function.yaml, as JSON: reading it again would take
a fifth of the time. RESULT gets Looked as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from fleetfn_cli import short_life


class Found(msgspec.Struct, frozen=True):
    """`place`: `handler.py:12` below the folder, or ''. `module`: the one that is not installed, or ''."""

    message: str
    hint: str = ""
    place: str = ""
    module: str = ""


class Looked(msgspec.Struct, frozen=True):
    """`keeps_state`: a handler takes State or Snapshot, or one could not be looked at."""

    found: list[Found]
    keeps_state: bool = True


def main() -> None:
    short_life.begin()
    from fleetfn_spec.function import Function

    from fleetfn_cli import binding

    folder, given, result = map(Path, sys.argv[1:])
    looked = binding.look(msgspec.json.decode(given.read_bytes(), type=Function), folder)
    result.write_bytes(msgspec.json.encode(looked))


if __name__ == "__main__":
    main()
