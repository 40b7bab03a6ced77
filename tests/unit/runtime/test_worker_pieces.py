"""Small pieces of the worker: policy, record cache, outputs, ownership, what is told apart when importing fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fleetfn.errors import OutputDown, OutputError, OutputRefused
from fleetfn.invocation import Again, Emit
from fleetfn.position import Reply
from fleetfn.store import Loaded, Record
from fleetfn_runtime import duplicates, imports
from fleetfn_runtime.imports import LoadError
from fleetfn_runtime.outputs import Outputs
from fleetfn_runtime.owner import Ownership
from fleetfn_runtime.records import RecordCache
from fleetfn_runtime.retrying import JITTER, Policy
from road_doubles import ListPublisher, emit


def test_backs_off_by_the_factor_up_to_the_longest() -> None:
    policy = Policy(attempts=9, initial=1.0, factor=2.0, longest=5.0)
    assert [policy.backoff(n) for n in (1, 2, 3, 4, 100)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_stays_within_its_share() -> None:
    policy = Policy(initial=10.0)
    delays = [policy.delay(Again(), 1) for _ in range(200)]
    assert 10 * (1 - JITTER) <= min(delays) < 10 < max(delays) <= 10 * (1 + JITTER)


def test_what_the_handler_named_is_kept_to_exactly() -> None:
    assert Policy(longest=5.0).delay(Again(after=90.0), 1) == 90.0


def test_the_cache_holds_to_its_limit_and_drops_what_was_saved_longest_ago() -> None:
    cache = RecordCache(limit=5000)
    for n in range(10):
        cache.put(f"car{n}", Loaded(Record(b"x" * 300), str(n)))
    kept = [n for n in range(10) if cache.get(f"car{n}") is not None]
    assert kept == [5, 6, 7, 8, 9]
    cache.put("car5", Loaded(Record(b"y"), "10"))
    cache.put("car10", Loaded(Record(b"x" * 300), "11"))
    cache.put("car11", Loaded(Record(b"x" * 300), "12"))
    assert cache.get("car5") is not None
    assert cache.get("car6") is None
    cache.drop("car5")
    assert cache.get("car5") is None


class Down(ListPublisher):
    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        return [OutputDown("away") for _ in emits]


async def test_each_event_goes_to_its_outputs_publisher_and_results_keep_their_places() -> None:
    one, other = ListPublisher(), Down()
    outputs = Outputs({"alerts": one, "reports": other})
    errors = await outputs.publish([emit("reports"), emit("alerts"), emit("gone"), emit("alerts")])
    assert [type(error) for error in errors] == [OutputDown, type(None), OutputRefused, type(None)]
    assert [sent.output for sent in one.published] == ["alerts", "alerts"]


async def test_an_output_that_is_gone_is_refused_even_where_there_is_one_publisher() -> None:
    outputs = Outputs({"alerts": ListPublisher()})
    [error] = await outputs.publish([emit("gone")])
    assert isinstance(error, OutputRefused)
    with pytest.raises(OutputRefused):
        outputs.check(emit("gone"))


async def test_a_function_without_outputs_publishes_nothing() -> None:
    outputs = Outputs({})
    assert await outputs.publish([]) == []
    await outputs.close()


async def test_the_lock_is_had_by_one_and_free_once_it_is_released(tmp_path: Path) -> None:
    one, other = Ownership(tmp_path / "owner.lock"), Ownership(tmp_path / "owner.lock")
    await one.take()
    waiting = asyncio.create_task(other.take())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    one.release()
    await asyncio.wait_for(waiting, 30)
    other.release()


async def test_waiting_for_the_lock_can_be_given_up(tmp_path: Path) -> None:
    one, other = Ownership(tmp_path / "owner.lock"), Ownership(tmp_path / "owner.lock")
    await one.take()
    waiting = asyncio.create_task(other.take())
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    one.release()
    await asyncio.wait_for(Ownership(tmp_path / "owner.lock").take(), 30)


def test_a_duplicate_gets_the_reply_or_at_least_learns_that_it_is_one() -> None:
    kept = duplicates.reply(Reply(201, [("x-n", "1")], b"new"))
    assert (kept.status, kept.body, kept.headers) == (201, b"new", {"x-n": "1", "fn-duplicate": "true"})
    assert duplicates.reply(None).status == 200


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    known, path = set(sys.modules), list(sys.path)
    imports.prepare(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_finds_a_callable_in_a_package_of_the_folder(folder: Path) -> None:
    (folder / "pack_one").mkdir()
    (folder / "pack_one" / "__init__.py").write_text("")
    (folder / "pack_one" / "inner.py").write_text("class Handlers:\n    @staticmethod\n    def run(): return 7\n")
    assert imports.find("pack_one.inner:Handlers.run", folder)() == 7


def test_a_file_that_hides_behind_a_module_of_its_name_is_told(folder: Path) -> None:
    (folder / "json.py").write_text("def handle(event: dict): ...\n")
    with pytest.raises(LoadError, match="is hidden by another module") as caught:
        imports.find("json:handle", folder)
    assert caught.value.hint == "rename your file"
    assert caught.value.place == "json.py"


def test_the_users_own_line_is_named_however_deep_the_error_is(folder: Path) -> None:
    (folder / "fails_deep.py").write_text("import json\n\n\njson.loads('{')\n")
    with pytest.raises(LoadError) as caught:
        imports.find("fails_deep:run", folder)
    assert caught.value.place == "fails_deep.py:4"
    assert "JSONDecodeError" in caught.value.traceback


def test_a_package_that_is_not_installed_is_told_with_what_to_do(folder: Path) -> None:
    (folder / "needs_more.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(LoadError) as caught:
        imports.find("needs_more:run", folder)
    assert "'not_installed_anywhere', which is not installed" in caught.value.message
    assert "requirements.txt" in caught.value.hint
    assert caught.value.place == "needs_more.py:1"


def test_the_nearest_callable_is_offered(folder: Path) -> None:
    (folder / "has_watch.py").write_text("def watch(event: dict): ...\n")
    with pytest.raises(LoadError) as caught:
        imports.find("has_watch:wach", folder)
    assert caught.value.hint == "did you mean 'watch'?"
