"""What `fn new` writes. Files end in `.in` here, so that no tool takes them for code of this package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from fleetfn.errors import UsageError

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_ENDING = ".in"


def write(template: str, name: str, folder: Path) -> list[Path]:
    """Write the template's files; those written. Raises UsageError: a bad name, or a folder that holds something."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a function",
            hint="Lower-case letters, digits and dashes, a letter first: fn new tyre-alert",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty", hint="Choose another with --folder.")
    written = []
    for relative, source in _files(resources.files(__name__) / template, Path()):
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text("utf-8").replace("{{name}}", name), "utf-8")
        written.append(target)
    return written


def _files(folder: Traversable, inside: Path) -> Iterator[tuple[Path, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, inside / entry.name)
        elif entry.name.endswith(_ENDING):
            yield inside / entry.name.removesuffix(_ENDING), entry
