"""What becomes of the rows of a function that is deleted."""

from __future__ import annotations

from fleetfn_gateway import queue_many as many
from fleetfn_gateway.queue_letters import STEP
from fleetfn_gateway.queue_transaction import Transaction


def drop(transaction: Transaction, function: str) -> bool:
    """One step; whether there is more. A later function of that name must not find its first events taken for known:
    what was remembered of rows goes as well.
    """
    connection = transaction.connection
    given = {"triggers": many.as_json(transaction.names.matching(function, None)), "limit": STEP}
    counts = [connection.execute(query, given).rowcount for query in (_WAITING, _DEAD, _PAST, _PAST_SOURCES)]
    return STEP in counts


_MINE = "trigger IN (SELECT value FROM json_each(:triggers))"
_WAITING = f"""
    DELETE FROM row WHERE sequence IN (
        SELECT sequence FROM row INDEXED BY row_lane WHERE {_MINE} AND state != 2 AND state != 3 LIMIT :limit
    )
"""  # noqa: S608 - fixed words
_DEAD = f"""
    DELETE FROM row WHERE sequence IN (
        SELECT sequence FROM row INDEXED BY row_dead WHERE {_MINE} AND state >= 2 LIMIT :limit
    )
"""  # noqa: S608 - fixed words
_PAST = f"""
    DELETE FROM past WHERE (place, past.offset) IN (
        SELECT past.place, past.offset FROM place CROSS JOIN past ON past.place = place.id WHERE {_MINE} LIMIT :limit
    )
"""  # noqa: S608 - fixed words
_PAST_SOURCES = f"""
    DELETE FROM past_source WHERE id IN (SELECT id FROM past_source WHERE {_MINE} LIMIT :limit)
"""  # noqa: S608 - fixed words
