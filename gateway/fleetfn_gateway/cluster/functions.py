"""Tells the gateway of this namespace's functions: by the ConfigMaps that say which revision serves, their heads.

So `kubectl apply` of plain YAML is enough. A head that cannot be read changes nothing: what it said before holds, and
the problem is told. One that goes takes its function away; what waits for it is kept, unless the head says `drop`
(ANNOTATION_ROWS). One that went while the gateway did not look says nothing: then all is kept, MQTT sessions included.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec
from fleetfn_spec.cluster import ANNOTATION_ROWS, HEAD_FILE, Head
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.cluster import secret_files
from fleetfn_gateway.cluster.kube_objects import ConfigMap
from fleetfn_gateway.cluster.secret_files import SecretFiles
from fleetfn_gateway.gateway import Gateway

log = logging.getLogger("fleetfn.gateway")

_head = msgspec.json.Decoder(Head)


class Functions:
    """Use on one loop. `told`: called after each change, when the gateway knows; `dropped`: with a function's name."""

    def __init__(
        self,
        gateway: Gateway,
        secrets: SecretFiles,
        namespace: str,
        told: Callable[[], Awaitable[None]],
        dropped: Callable[[str], Awaitable[None]],
    ) -> None:
        self._uids: dict[str, str] = {}
        self._led_by_others: set[str] = set()
        self._gateway = gateway
        self._secrets = secrets
        self._namespace = namespace
        self._told = told
        self._dropped = dropped
        self._broken: dict[str, str] = {}

    def uid(self, function: str) -> str | None:
        """Of its head: what belongs to a function goes with that. None: it was not seen."""
        return self._uids.get(function)

    def led_here(self, function: str) -> bool:
        """Where its Service leads is for this gateway to say."""
        return function not in self._led_by_others

    @property
    def problems(self) -> dict[str, str]:
        """By function, for people: heads that cannot be read, Secrets that are not there."""
        functions = self._gateway.functions
        missing = {name: self._secrets.problem(each.mqtt) for name, each in functions.items()}
        return {**{name: problem for name, problem in missing.items() if problem}, **self._broken}

    async def replace(self, heads: list[ConfigMap]) -> None:
        """These are all. Raises StoreError."""
        self._broken.clear()
        self._uids = {each.metadata.name: each.metadata.uid for each in heads}
        functions = [each for each in map(self._read, heads) if each is not None]
        await self._want([*self._gateway.functions.values(), *functions])
        if gone := self._gateway.functions.keys() - {each.name for each in functions}:
            log.warning("%s: deleted while nobody looked; what waits is kept", ", ".join(sorted(gone)))
        await self._gateway.replace(functions)
        await self._end_change()

    async def change(self, head: ConfigMap, deleted: bool) -> None:  # noqa: FBT001 - as Watching calls it
        """Raises StoreError."""
        name = head.metadata.name
        if deleted:
            await self._delete(name, drop=head.metadata.annotations.get(ANNOTATION_ROWS) == "drop")
        else:
            self._broken.pop(name, None)
            known = self._gateway.functions.get(name), self._uids.get(name), self.led_here(name)
            function = self._read(head)
            self._uids[name] = head.metadata.uid
            if function is None or (function, head.metadata.uid, self.led_here(name)) == known:
                return
            await self._want([*self._gateway.functions.values(), function])
            await self._gateway.put(function)
            log.info("%s: revision %s", name, function.revision)
        await self._end_change()

    async def _delete(self, name: str, *, drop: bool) -> None:
        self._broken.pop(name, None)
        self._uids.pop(name, None)
        await self._gateway.delete(name, drop=drop)
        if drop:
            await self._dropped(name)
        log.info("%s: deleted; what waits is %s", name, "dropped" if drop else "kept")

    async def _end_change(self) -> None:
        await self._want(self._gateway.functions.values())
        await self._told()

    async def _want(self, functions: Iterable[GatewayFunction]) -> None:
        folder = self._secrets.folder
        await self._secrets.want({each for one in functions for each in secret_files.named(one.mqtt, folder)})

    def _read(self, head: ConfigMap) -> GatewayFunction | None:
        """As it was where it cannot be read; None: it was not known either."""
        name = head.metadata.name
        try:
            return self._function(name, _head.decode(head.data[HEAD_FILE]))
        except KeyError:
            problem = f"it has no {HEAD_FILE}"
        except (msgspec.MsgspecError, ValueError) as error:
            problem = f"{HEAD_FILE} cannot be read: {error}"
        known = self._gateway.functions.get(name)
        then = "nothing of it runs" if known is None else f"revision {known.revision} is taken for its head"
        self._broken[name] = f"ConfigMap {name!r}: {problem}; {then}"
        log.warning("%s", self._broken[name])
        return known

    def _function(self, name: str, head: Head) -> GatewayFunction:
        """Raises ValueError."""
        if head.function.name != name:
            raise ValueError(f"it is of function {head.function.name!r}")
        (self._led_by_others.discard if head.activates else self._led_by_others.add)(name)
        return GatewayFunction(
            function=head.function,
            revision=head.revision[:12],
            environment=head.environment,
            place=self._namespace,
            mqtt={each: secret_files.as_files(one, self._secrets.folder) for each, one in head.mqtt.items()},
            source=Path("/"),
            paused=head.paused,
        )
