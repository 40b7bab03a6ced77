"""`fn`: from the command line to an exit code. Modules are imported late, heavy ones by the commands that need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetfn_cli import short_life

if TYPE_CHECKING:
    from fleetfn.errors import UsageError


def main() -> None:
    """The console script."""
    short_life.begin()
    status = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Never raises, never shows a traceback unless asked to."""
    import typer

    from fleetfn_cli import failures
    from fleetfn_cli.app import tree

    debug = "--debug" in arguments or os.environ.get("FN_DEBUG", "") not in {"", "0", "false"}
    try:
        app = tree(arguments[0] if arguments else "")
        status = app(list(arguments) or ["--help"], prog_name="fn", standalone_mode=False)
    except typer.Abort:  # what click makes of Ctrl-C
        return failures.INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return failures.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return failures.PIPE_CLOSED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else failures.FAILED
    except Exception as error:  # noqa: BLE001 - the last place to tell it well
        return failures.report(_of_argument(error, arguments) or error, sys.stderr, debug=debug)
    return status if isinstance(status, int) else failures.OK


def _of_argument(error: Exception, arguments: Sequence[str]) -> UsageError | None:
    """Bytes that are no UTF-8 come as lone surrogates, and fail wherever the text is first sent."""
    if not isinstance(error, UnicodeEncodeError):
        return None
    from fleetfn.cloudevents import attributes
    from fleetfn.errors import UsageError

    wrong = next((each for each in arguments if not attributes.is_unicode(each)), None)
    if wrong is None:
        return None
    return UsageError(f"the argument {wrong!a} is not UTF-8", hint="Keys, names and data are UTF-8 text.")


def _forget_stdout() -> None:
    """Nobody reads on; the interpreter must not fail when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


if __name__ == "__main__":
    main()
