"""Revisions of one function on disk: content-addressed folders, and head.json, which says what serves.

    functions/<name>/revisions/<digest>/source/, revision.json    never changed once they are there
    functions/<name>/head.json                                    replaced atomically

The digest covers source (requirements.txt included) and function, not the environment: the same revision moves from
environment to environment; head.json remembers with which one each deploy was made.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function

from fleetfn_node import durable

KEPT = 10
"""Deploys remembered, and with them their revisions."""

SHOWN = 12
"""Hex digits of a digest as people see it."""


class RevisionError(FleetError):
    """No such revision, or what is on disk does not read."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    """64 hex digits."""
    function: Function
    created: float


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """One switch: a revision began to serve."""

    number: int
    digest: str
    environment: Environment
    at: float


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """`history`: oldest first; the last one serves."""

    history: list[Deploy]
    paused: list[str] = []
    """Names of triggers paused by hand: they stay so over redeploys."""

    @property
    def serving(self) -> Deploy:
        return self.history[-1]


class Revisions:
    """The revisions of one function. Blocking: call from a thread."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock

    def head(self) -> Head | None:
        """None before the first deploy. Raises RevisionError when head.json does not read."""
        path = self.folder / "head.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Head)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, OSError) as error:
            raise RevisionError(f"{path} does not read: {error}", hint="deploy the function again") from error

    def last(self) -> Head | None:
        """The head that a deploy goes on from: None also where head.json is damaged, so that a deploy mends it."""
        try:
            return self.head()
        except RevisionError:
            return None

    def add(self, source: Path, function: Function, digest: str) -> Revision:
        """Keep the folder `source` (moved here) as a revision; the same digest again is the same revision."""
        place = self._place(digest)
        if not place.exists():
            revision = Revision(digest=digest, function=function, created=self._clock())
            place.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
            source.rename(aside / "source")
            (aside / "revision.json").write_bytes(msgspec.json.encode(revision))
            durable.sync_tree(aside)
            with contextlib.suppress(FileExistsError):
                aside.rename(place)
            durable.sync_folder(place.parent)
        return self.get(digest)

    def get(self, digest: str) -> Revision:
        """By digest or its first digits. Raises RevisionError."""
        place = self._place(self._whole(digest))
        try:
            return msgspec.json.decode((place / "revision.json").read_bytes(), type=Revision)
        except (msgspec.MsgspecError, OSError) as error:
            raise RevisionError(f"revision {digest[:SHOWN]} does not read: {error}") from error

    def source(self, digest: str) -> Path:
        return self._place(digest) / "source"

    def switch(self, digest: str, environment: Environment) -> Head:
        """Make it the serving one, durably; forget what is older than the last KEPT deploys.

        What serves already, in this environment, is no new deploy.
        """
        head = self.last()
        if head is not None and (head.serving.digest, head.serving.environment) == (digest, environment):
            return head
        history, paused = (head.history, head.paused) if head else ([], [])
        number = history[-1].number + 1 if history else 1
        deploy = Deploy(number=number, digest=digest, environment=environment, at=self._clock())
        new = Head(history=[*history, deploy][-KEPT:], paused=paused)
        self._write(new)
        self._forget_others({each.digest for each in new.history})
        return new

    def pause(self, triggers: list[str]) -> Head:
        """Exactly these are paused from now on."""
        head = self.head()
        if head is None:
            raise RevisionError(f"{self.folder.name} has no revision")
        new = msgspec.structs.replace(head, paused=triggers)
        self._write(new)
        return new

    def before(self, head: Head) -> Deploy:
        """The last deploy that differs from the serving one: where a rollback goes. Raises RevisionError."""
        now = head.serving
        for deploy in reversed(head.history[:-1]):
            if (deploy.digest, deploy.environment) != (now.digest, now.environment):
                return deploy
        raise RevisionError(
            f"{self.folder.name} has no earlier revision to go back to",
            hint=f"revision {now.digest[:SHOWN]} is the only one",
        )

    def _write(self, head: Head) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.write(self.folder / "head.json", msgspec.json.format(msgspec.json.encode(head), indent=1))

    def _forget_others(self, kept: set[str]) -> None:
        for place in (self.folder / "revisions").iterdir():
            if place.name not in kept:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, digest: str) -> Path:
        return self.folder / "revisions" / digest

    def _whole(self, digest: str) -> str:
        places = self.folder / "revisions"
        names = sorted(place.name for place in places.iterdir()) if places.is_dir() else []
        found = [name for name in names if digest and name.startswith(digest)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(name[:SHOWN] for name in names if not name.startswith(".")) or "none"
        said = "several revisions start" if found else "no revision starts"
        raise RevisionError(f"{said} with {digest!r} in {self.folder.name}", hint=f"known: {known}")
