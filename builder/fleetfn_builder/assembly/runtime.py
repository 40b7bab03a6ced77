"""FleetFn in an image: unpacked from its wheel into a folder for PYTHONPATH, and what a worker needs beside it.

Only what a worker can import is unpacked. The command line, the node and the builder stay out: an image in which they
lie has more to be read for flaws, and would change with each of them. The dist-info tells of what is there: its RECORD
names these files alone, and commands that nobody installed are not announced.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

from fleetfn_builder.assembly import quoting
from fleetfn_builder.assembly.errors import AssemblyError

EXTRAS = ("worker", "gateway", "kafka", "http")
"""Of the wheel's extras those that a worker may need; the first two it always does."""

WITHOUT = frozenset({"typer", "rich"})
"""Requirements of the command line alone."""

_LEFT_OUT = frozenset({"fleetfn_cli", "fleetfn_node", "fleetfn_builder", "fleetfn_deploy"})


def version(wheel: Path) -> str:
    return str(_metadata(wheel)["Version"])


def needs(wheel: Path, extras: Collection[str] = EXTRAS) -> list[str]:
    """Lines as in requirements.txt, sorted: what a worker with these extras needs beside the wheel itself."""
    lines = _metadata(wheel).get_all("Requires-Dist", [])
    return sorted({each for line in lines for each in _needed(str(line), extras)})


def unpack(wheel: Path, into: Path) -> None:
    """Into a folder that is not there yet. Raises AssemblyError; then `into` is not there."""
    if into.exists():
        raise AssemblyError(f"{into} is there already", hint="name a folder that is not there yet")
    try:
        with _open(wheel) as content:
            into.mkdir(parents=True)
            names = [name for name in content.namelist() if not name.endswith("/") and _is_taken(PurePosixPath(name))]
            for name in names:
                path = into / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_record(content, name, set(names)) if _is_record(name) else content.read(name))
                path.chmod(0o644)
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(error, OSError):
            raise AssemblyError(
                f"FleetFn cannot be unpacked to {into}: {error.strerror or error}", hint=quoting.space(error)
            ) from error
        raise


def _is_taken(name: PurePosixPath) -> bool:
    if ".." in name.parts or name.is_absolute() or name.parts[0] in _LEFT_OUT:
        return False
    return not (name.parent.name.endswith(".dist-info") and name.name == "entry_points.txt")


def _is_record(name: str) -> bool:
    return name.endswith(".dist-info/RECORD")


def _record(content: zipfile.ZipFile, name: str, taken: set[str]) -> bytes:
    rows = csv.reader(io.StringIO(content.read(name).decode("utf-8")))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(row for row in rows if row and row[0] in taken))
    return text.getvalue().encode()


def _needed(line: str, extras: Collection[str]) -> Iterator[str]:
    requirement, _, marker = (part.strip() for part in line.partition(";"))
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    if name is None or re.sub(r"[-_.]+", "-", name[0]).lower() in WITHOUT:
        return
    asked = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
    if asked is not None:
        if asked[1] not in extras:
            return
        rest = (marker[: asked.start()] + marker[asked.end() :]).strip()
        marker = re.sub(r"^and\s+|\s+and$", "", rest)
    yield f"{requirement}; {marker}" if marker else requirement


def _metadata(wheel: Path) -> Message:
    with _open(wheel) as content:
        name = next((each for each in content.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)), None)
        if name is None:
            raise AssemblyError(f"{wheel} is no wheel: it has no METADATA", hint="`uv build --wheel` makes one")
        message = Parser().parsestr(content.read(name).decode("utf-8"))
    if message["Name"] != "fleetfn":
        raise AssemblyError(f"{wheel} is the wheel of {message['Name']}, not of fleetfn", hint="name FleetFn's own")
    return message


def _open(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AssemblyError(
            f"the wheel {wheel} cannot be read: {reason}", hint="`uv build --wheel` makes one"
        ) from error
