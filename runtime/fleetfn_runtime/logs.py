"""The worker's log: JSON lines that say which invocation they belong to, of `logging` and of prints alike.

A key is shown only as a keyed hash: who holds the node's secret can find the lines of a vehicle, nobody else can
tell vehicles from the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from fleetfn.context import Context, current
from fleetfn.errors import UsageError
from fleetfn_plumbing.plain_text import plain_all

from fleetfn_runtime.capture import Capture
from fleetfn_runtime.log_file import LINE_LIMIT, LogFile

LEVEL = "FN_LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error", "critical")

SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "password", "token", "x-api-key"})
"""Names of extra fields and headers whose values are never written."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLACED = frozenset({"trigger", "key", "attempt", "invocation", "place", "traceback"})
"""Extra fields with a place of their own in a line."""

_CUT = "... (cut)"


def setup(
    path: Path,
    *,
    function: str,
    revision: str,
    log_key: bytes,
    copy: int | None = None,
    environ: Mapping[str, str] = os.environ,
    size: int | None = None,
) -> Log:
    """Send logging, prints and descriptors 1 and 2 to `path`. `copy`: descriptor that gets the lines, too. Raises
    OSError; UsageError for an unknown level.
    """
    level = environ.get(LEVEL, "info").lower()
    if level not in LEVELS:
        raise UsageError(f"{LEVEL} is {level!r}", hint=f"one of {', '.join(LEVELS)}")
    sys.stdout.flush()
    sys.stderr.flush()
    file = LogFile(path, take_over=(1, 2)) if size is None else LogFile(path, take_over=(1, 2), size=size)
    # Without a secret anybody could hash all vehicles there are: then lines of a key agree only within this process.
    log = Log(file, function=function, revision=revision, log_key=log_key or secrets.token_bytes(32), copy=copy)
    logging.basicConfig(handlers=[log], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    sys.stdout = Capture("stdout", 1, log.printed)
    sys.stderr = Capture("stderr", 2, log.printed)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    return log


def key_hash(log_key: bytes, key: str) -> str:
    """What a log line shows of a key: 12 hex digits."""
    return hashlib.blake2b(key.encode(errors="surrogatepass"), key=log_key[:64], digest_size=6).hexdigest()


class Log(logging.Handler):
    """The one handler of the root logger: a record becomes one JSON line."""

    def __init__(self, file: LogFile, *, function: str, revision: str, log_key: bytes, copy: int | None = None) -> None:
        super().__init__()
        self._copy = copy
        self._file = file
        self._function = function
        self._revision = revision
        self._log_key = log_key
        self._told = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self._fields(record))
        except Exception:  # noqa: BLE001 - logging never raises into a handler
            self.handleError(record)

    def printed(self, stream: str, text: str, context: Context | None) -> None:
        """A line that was printed to stdout or stderr."""
        fields = self._head(time.time(), "info", text)
        self._add_context(fields, context)
        fields["logger"] = stream
        self._write(fields)

    def close(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Capture):
                stream.finish()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = self._head(record.created, record.levelname.lower(), record.getMessage())
        self._add_context(fields, current.get())
        given = record.__dict__
        for name in ("invocation", "trigger", "attempt", "place"):
            if name in given:
                fields[name] = given[name]
        if given.get("key") is not None:
            fields["key_hash"] = key_hash(self._log_key, str(given["key"]))
        fields["logger"] = record.name
        if given.get("traceback"):
            fields["traceback"] = given["traceback"]
        if record.exc_info and record.exc_info[1] is not None:
            _add_error(fields, record.exc_info[1])
        if len(given) > len(_OWN) - 3:  # there are extra fields
            extra = {name: value for name, value in given.items() if name not in _OWN and name not in _PLACED}
            if extra:
                fields["fields"] = _without_secrets(extra)
        return fields

    def _head(self, seconds: float, level: str, message: str) -> dict[str, Any]:
        return {
            "time": timestamp(seconds),
            "level": level,
            "message": message,
            "function": self._function,
            "revision": self._revision,
        }

    def _add_context(self, fields: dict[str, Any], context: Context | None) -> None:
        if context is None:
            return
        fields["invocation"] = context.invocation
        fields["trigger"] = context.trigger
        if context.key is not None:
            fields["key_hash"] = key_hash(self._log_key, context.key)
        fields["attempt"] = context.attempt

    def _write(self, fields: dict[str, Any]) -> None:
        if self._file.lost > self._told:
            lost, self._told = self._file.lost - self._told, self._file.lost
            told = self._head(time.time(), "error", f"{lost} log lines were lost: the log could not be written")
            self._file.write(_line(told))
        line = _line(fields)
        self._file.write(line)
        if self._copy is not None:
            with contextlib.suppress(OSError):  # nobody reads it any more
                os.write(self._copy, line + b"\n")


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds; as text it sorts by time."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def _line(fields: dict[str, Any]) -> bytes:
    try:
        line = _encode(fields)
    except UnicodeEncodeError:
        line = _encode(plain_all(fields))
    if len(line) < LINE_LIMIT:
        return line
    fields.pop("fields", None)
    # One character of text is at most six bytes of JSON (\u001f).
    for name in ("message", "traceback", "exception"):
        if name in fields:
            fields[name] = _shorter(str(fields[name]), LINE_LIMIT // 24)
    return _encode(plain_all(fields))


def _shorter(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + _CUT


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _add_error(fields: dict[str, Any], error: BaseException) -> None:
    fields["exception"] = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if frames and "place" not in fields:
        fields["place"] = f"{frames[-1].filename}:{frames[-1].lineno}"
    fields["traceback"] = "".join(traceback.format_exception(error))


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return {
                str(name): "(hidden)" if str(name).lower() in SECRET else _without_secrets(item)
                for name, item in value.items()
            }
        case list() | tuple():
            return [_without_secrets(item) for item in value]
        case _:
            return value


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    logging.getLogger("fleetfn.worker").critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        name = what.thread.name if what.thread is not None else "?"
        logging.getLogger("fleetfn.worker").error("uncaught exception in thread %s", name, exc_info=what.exc_value)
