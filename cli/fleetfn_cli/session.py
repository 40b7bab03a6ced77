"""What every command shares: the options -n, -E, -o, --quiet and --debug, wherever on the line they stand."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fleetfn_cli.screen import Output, Screen

if TYPE_CHECKING:
    from fleetfn_deploy.client import NodeClient
    from fleetfn_deploy.places import Place
    from fleetfn_deploy.platform import Platform
    from fleetfn_spec.environments import Environment

NodeOption = Annotated[
    str | None,
    typer.Option("-n", "--node", metavar="NAME", show_envvar=False, help="Which node of this machine (FN_NODE)."),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "-E", "--env", metavar="NAME", show_envvar=False, help="An environment of environments.yaml (FN_ENV)."
    ),
]
OutputOption = Annotated[
    Output | None, typer.Option("-o", "--output", show_envvar=False, help="Form of the result (FN_OUTPUT).")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", show_envvar=False, help="Only results and errors (FN_QUIET).")
]
DebugOption = Annotated[bool, typer.Option("--debug", show_envvar=False, help="Show tracebacks (FN_DEBUG).")]

_SHARED: dict[str, tuple[Any, Any]] = {
    "node": (NodeOption, None),
    "env": (EnvironmentOption, None),
    "output": (OutputOption, None),
    "quiet": (QuietOption, False),
    "debug": (DebugOption, False),
}


@dataclass(frozen=True, slots=True)
class Session:
    """`node`, `env` None: nobody named one."""

    screen: Screen
    node: str | None = None
    debug: bool = False
    env: str | None = None

    def environment(self, folder: Path = Path()) -> Environment:
        """The one that was named, of the environments.yaml in `folder` or above; else this machine's node."""
        from fleetfn_spec.environments import LOCAL

        if self.env is None:
            return LOCAL
        from fleetfn_cli import checking

        return checking.choose(folder, self.env)[0]

    def place(self, environment: Environment | None = None) -> Place:
        """-n names the node; else the environment does, else it is the default one."""
        from fleetfn_deploy import places

        named = environment.target.node if environment is not None else None
        place = places.find(self.node or (named.name if named else places.DEFAULT))
        places.check(place)
        return place

    def client(self) -> Platform:
        """Who is asked about functions: a node, or the cluster that the environment names."""
        environment = self.environment()
        if environment.target.kubernetes is None:
            return self.node_client(environment)
        from fleetfn_cli import clusters

        return clusters.platform(environment)

    def node_client(self, environment: Environment | None = None) -> NodeClient:
        from fleetfn_deploy.client import NodeClient

        place = self.place(environment)
        return NodeClient(place.socket, name=place.name)

    @property
    def option(self) -> str:
        """What a hint's command needs to mean the same place."""
        if self.env is not None:
            return f" -E {self.env}"
        return f" -n {self.node}" if self.node and self.node != "default" else ""


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: str,
    node: bool = True,
    cluster: bool = True,
    structured: bool = True,
    **more: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose function takes a Session first.

    `node`, `cluster`, `structured`: it takes -n, -E, -o. Each other option has an FN_<COMMAND>_<OPTION> variable.
    """
    left_out = {key for key, taken in (("node", node), ("env", node and cluster), ("output", structured)) if not taken}
    shared = {key: value for key, value in _SHARED.items() if key not in left_out}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(context: typer.Context, **given: Any) -> None:
            own = {key: given.pop(key) for key in shared}
            function(_session(context, own), **given)

        _sign(run, function, shared)
        epilog = "\b\nExamples:\n" + "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
        app.command(name, epilog=epilog, **more)(run)
        return function

    return register


def _session(context: typer.Context, own: dict[str, Any]) -> Session:
    before = context.obj if isinstance(context.obj, dict) else {}
    both = {key: own.get(key) or before.get(key) for key in _SHARED}
    screen = Screen(both["output"] or "table", quiet=bool(both["quiet"]))
    return Session(screen, both["node"] or None, bool(both["debug"]), both["env"] or None)


def _sign(run: Callable[..., None], function: Callable[..., None], shared: dict[str, tuple[Any, Any]]) -> None:
    """Give `run` the parameters of `function` but its session, and the shared ones, as typer reads them."""
    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name]) for each in own),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in shared.items()
        ),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # how inspect takes a signature
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    del run.__wrapped__  # type: ignore[attr-defined]  # typer would look through to the original
