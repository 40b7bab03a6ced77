"""How errors look: `Error: what`, a blank line, `Hint: next step`. A traceback only with --debug, even for bugs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TextIO

from fleetfn.errors import FleetError, UsageError

OK, FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
"""Exit codes. The last two are what a shell shows for SIGINT and SIGPIPE."""

EXTRAS = {
    "node": {"uvicorn", "uvloop", "httptools", "prometheus_client", "fastapi", "starlette", "httpx", "watchfiles"}
    | {"confluent_kafka", "httpcore"},
}
"""Which extra brings a module that is missing."""


def report(error: BaseException, err: TextIO, *, debug: bool) -> int:
    """Say what happened; the exit code."""
    if debug and isinstance(error, Exception):
        import traceback

        traceback.print_exception(error, file=err)
        err.write("\n")
    match error:
        case FleetError():
            _write(err, *_told(error))
            return USAGE if isinstance(error, UsageError) else FAILED
        case ModuleNotFoundError() if extra := _extra(error.name):
            _write(err, [f"this needs the module {error.name!r}, which is not installed"], _install(extra))
            return FAILED
        case _ if hasattr(error, "format_message"):  # a usage error of click, whose class typer does not export
            _write(err, [error.format_message()], _usage_hint(error))
            return int(getattr(error, "exit_code", USAGE))
        case _:
            _write(
                err, [f"fn met something it does not expect: {type(error).__name__}: {error}"], _bug(error, debug=debug)
            )
            return FAILED


@contextmanager
def hinting(command: str) -> Iterator[None]:
    """Where the node knows nothing of what was asked for: the command that lists what there is, as the hint."""
    from fleetfn_deploy.client import RefusedError

    try:
        yield
    except RefusedError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            error.hint = f"{error.hint[:1].upper()}{error.hint[1:]}: {command}" if error.hint else f"See: {command}"
        raise


def need(*modules: str) -> None:
    """Raise the error of a missing extra before anything is begun."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _told(error: FleetError) -> tuple[list[str], str]:
    problems = [str(problem) for problem in getattr(error, "problems", ())]
    if not problems:
        return [error.message], error.hint
    if error.message == "\n".join(problems):  # SpecError: its message is its problems
        if len(problems) == 1:
            only = error.problems[0]  # type: ignore[attr-defined]  # SpecError's
            return [str(replace(only, hint=""))], only.hint
        return [f"{len(problems)} problems", *(f"  {problem}" for problem in problems)], error.hint
    if problems == [error.message]:
        return [error.message], error.hint
    return [error.message, *(f"  {problem}" for problem in problems)], error.hint


def _write(err: TextIO, lines: list[str], hint: str) -> None:
    red, plain = ("\x1b[31m", "\x1b[0m") if err.isatty() and "NO_COLOR" not in os.environ else ("", "")
    err.write(f"{red}Error:{plain} " + "\n".join(lines) + "\n")
    if hint:
        err.write(f"\nHint: {hint}\n")
    err.flush()


def _extra(module: str | None) -> str | None:
    top = (module or "").partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def _install(extra: str) -> str:
    return f"Install it: pip install 'fleetfn[{extra}]'"


def _usage_hint(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return f"See: {context.command_path} --help" if context is not None else "See: fn --help"


def _bug(error: BaseException, *, debug: bool) -> str:
    if debug:
        return "This is a bug in fn; the traceback above says where."
    import traceback

    descriptor, path = tempfile.mkstemp(prefix="fn-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as details:
        details.write(f"fn {' '.join(sys.argv[1:])}\n\n")
        traceback.print_exception(error, file=details)
    return f"This is a bug in fn. Details, to report it with: {path}"
