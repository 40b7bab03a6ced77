"""Relative paths in a connection: of certificates, and of files that secrets are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
from fleetfn_triggers.secret import Secret

FILES = frozenset({"ca", "certificate", "key"})
"""Fields of a connection's `tls` that are paths."""

T = TypeVar("T")


def anchored(connection: T, folder: Path) -> T:
    """The connection with its relative paths made absolute, starting at `folder`."""

    def absolute(value: Any, field: str = "") -> Any:
        if isinstance(value, Secret):
            return Secret(file=str(folder / value.file)) if value.file is not None else value
        if isinstance(value, msgspec.Struct):
            fields = {name: absolute(getattr(value, name), name) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        return str(folder / value) if field in FILES and isinstance(value, str) else value

    return absolute(connection)  # type: ignore[no-any-return]  # it is what came in
