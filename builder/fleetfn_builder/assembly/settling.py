"""Makes of what uv leaves in a folder a virtual environment that is equal wherever and whenever it is made.

`uv pip install --target` can install for another Python and another architecture than those of this machine, which
`--prefix` cannot; but it puts console scripts and data below site-packages, and names this machine's Python in scripts.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fleetfn_builder.assembly import anatomy
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.target import Target

_BESIDE = ("bin", "etc", "include", "share")
"""Folders of an environment that `--target` leaves in site-packages."""

_VARYING = frozenset({"REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"})
"""Notes of an installer: times, local paths, the URL of a repository with its password, who asked."""

_SHEBANG = re.compile(rb"\A#!(?:/[^\n]*python[^\n]*|/bin/sh\n'''exec' [^\n]*python[^\n]*\n' ''')\n")


def settle(environment: Path, target: Target) -> None:
    """Raises AssemblyError for a package that only links to its source."""
    site = environment / target.site_packages
    (site / ".lock").unlink(missing_ok=True)
    up = PurePosixPath(*[".."] * len(PurePosixPath(target.site_packages).parts))
    for origin in sorted(site.glob("*.dist-info/direct_url.json")):
        if json.loads(origin.read_text("utf-8")).get("dir_info", {}).get("editable"):
            name = origin.parent.name.partition("-")[0]
            raise AssemblyError(
                f"{name} is installed as a link to its source (-e), which is not in the image",
                hint=f"write the path of {name} without -e",
            )
    moved = _move_out(site, environment)
    for script in sorted((environment / "bin").iterdir()):
        if not script.is_symlink():
            _for_the_image(script)
    for record in sorted(site.glob("*.dist-info/RECORD")):
        _rewrite(record, environment, up, moved)
    _plain_modes(environment)


def quarrels(site: Path) -> list[str]:
    """Files that two packages claim with different content."""
    claimed: dict[str, str] = {}
    found = []
    for record in sorted(site.glob("*.dist-info/RECORD")):
        for path, digest in _entries(record):
            if digest and claimed.setdefault(path, digest) != digest:
                found.append(path)
    return found


def _move_out(site: Path, environment: Path) -> frozenset[str]:
    """Names of the folders that were moved. One with an `__init__.py` is a package that is only called so."""
    moved = [name for name in _BESIDE if (site / name).is_dir() and not (site / name / "__init__.py").exists()]
    for name in moved:
        (environment / name).mkdir(exist_ok=True)
        for each in (site / name).iterdir():
            shutil.move(str(each), environment / name / each.name)
        (site / name).rmdir()
    return frozenset(moved)


def _for_the_image(script: Path) -> None:
    content = script.read_bytes()
    changed = _SHEBANG.sub(f"#!{anatomy.PYTHON}\n".encode(), content)
    if changed != content:
        script.write_bytes(changed)


def _rewrite(record: Path, environment: Path, up: PurePosixPath, moved: frozenset[str]) -> None:
    """What is there and where, sorted; digests of what was changed made anew."""
    site = record.parent.parent
    rows = []
    for path, _ in _entries(record):
        name = PurePosixPath(path)
        if name.parent.name.endswith(".dist-info") and name.name in _VARYING:
            (site / name).unlink(missing_ok=True)
        elif name.parts[0] in moved:
            rows.append(_row((up / name).as_posix(), environment / name))
        elif site / name == record:
            rows.append((path, "", ""))
        elif (site / name).is_file():
            rows.append(_row(path, site / name))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    record.write_text(text.getvalue(), "utf-8")


def _row(path: str, file: Path) -> tuple[str, str, str]:
    content = file.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return path, f"sha256={digest}", str(len(content))


def _entries(record: Path) -> Iterator[tuple[str, str]]:
    with record.open(encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines):
            if row:
                yield row[0], row[1]


def _plain_modes(environment: Path) -> None:
    """Of who made a wheel, and with which umask: not of interest."""
    for folder, _, files in os.walk(environment):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
