"""Everything that can be known of a function before it is deployed: function.yaml, its environment, its handlers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from fleetfn.errors import UsageError
from fleetfn_spec.check import check_function
from fleetfn_spec.environments import LOCAL, Environment
from fleetfn_spec.function import Function
from fleetfn_spec.load import load_environments, read_function
from fleetfn_spec.problems import Problem, SpecError

from fleetfn_cli.found import Found, Looked

IMPORT_LIMIT = 60.0
"""Seconds that importing the handlers may take: as long as large libraries need on a small machine."""


@dataclass(frozen=True, slots=True)
class Checked:
    """`environment`: without `state` where no handler keeps any. `environments`: the file that was read, if there is
    one. `remarks`: what could not be checked here.
    """

    function: Function
    environment: Environment
    environments: Path | None
    remarks: tuple[str, ...] = ()


def check(folder: Path, environment: str | None) -> Checked:
    """Raises SpecError with all problems, UsageError for an environment that nobody wrote."""
    problems: list[Problem] = []
    chosen, file = LOCAL, None
    try:
        chosen, file = choose(folder, environment)
    except SpecError as error:
        problems += error.problems
    try:
        loaded = read_function(folder)
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from None
    problems += check_function(loaded.function, chosen, loaded.places)
    looked = look(loaded.function, folder)
    found, remarks = _split(looked.found, folder)
    problems += found
    if looked.keeps_state and not looked.found and chosen.target.kubernetes is not None and chosen.state is None:
        problems.append(_nowhere(folder, loaded.function, chosen))
    if problems:
        raise SpecError(problems)
    environment_ = chosen if looked.keeps_state else msgspec.structs.replace(chosen, state=None)
    return Checked(loaded.function, environment_, file, tuple(remarks))


def check_handlers(function: Function, folder: Path, meanwhile: Callable[[], None]) -> list[str]:
    """As `check`, of a function that was loaded, wherever it will run: remarks. `meanwhile`: what there is to do until
    the handlers are imported. Raises SpecError with all problems.
    """
    later = "the image has what requirements.txt names; its worker checks them"
    problems, remarks = _split(look(function, folder, meanwhile).found, folder, later)
    if problems:
        raise SpecError(problems)
    return remarks


def choose(folder: Path, name: str | None) -> tuple[Environment, Path | None]:
    """The environment called `name`; None: `local` of the file, else the node of this machine."""
    found = load_environments(folder)
    if found is None:
        if name not in (None, LOCAL.name):
            raise UsageError(
                f"there is no environment {name!r}: no environments.yaml in {folder.absolute()} or above it",
                hint="Without one there is `local`: the node of this machine.",
            )
        return LOCAL, None
    environments, path = found
    known = {each.name: each for each in environments.environments}
    if name is None or name == LOCAL.name:
        return known.get(LOCAL.name, LOCAL), path
    if name not in known:
        raise UsageError(f"there is no environment {name!r} in {path}", hint=f"It has: {', '.join(known)}.")
    return known[name], path


def look(function: Function, folder: Path, meanwhile: Callable[[], None] = lambda: None) -> Looked:
    """What importing and binding the handlers says, from a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fn-check-") as scratch, (Path(scratch) / "said").open("w+b") as said:
        given, result = Path(scratch) / "function.json", Path(scratch) / "result.json"
        given.write_bytes(msgspec.json.encode(function))
        child = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", "fleetfn_cli.found", str(folder.resolve()), str(given), str(result)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        status = _wait(child, meanwhile)
        if status == 0 and result.exists():
            return msgspec.json.decode(result.read_bytes(), type=Looked)
        said.seek(0)
        end = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        said_last = "".join(f"; it said: {line}" for line in end)
        return Looked([Found(_died(status) + said_last, "Import it by hand to see more.")])


def _wait(child: subprocess.Popen[bytes], meanwhile: Callable[[], None]) -> int | None:
    """Its exit status; None: it had to be ended."""
    try:
        meanwhile()
        return _status(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # and whatever the user's module started
        child.wait()


def _status(child: subprocess.Popen[bytes]) -> int | None:
    """The moment that it ends, where the system tells: Popen.wait looks every 50 ms. None: it takes too long."""
    with contextlib.suppress(AttributeError, OSError), _descriptor(child) as ends:
        if not select.select([ends], [], [], IMPORT_LIMIT)[0]:
            return None
    try:
        return child.wait(IMPORT_LIMIT)
    except subprocess.TimeoutExpired:
        return None


@contextlib.contextmanager
def _descriptor(child: subprocess.Popen[bytes]) -> Iterator[int]:
    descriptor = os.pidfd_open(child.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _died(status: int | None) -> str:
    if status is None:
        return f"importing the handlers did not end within {IMPORT_LIMIT:.0f} s"
    if status < 0:
        return f"importing the handlers killed the process ({signal.Signals(-status).name})"
    return f"importing the handlers ended the process (exit status {status})"


def _nowhere(folder: Path, function: Function, environment: Environment) -> Problem:
    message = f'{function.name} keeps state, and environment "{environment.name}" does not say where'
    hint = "name a component there: state: {dapr: {component: ...}}"
    return Problem(str(folder / "function.yaml"), 0, 0, "", message, hint)


_ON_A_NODE = "the node installs requirements.txt and checks them then"


def _split(found: list[Found], folder: Path, later: str = _ON_A_NODE) -> tuple[list[Problem], list[str]]:
    """Problems; and remarks on modules missing here that requirements.txt may bring where the function runs."""
    has_requirements = (folder / "requirements.txt").exists()
    missing = sorted({each.module for each in found if each.module and has_requirements})
    remarks = [
        f"the handlers were not checked: they need {module!r}, which this Python has not; {later}" for module in missing
    ]
    return list(_problems([each for each in found if each.module not in missing], folder)), remarks


def _problems(found: list[Found], folder: Path) -> Iterator[Problem]:
    for each in found:
        name, _, line = each.place.rpartition(":")
        if name and line.isdigit():
            yield Problem(str(folder / name), int(line), 1, "", each.message, each.hint)
        else:
            yield Problem(str(folder / (each.place or "function.yaml")), 0, 0, "", each.message, each.hint)
