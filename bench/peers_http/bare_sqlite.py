"""Beside State: what one would write by hand, an ASGI app that keeps a row per vehicle in SQLite, a commit per request.

WAL and synchronous=FULL, as FleetFn has them. It knows no repeats.
"""

import json
import os
import sqlite3

UPSERT = (
    "INSERT INTO vehicle VALUES (?, 1, ?) ON CONFLICT (vehicle) DO UPDATE "
    "SET frames = frames + 1, hottest = max(hottest, excluded.hottest) RETURNING hottest"
)

database = sqlite3.connect(os.environ["BENCH_DATABASE"], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL").fetchall()
database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE IF NOT EXISTS vehicle (vehicle TEXT PRIMARY KEY, frames INTEGER, hottest REAL)")


async def app(scope, receive, send):  # noqa: ANN001, ANN201, ARG001 - ASGI
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    frame = json.loads(body)
    ((hottest,),) = database.execute(UPSERT, (frame["vehicle"], frame["temperature_max"])).fetchall()
    reply = json.dumps({"vehicle": frame["vehicle"], "hottest": hottest}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(reply)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})
