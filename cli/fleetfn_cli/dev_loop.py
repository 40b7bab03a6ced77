"""The loop of `fn dev`: deploy, show logs and emits, watch the files, deploy again; all down at the end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import FleetError
from fleetfn_deploy.client import NodeClient
from fleetfn_deploy.node import NodeTarget
from fleetfn_deploy.target import Source
from fleetfn_plumbing import source

from fleetfn_cli import checking, failures, starting
from fleetfn_cli.commands import deploying
from fleetfn_cli.dev_node import DevNode, free_port
from fleetfn_cli.following import Following, followed
from fleetfn_cli.screen import Screen

if TYPE_CHECKING:
    from fleetfn_spec.control import NodeInfo, RevisionInfo

    from fleetfn_cli.checking import Checked

_CALM = 300
"""Milliseconds that files must be still: editors write several for one save."""

_LOOK = 200
"""Milliseconds between looks whether to end."""


class DevLoop:
    """`run` returns at Ctrl-C or SIGTERM. Logs and emits go to stdout, steps and problems to stderr."""

    def __init__(
        self, screen: Screen, folder: Path, env: str | None, *, port: int | None = None, env_file: Path | None = None
    ) -> None:
        self._screen = screen
        self._folder = folder.absolute()
        self._env = env
        self._wish = starting.Wish(port or free_port(), None, env_file)
        self._node = DevNode(self._folder)
        self._client = NodeClient(self._node.place.socket, name=self._node.place.name)
        self._following: Following | None = None
        self._stop = threading.Event()

    def run(self) -> None:
        failures.need("watchfiles", "uvloop", "uvicorn", "fastapi", "confluent_kafka")
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._screen.steps("starting a private node"):
                info = self._node.start(self._wish)
            self._screen.say(f"private node {info.name} at {info.url}, its log: {info.log}")
            saves = self._saves()
            next(saves)  # looks from here on: a save during the first deploy counts, too
            self._deploy()
            for names in saves:
                self._screen.say(f"\nchanged: {', '.join(names)}")
                self._deploy()
        finally:
            self._down()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, *_: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # a second time: at once
        self._stop.set()

    def _deploy(self) -> None:
        """Check and deploy. What is wrong is told, and the last good revision goes on."""
        try:
            with self._screen.steps("checking") as step:
                checked = checking.check(self._folder, self._env)
                target = NodeTarget(self._client)
                what = Source(self._folder, checked.function)
                revision = asyncio.run(target.deploy(what, checked.environment, progress=step))
        except FleetError as error:
            failures.report(error, self._screen.err, debug=False)
            self._screen.say("\nWaiting for the next save; Ctrl-C ends.")
            return
        for remark in checked.remarks:
            self._screen.warn(remark)
        following = self._follow(checked, self._client.node())
        self._tell(revision, checked)
        following.start()

    def _tell(self, revision: RevisionInfo, checked: Checked) -> None:
        screen, node = self._screen, self._node.place.name
        screen.say(f"{revision.name} revision {revision.number} ({revision.digest[:12]}) serves")
        for url in revision.urls:
            screen.say(f"  {url}")
        for command, _ in deploying.to_try(checked.function.spec.triggers, f"{revision.name} -n {node}"):
            screen.say(f"  {command}")
        screen.say("Waiting for events, and for the next save; Ctrl-C ends.")

    def _follow(self, checked: Checked, info: NodeInfo) -> Following:
        """Look at the function's log and what it emits from now on, if nobody does already."""
        what = followed(checked.function, checked.environment, info)
        old = self._following
        if old is not None and old.what == what:
            return old
        if old is not None:
            old.stop()
            if old.what.name != what.name:
                self._client.delete(old.what.name, keep_state=False)
        self._following = Following(what, self._client, self._screen)
        return self._following

    def _saves(self) -> Iterator[list[str]]:
        """First nothing, once it looks; then the names of files each time some were saved. Ends with the loop."""
        import watchfiles  # run() has checked that it is there

        looks = watchfiles.watch(
            self._folder,
            watch_filter=_filter(self._folder),
            stop_event=self._stop,
            step=_CALM,
            rust_timeout=_LOOK,
            yield_on_timeout=True,
        )
        yield _names(next(looks), self._folder)
        for changes in looks:
            self._node.check()
            if changes:
                yield _names(changes, self._folder)

    def _down(self) -> None:
        if self._following is not None:
            self._following.stop()
        if self._node.is_up:
            with self._screen.steps("stopping: the worker drains"):
                self._node.stop()


def _names(changes: Iterable[tuple[object, str]], folder: Path) -> list[str]:
    return sorted({str(Path(path).relative_to(folder)) for _, path in changes})


def _filter(folder: Path) -> Callable[[object, str], bool]:
    """Changes of files that belong to the source."""
    patterns = source.patterns(folder)

    def wanted(_: object, path: str) -> bool:
        relative = Path(path).relative_to(folder)
        above = [part for part in relative.parents if part.name]
        return not source.ignored(relative, patterns, is_folder=False) and not any(
            source.ignored(part, patterns, is_folder=True) for part in above
        )

    return wanted
