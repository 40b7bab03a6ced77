"""JSON Schemas of function.yaml and environments.yaml, generated from the models: `python -m fleetfn_spec.schema`.

Editors take them by a first line `# yaml-language-server: $schema=<path or URL of the file>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fleetfn_spec.environments import Environments
from fleetfn_spec.function import Function

FOLDER = Path(__file__).parent / "schemas"

MODELS: dict[str, type[msgspec.Struct]] = {"function": Function, "environments": Environments}

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(model: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$schema": _DIALECT, **msgspec.json.schema(model)}


def rendered(name: str) -> bytes:
    return msgspec.json.format(msgspec.json.encode(schema(MODELS[name]), order="sorted"), indent=2) + b"\n"


def path(name: str) -> Path:
    """Where the schema of `function` or `environments` is kept."""
    return FOLDER / f"{name}.schema.json"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in MODELS:
        path(name).write_bytes(rendered(name))


if __name__ == "__main__":
    main()
