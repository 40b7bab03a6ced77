"""What the inbox' file holds. SQL triggers keep what belongs together in step (counters, heads of lanes, what is
remembered of rows that are gone), so that a change of many rows stays one statement.
"""

from __future__ import annotations

from fleetfn_plumbing.sqlite_file import Schema

BEHIND = 0
"""It waits behind the first row of its lane."""

HEAD = 1
"""It waits, first in its lane; a row without a key always."""

DEAD = 2

PARKED = 3
"""Dead, and what is behind it in its lane waits until it is redriven or discarded."""

# `row` is narrow and changes; `body`, which may be large, is written once and read when its row is delivered.
# A row's place in Kafka is (place, offset). With a place and no offset, it is a redriven row that came from there:
# its own position is the inbox', and its key is still held for that partition.
# Indexes name the state that they are about: without it, SQLite looks at each row for it all the same.
# `past` and `past_source` are what is remembered of rows that are gone. file.now: the time of the current commit.
SCHEMA = Schema(
    what="the inbox",
    mark=0x466E5175,
    version=1,
    script="""
    CREATE TABLE file (id TEXT NOT NULL, last INTEGER NOT NULL, now REAL NOT NULL);
    INSERT INTO file VALUES (lower(hex(randomblob(8))), 0, 0);

    CREATE TABLE trigger_rows (
        id INTEGER PRIMARY KEY,
        function TEXT NOT NULL,
        name TEXT NOT NULL,
        waiting INTEGER NOT NULL DEFAULT 0,
        dead INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        UNIQUE (function, name)
    );
    CREATE TABLE place (
        id INTEGER PRIMARY KEY,
        trigger INTEGER NOT NULL,
        stream TEXT NOT NULL,
        partition INTEGER NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0,
        passed INTEGER NOT NULL DEFAULT 0,
        UNIQUE (trigger, stream, partition)
    );

    CREATE TABLE row (
        sequence INTEGER PRIMARY KEY,
        trigger INTEGER NOT NULL,
        key TEXT,
        state INTEGER NOT NULL,
        due REAL,
        attempts INTEGER NOT NULL,
        created REAL NOT NULL,
        place INTEGER,
        offset INTEGER,
        source TEXT,
        raw INTEGER NOT NULL,
        reason TEXT NOT NULL,
        letter BLOB
    );
    CREATE INDEX row_lane ON row (trigger, key, sequence) WHERE state != 2;
    CREATE INDEX row_head ON row (trigger, due, sequence, key, state) WHERE state = 1;
    CREATE INDEX row_parked ON row (trigger, key) WHERE state = 3;
    CREATE INDEX row_dead ON row (sequence, trigger, key, reason, created, state) WHERE state >= 2;
    CREATE INDEX row_dead_age ON row (created) WHERE state = 2;
    CREATE UNIQUE INDEX row_place ON row (place, offset) WHERE place IS NOT NULL;
    CREATE UNIQUE INDEX row_source ON row (trigger, source) WHERE source IS NOT NULL;
    CREATE TABLE body (sequence INTEGER PRIMARY KEY, event BLOB NOT NULL);

    CREATE TABLE past (
        place INTEGER NOT NULL, offset INTEGER NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (place, offset)
    ) WITHOUT ROWID;
    CREATE TABLE past_source (
        id INTEGER PRIMARY KEY, trigger INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL,
        gone REAL NOT NULL, UNIQUE (trigger, source)
    );
    CREATE INDEX past_source_gone ON past_source (gone);

    CREATE TABLE note (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

    CREATE TRIGGER row_came AFTER INSERT ON row BEGIN
        UPDATE trigger_rows SET
            waiting = waiting + (new.state < 2), dead = dead + (new.state >= 2), parked = parked + (new.state = 3)
        WHERE id = new.trigger;
    END;
    CREATE TRIGGER row_went AFTER DELETE ON row BEGIN
        DELETE FROM body WHERE sequence = old.sequence;
        INSERT OR REPLACE INTO past (place, offset, sequence)
            SELECT id, old.offset, old.sequence FROM place WHERE id = old.place AND old.offset >= passed;
        INSERT OR REPLACE INTO past_source (trigger, source, sequence, gone)
            SELECT old.trigger, old.source, old.sequence, now FROM file WHERE old.source IS NOT NULL;
        UPDATE trigger_rows SET
            waiting = waiting - (old.state < 2), dead = dead - (old.state >= 2), parked = parked - (old.state = 3)
        WHERE id = old.trigger;
        UPDATE row SET state = 1 WHERE state = 0 AND old.state != 2 AND sequence = (
            SELECT sequence FROM row WHERE trigger = old.trigger AND key = old.key AND state != 2
            ORDER BY sequence LIMIT 1
        );
    END;
    CREATE TRIGGER row_died_or_rose AFTER UPDATE OF state ON row WHEN old.state >= 2 OR new.state >= 2 BEGIN
        UPDATE trigger_rows SET
            waiting = waiting - (old.state < 2) + (new.state < 2),
            dead = dead - (old.state >= 2) + (new.state >= 2),
            parked = parked - (old.state = 3) + (new.state = 3)
        WHERE id = new.trigger;
        UPDATE row SET state = 1 WHERE state = 0 AND sequence = (
            SELECT sequence FROM row WHERE trigger = new.trigger AND key = new.key AND state != 2
            ORDER BY sequence LIMIT 1
        );
    END
    """,
)
