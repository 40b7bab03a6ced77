"""Watches the topics of sleeping functions: the first record that a function has not handled wakes it.

A post per connection (watch_post.py) reads; here is who sleeps, and who is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from fleetfn_spec import secrets
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve, Secret

from fleetfn_node.sleepers import Sleeper
from fleetfn_node.watch_post import Post

Wake = Callable[[str, str], None]
"""Called on the loop with the function and its trigger; it is watched no more until `sleep` says so again."""

EMPTY = 60.0
"""Seconds after which the consumer of a connection ends if nobody sleeps there."""


def from_environment(reference: Secret) -> str:
    """Paths are absolute here (anchoring.py): functions of several folders share a connection's consumer."""
    return secrets.resolve(reference, os.environ, Path())


class KafkaWatch:
    """Used on one loop."""

    def __init__(self, wake: Wake, *, resolve: Resolve = from_environment) -> None:
        self._wake = wake
        self._resolve = resolve
        self._posts: dict[bytes, Post] = {}
        self._asleep: dict[tuple[str, str], tuple[Sleeper, Post]] = {}

    def sleep(self, function: str, trigger: str, topic: str, group: str, connection: KafkaConnection) -> None:
        """Wake it by the first record from its group's committed offsets on: also by one that is there already."""
        self.forget(function, trigger)
        post = self._post(connection)
        sleeper = Sleeper(function, trigger, topic, group)
        self._asleep[function, trigger] = (sleeper, post)
        post.tell("sleep", sleeper)

    def forget(self, function: str, trigger: str) -> None:
        found = self._asleep.pop((function, trigger), None)
        if found is not None:
            sleeper, post = found
            post.tell("forget", sleeper)
            self._end_later(post)

    def problem(self, function: str, trigger: str) -> str:
        """Why a record could not wake it now; '' where one could."""
        found = self._asleep.get((function, trigger))
        if found is None:
            return ""
        sleeper, post = found
        return post.problem or sleeper.problem

    async def close(self) -> None:
        posts = list(self._posts.values())
        self._posts.clear()
        self._asleep.clear()
        for post in posts:
            post.tell("end", None)
        await asyncio.gather(*(asyncio.to_thread(post.join) for post in posts))

    def _post(self, connection: KafkaConnection) -> Post:
        key = msgspec.json.encode(connection)
        post = self._posts.get(key)
        if post is None:
            loop = asyncio.get_running_loop()
            post = self._posts[key] = Post(
                key, connection, self._resolve, lambda sleepers: loop.call_soon_threadsafe(self._woken, sleepers)
            )
            post.start()
        return post

    def _end_later(self, post: Post) -> None:
        asyncio.get_running_loop().call_later(EMPTY, self._end_unused, post)

    def _end_unused(self, post: Post) -> None:
        used = any(each is post for _, each in self._asleep.values())
        if not used and self._posts.get(post.key) is post:
            del self._posts[post.key]
            post.tell("end", None)

    def _woken(self, sleepers: list[Sleeper]) -> None:
        for sleeper in sleepers:
            found = self._asleep.get((sleeper.function, sleeper.trigger))
            if found is not None and found[0] is sleeper:  # else forgotten, or asleep anew, meanwhile
                del self._asleep[sleeper.function, sleeper.trigger]
                self._end_later(found[1])
                self._wake(sleeper.function, sleeper.trigger)
