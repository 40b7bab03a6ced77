"""What a build depends on, and one digest over it: equal inputs are one image.

The folder's place, the time, the user and the tags are none of it. Neither are the values of secrets: a token that is
renewed makes no other image, and no label may be a key to guess it by.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from fleetfn.errors import TargetError
from fleetfn_plumbing import source
from fleetfn_spec.function import Function

from fleetfn_builder.builder import BuildError, Progress

LIMIT = 64 * 1024 * 1024
"""Bytes of all files together: what a node takes, so that a folder that can be built can be deployed anywhere."""

LARGE = 20 * 1024 * 1024
"""Bytes from which a source is likely to hold what was not meant to travel."""

_NAMED = 3
"""Files that the warning names."""

EPOCH = "SOURCE_DATE_EPOCH"
"""https://reproducible-builds.org/docs/source-date-epoch/"""

_DIGITS = 11
"""Of it: until the year 5138. Others than ours read it, too."""


@dataclass(frozen=True, slots=True)
class Source:
    """A function's folder as it is now."""

    folder: Path
    names: Sequence[Path]
    size: int
    """Bytes of all files."""
    files: str
    """Digest over the files alone."""
    revision: str
    """And over the function: what a node gives the same folder."""


def read_source(folder: Path, function: Function, progress: Progress) -> Source:
    """Raises SpecError where the folder has no function.yaml, BuildError for links that leave it, for its size, and
    where function.yaml is left out.
    """
    if not (folder / "function.yaml").is_file():
        from fleetfn_spec import load  # noqa: PLC0415 - it says what is there instead

        load.read_function(folder)
    try:
        names = source.files(folder)
        if Path("function.yaml") not in names:
            raise BuildError(
                f"{source.IGNORE_FILE} leaves out function.yaml, which the worker reads", hint="Name less in it."
            )
        sizes = {name: (folder / name).stat().st_size for name in names}
        _check_size(sizes, progress)
        files = source.digest(folder, names)
        revision = source.digest(folder, names, msgspec.json.encode(function, order="deterministic"))
    except TargetError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except UnicodeEncodeError as error:
        raise BuildError(
            f"the source has a file whose name is not UTF-8, {error.object!a}", hint="Rename it."
        ) from error
    except OSError as error:
        raise BuildError(
            f"the source's {error.filename!r} cannot be read: {error.strerror}",
            hint=f"Make it readable, or name it in {source.IGNORE_FILE}.",
        ) from error
    return Source(folder, names, sum(sizes.values()), files, revision)


def _check_size(sizes: Mapping[Path, int], progress: Progress) -> None:
    total = sum(sizes.values())
    count = f"{len(sizes)} file{'s' if len(sizes) != 1 else ''}"
    progress(f"source: {count}, {in_words(total)}")
    if total <= LARGE:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_NAMED]
    listed = ", ".join(f"{name} ({in_words(sizes[name])})" for name in largest)
    if total > LIMIT:
        raise BuildError(
            f"the source has {in_words(total)}, more than {in_words(LIMIT)}; the largest: {listed}",
            hint=f"Name in {source.IGNORE_FILE} what the function does not need; large data belongs into a store.",
        )
    progress(f"warning: the source is large; {source.IGNORE_FILE} leaves out what is not needed. The largest: {listed}")


def in_words(size: int) -> str:
    """`4.1 MiB`"""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def created() -> int:
    """Seconds since 1970 that the image says it was made at: 0, or what SOURCE_DATE_EPOCH says. Raises BuildError."""
    text = os.environ.get(EPOCH, "").strip()
    if text and (not text.isdecimal() or len(text) > _DIGITS):
        raise BuildError(f"{EPOCH} is {text!r}", hint="It is a count of seconds since 1970, or is not set.")
    return int(text or 0)


@cache
def shape() -> str:
    """Digest over how images are put together: the builder's own code, which FleetFn's wheel need not be of."""
    return shape_of(Path(__file__).parent)


def shape_of(package: Path) -> str:
    """All of it: which of its files decide what an image holds changes, and reading them takes 2 ms."""
    files = sorted(package.rglob("*.py"))
    code = {str(each.relative_to(package)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}
    return digest("shape", code)


def digest(*parts: object) -> str:
    """SHA-256 in hex over values that JSON can write; mappings count without their order."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
