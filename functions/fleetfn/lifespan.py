"""`lifespan: module:callable` of function.yaml: what a worker opens once, before it is ready, and closes as it ends.

The callable takes nothing or a `Startup`, and is an async generator function, an `@asynccontextmanager`, or a
`@contextmanager`. What it yields is `ctx.resources`.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetfn.errors import BindingError


@dataclass(frozen=True, slots=True)
class Startup:
    """What a lifespan is told. `config` is the function's, as in function.yaml."""

    name: str
    revision: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("fleetfn.function"))


class Lifespan:
    """Opens and closes one lifespan; without a target it is the function's empty one."""

    def __init__(self, target: Callable[..., Any] | None = None) -> None:
        self.resources: Any = None
        self._target = target
        self._stack: contextlib.AsyncExitStack | None = None

    async def open(self, startup: Startup) -> None:
        """Raises what the user's code raises, BindingError for a callable that is no lifespan."""
        if self._target is None:
            return
        manager = _manager(self._target, startup)
        stack = contextlib.AsyncExitStack()
        if hasattr(manager, "__aenter__"):
            self.resources = await stack.enter_async_context(manager)
        else:
            self.resources = stack.enter_context(manager)
        self._stack = stack

    async def close(self) -> None:
        """Run the part after the yield. Closing what is not open does nothing."""
        stack, self._stack = self._stack, None
        self.resources = None
        if stack is not None:
            await stack.aclose()


def _manager(target: Callable[..., Any], startup: Startup) -> Any:
    name = getattr(target, "__name__", repr(target))
    takes = [
        parameter
        for parameter in inspect.signature(target).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    if len(takes) > 1:
        raise BindingError(f"lifespan {name}() takes {len(takes)} arguments", hint="let it take `ctx`, or nothing")
    if inspect.isasyncgenfunction(target):
        target = contextlib.asynccontextmanager(target)
    elif inspect.isgeneratorfunction(target):
        target = contextlib.contextmanager(target)
    manager = target(startup) if takes else target()
    if not (hasattr(manager, "__aenter__") or hasattr(manager, "__enter__")):
        if inspect.iscoroutine(manager):
            manager.close()
        raise BindingError(
            f"lifespan {name}() is no context manager", hint="`async def lifespan(ctx): ...; yield client`"
        )
    return manager
