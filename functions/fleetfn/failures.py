"""What the user's code raised, as a Failure: type, message, the user's own innermost line, a traceback without ours."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from fleetfn.errors import FleetError
from fleetfn.invocation import Failure

LIMIT = 16 * 1024
"""Characters of a traceback that are kept: its start and, more useful, its end."""

_OURS = str(Path(__file__).parent) + "/"
_FOREIGN = ("/site-packages/", "/dist-packages/")


def describe(error: BaseException, root: Path | None) -> Failure:
    """`root`: the function's folder; a line counts as the user's own if its file is in there and not installed."""
    own = _without_ours(error.__traceback__)
    text = "".join(traceback.TracebackException(type(error), error, own, compact=True).format())
    return Failure(
        type=_name(type(error)),
        message=_message(error),
        place=_place(own, root),
        traceback=text if len(text) <= LIMIT else f"{text[: LIMIT // 4]}\n[...]\n{text[-LIMIT * 3 // 4 :]}",
    )


def _name(type_: type[BaseException]) -> str:
    return (
        type_.__qualname__
        if type_.__module__ in {"builtins", "__main__"}
        else f"{type_.__module__}.{type_.__qualname__}"
    )


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"(its __str__ raised {type(broken).__name__})"
    return f"{text} ({error.hint})" if isinstance(error, FleetError) and error.hint else text


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames


def _place(frames: TracebackType | None, root: Path | None) -> str:
    if root is None:
        return ""
    folder = f"{root}/"
    place = ""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file.startswith(folder) and not any(part in file for part in _FOREIGN):
            place = f"{file[len(folder) :]}:{frames.tb_lineno}"
        frames = frames.tb_next
    return place
