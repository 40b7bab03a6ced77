"""From requirements to a finished virtual environment for an image, by uv.

The tree that is left depends on the requirements and the package index alone: not on the folder or the machine where
it is made, nor on the time. It is made for anatomy.DEPENDENCIES, whatever folder it lies in until then, and nothing in
it names that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fleetfn_builder.assembly import quoting, settling
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.running import run
from fleetfn_builder.assembly.target import Target

Progress = Callable[[str], None]

_SHOWN = ("Building ", "Built ", "Downloading ", "Prepared ", "Resolved ", "warning:")
"""What uv says on the way that is of use while one waits."""

_NO_WHEEL = (
    "usable wheels",
    "matching platform tag",
    "matching Python",
    "not compatible with the target",
    "Building source distributions is disabled",
)
_NO_INDEX = ("Failed to fetch", "Request failed", "error sending request", "dns error")
_NOT_FOR_US = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_COMPILE_BYTECODE", "UV_LINK_MODE")
"""Of this machine's environment: they say where its user works, not what goes into an image."""


@dataclass(frozen=True)
class Wanted:
    """What to install. Lines are as in requirements.txt."""

    needs: Sequence[str]
    """Of the worker: see runtime.needs."""
    requirements: Path | None = None
    """The user's file; what it names by a relative path is looked for from its folder."""
    constraints: Sequence[str] = ()
    find_links: Sequence[Path] = ()
    """Folders with wheels, beside the index."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For uv, over this process's own: UV_INDEX_URL, UV_OFFLINE ..."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As `env`; no value of it is ever shown."""


def install(into: Path, target: Target, wanted: Wanted, *, uv: Path, progress: Progress = lambda _: None) -> None:
    """Make the environment at `into`, which must not be there or be empty. Raises AssemblyError; then, and after
    Ctrl-C, `into` is not there.
    """
    if into.exists() and any(into.iterdir()):
        raise AssemblyError(f"{into} is not empty", hint="name a folder that is not there yet")
    progress(f"installing dependencies for {target}")
    try:
        _bare(into, target)
        with tempfile.TemporaryDirectory(prefix="fleetfn-install-") as folder:
            _install(into, target, wanted, uv, Path(folder), progress)
        settling.settle(into, target)
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(error, OSError):
            raise AssemblyError(
                f"the dependencies cannot be written to {into}: {error.strerror or error}", hint=quoting.space(error)
            ) from error
        raise


def _bare(into: Path, target: Target) -> None:
    (into / "bin").mkdir(parents=True)
    (into / "bin" / "python").symlink_to(target.interpreter)
    for name in ("python3", f"python{target.python}"):
        (into / "bin" / name).symlink_to("python")
    home = PurePosixPath(target.interpreter).parent
    (into / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {target.python}\n", "utf-8"
    )
    (into / target.site_packages).mkdir(parents=True)


def _install(into: Path, target: Target, wanted: Wanted, uv: Path, folder: Path, progress: Progress) -> None:
    """Twice where two packages want the same file: which one has it then depends on an order that only one at a time,
    out of uv's cache, keeps.
    """
    call = _Uv(uv, target, wanted, progress)
    site = into / target.site_packages
    needs = _lines(folder / "fleetfn.txt", wanted.needs)
    constraints = ["-c", _lines(folder / "constraints.txt", wanted.constraints)] if wanted.constraints else []
    own = [str(wanted.requirements.absolute())] if wanted.requirements is not None else []
    asked = [each for path in own for each in ("-r", path)]
    if _wants_hashes(wanted):
        held = [each for path in own for each in ("-c", path)]
        needs = _hashed(call, needs, [*constraints, *held], folder / "hashed.txt")
    # Files are touched up later: a hard link would reach into uv's cache.
    arguments = ["install", "--target", str(site.absolute()), "--link-mode", "copy", *asked, "-r", needs, *constraints]
    call(*arguments)
    disputed = settling.quarrels(site)
    if disputed:
        progress(f"warning: more than one package brings {disputed[0]}: the last one's is taken")
        shutil.rmtree(site)
        site.mkdir()
        call(*arguments, UV_CONCURRENT_INSTALLS="1")


def _wants_hashes(wanted: Wanted) -> bool:
    if _environment(wanted).get("UV_REQUIRE_HASHES", "").lower() in {"1", "true"}:
        return True
    try:
        text = wanted.requirements.read_text("utf-8", errors="replace") if wanted.requirements is not None else ""
    except OSError:
        return False  # uv says so, better
    return bool(re.search(r"^\s*--require-hashes\b", text, re.MULTILINE))


def _hashed(call: _Uv, needs: str, constraints: Sequence[str], into: Path) -> str:
    """What the worker needs, pinned, with the index's digests: --require-hashes is for all or for none."""
    call("compile", "--generate-hashes", "--no-header", "--no-annotate", "-o", str(into), needs, *constraints)
    return str(into)


def _lines(path: Path, lines: Iterable[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


class _Uv:
    """`uv pip` for a target."""

    def __init__(self, uv: Path, target: Target, wanted: Wanted, progress: Progress) -> None:
        self._uv = uv
        self._target = target
        self._wanted = wanted
        self._progress = progress
        self._hide = quoting.Scrubber(wanted.secrets)

    def __call__(self, command: str, *arguments: str, **env: str) -> None:
        wanted = self._wanted
        links = [each for folder in wanted.find_links for each in ("--find-links", str(folder.absolute()))]
        status, lines = run(
            [str(self._uv), "pip", command, *self._for_the_target(), *links, *arguments],
            env={**_environment(wanted), **env},
            folder=wanted.requirements.absolute().parent if wanted.requirements is not None else None,
            said=self._said,
        )
        if status != 0:
            why = self._hide("\n".join(quoting.reason(lines)))
            raise AssemblyError(
                f"the dependencies cannot be installed for {self._target}:\n{why}",
                hint=_hint(lines, self._target, wanted.constraints),
            )

    def _for_the_target(self) -> list[str]:
        target = self._target
        return [
            *("--python", sys.executable, "--no-python-downloads"),
            *("--python-version", target.python, "--python-platform", target.platform),
            *([] if target.is_here else ["--no-build"]),
        ]

    def _said(self, line: str) -> None:
        if line.strip().startswith(_SHOWN):
            self._progress(self._hide(line.strip()))


def _environment(wanted: Wanted) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if name not in _NOT_FOR_US and not name.startswith("PYTHON")
    }
    # A source that is linked to (`-e .`) is not in the image.
    # COLUMNS: uv breaks lines where a terminal ends, also in words that are quoted
    ours = {"UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_NO_EDITABLE": "1", "COLUMNS": "1000"}
    return {**inherited, **wanted.env, **wanted.secrets, **ours}


def _hint(lines: Sequence[str], target: Target, constraints: Sequence[str]) -> str:
    text = "\n".join(lines)
    if any(words in text for words in _NO_WHEEL):
        return (
            f"for another machine's Python only wheels are taken: have one made (`pip wheel`, on linux/"
            f"{target.architecture} if it is compiled) and name its folder by --find-links in requirements.txt"
        )
    if "No space left on device" in text:
        return "free some space; uv's cache may lie on another disk than the image, see UV_CACHE_DIR"
    if any(line in text for line in constraints):
        return "relax what disagrees with FleetFn's own dependencies: they are held at the versions it runs with here"
    if "Failed to build" in text or "Failed to download and build" in text:
        return "choose a version that has a wheel, or give this machine what the build lacks"
    if any(words in text for words in _NO_INDEX):
        return "the package index must be reachable; UV_DEFAULT_INDEX names another, UV_OFFLINE=1 takes what is cached"
    return "check the names and versions in requirements.txt"
