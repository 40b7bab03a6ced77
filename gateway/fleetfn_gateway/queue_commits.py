"""Commits of the queue: whatever is asked at the same moment shares one, and calls of a kind share their statements."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fleetfn.errors import StoreError
from fleetfn_plumbing.group_commit import GroupCommit
from fleetfn_plumbing.sqlite_file import SqliteFile

from fleetfn_gateway import queue_burials, queue_claims, queue_offers, queue_puts
from fleetfn_gateway import queue_many as many
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_space import Space
from fleetfn_gateway.queue_transaction import Transaction

SWEEP_PAUSE = 1.0
"""Seconds between two looks at what may be forgotten, once there was no more of it."""


class Done(NamedTuple):
    sequences: Sequence[int]


class Work(NamedTuple):
    """Whatever else is to be done within a commit."""

    call: Callable[[Transaction], Any]


Job = queue_puts.Put | queue_offers.Offering | queue_burials.Burial | Done | Work


class Commits:
    def __init__(self, file: SqliteFile, names: Names, space: Space, clock: Callable[[], float]) -> None:
        self._file = file
        self._names = names
        self._names_doubted = False
        self._space = space
        self._clock = clock
        self._swept = 0.0
        (self._last,) = file.writer.execute("SELECT last FROM file").fetchone()
        self.group: GroupCommit[Job, Any] = GroupCommit(self._commit, name=f"commits of {file.path.name}")

    async def submit(self, job: Job, then: Callable[[], None] | None = None) -> Any:
        """The job's result, once it is durable. `then`: to be done at that time, also where nobody waits any more."""
        future = self.group.submit([job])

        def committed(future: asyncio.Future[list[Any]]) -> None:
            if then is not None and not future.cancelled() and future.exception() is None:
                then()

        future.add_done_callback(committed)
        (result,) = await asyncio.shield(future)
        if isinstance(result, StoreError):
            raise result
        return result

    async def close(self) -> None:
        """Commit what was submitted."""
        await self.group.close()

    # On the writer's thread.

    def _commit(self, jobs: Sequence[Job]) -> list[Any]:
        with self._file.errors("written"):
            self._file.check()
            try:
                results = self._transact(jobs)
            except (StoreError, sqlite3.OperationalError):
                raise  # the file's fault, or the disk's
            except Exception as error:
                if len(jobs) == 1:
                    raise _refused(error) from error
                results = [self._alone(job) for job in jobs]
            self._file.check()
            self._space.measure(self._file.writer)
        return results

    def _alone(self, job: Job) -> Any:
        """One job of those together has what cannot be written: it must fail nobody else."""
        try:
            return self._transact([job])[0]
        except StoreError as error:
            return error
        except sqlite3.OperationalError as error:
            return self._file.error(error, "written")
        except Exception as error:  # noqa: BLE001 - it is told to its caller
            return _refused(error)

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        now = self._clock()
        with self._file.transaction() as connection:
            if self._names_doubted:
                self._names.load(connection)
            self._names_doubted = True
            connection.execute("UPDATE file SET now = ?", (now,))
            transaction = Transaction(connection, self._names, self._last, now, self._space.refusal())
            results = _run(transaction, jobs)
            self._sweep(transaction)
            transaction.end()
        self._names_doubted = False
        self._last = transaction.last
        return results

    def _sweep(self, transaction: Transaction) -> None:
        if abs(transaction.now - self._swept) >= SWEEP_PAUSE and not queue_claims.sweep(transaction):
            self._swept = transaction.now


def _refused(error: Exception) -> StoreError:
    return StoreError(
        f"the inbox cannot take what it was given: {type(error).__name__}: {error}",
        hint="numbers must have 64 bits at most, and text must be Unicode",
    )


def _run(transaction: Transaction, jobs: Sequence[Job]) -> list[Any]:
    """In order, as far as it matters: what is asked of all rows, to forget them, say, is about those before it."""
    stretches = itertools.groupby(jobs, key=lambda job: isinstance(job, Work))
    return [result for _, stretch in stretches for result in _run_stretch(transaction, list(stretch))]


def _run_stretch(transaction: Transaction, jobs: Sequence[Job]) -> list[Any]:
    """A kind at a time, those of a kind as they came."""
    results: list[Any] = [None] * len(jobs)
    for kind, run in _KINDS:
        places = [place for place, job in enumerate(jobs) if isinstance(job, kind)]
        if places:
            told = run(transaction, [jobs[place] for place in places])
            for place, result in zip(places, told, strict=True):
                results[place] = result
    return results


def _work(transaction: Transaction, jobs: Sequence[Work]) -> list[Any]:
    return [job.call(transaction) for job in jobs]


def _done(transaction: Transaction, jobs: Sequence[Done]) -> list[None]:
    given = many.as_json(sequence for job in jobs for sequence in job.sequences)
    query = "DELETE FROM row WHERE sequence IN (SELECT value FROM json_each(?)) AND state < 2"
    transaction.connection.execute(query, (given,))
    return [None] * len(jobs)


_KINDS: list[tuple[type, Callable[[Transaction, Any], Sequence[Any]]]] = [
    (Work, _work),
    (Done, _done),
    (queue_burials.Burial, queue_burials.bury),
    (queue_offers.Offering, queue_offers.offer),
    (queue_puts.Put, queue_puts.put),
]
