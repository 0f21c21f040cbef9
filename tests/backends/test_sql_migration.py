"""Tables are brought to another version while tasks come and go, by one at a time, and however long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable
from gotasks_sql import migrations
from gotasks_sql.conformance.tables import connected, schema_of, with_params
from gotasks_sql.dialects import mysql
from gotasks_sql.migrations import CURRENT, MIGRATIONS, Migration
from gotasks_sql.schema import Schema
from tests.backends.contract import QUEUE, put, stats
from tests.conftest import DATABASE_SERVERS

ROOT = Path(__file__).parents[2]

#: So many steps beyond the present version; each adds a column and an index, as a version to come might.
STEPS = 3


def grow(connection: sa.Connection, schema: Schema) -> None:
    number = len(sa.inspect(connection).get_columns(schema.tasks.name))
    name = schema.tasks.name
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN extra{number} INTEGER DEFAULT 7")
    connection.exec_driver_sql(f"CREATE INDEX {name}_extra{number} ON {name} (extra{number})")


def drainer(url: str) -> subprocess.Popen[str]:
    """A process of the present version, which begins at once."""
    words = [sys.executable, "-m", "tests.backends.sql_drain", url, QUEUE]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return process


@pytest.mark.timeout(180)
def test_tables_are_migrated_under_load(
    sql_url: str, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    producer, admin = open_broker(sql_url), open_broker(sql_url)
    sent = put(producer, 500)
    ended = threading.Event()

    def produce() -> None:
        while not ended.is_set():
            sent.extend(put(producer, 20))

    thread = threading.Thread(target=produce)
    thread.start()
    processes = [drainer(sql_url) for _ in range(2)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    counts = []
    try:
        for version in range(CURRENT + 1, CURRENT + 1 + STEPS):
            step = Migration(version, CURRENT, "grow", grow)
            monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, step))
            assert admin.migrate() == [f"version {version}: grow"]
            counts.append(len(sent))
            processes.append(drainer(sql_url))  # one that is started on tables newer than itself
    finally:
        ended.set()
        thread.join()
    reports = [json.loads(each.communicate(timeout=120)[0].splitlines()[-1]) for each in processes]

    acked = Counter(task_id for each in reports for task_id in each["acked"])
    figures(
        f"{len(sent)} tasks, tables migrated {STEPS} times after {counts} of them, from version {CURRENT} on"
    )
    assert [error for each in reports for error in each["errors"]] == []
    assert acked == Counter(sent)
    assert producer.stats(QUEUE) == stats()
    assert len(MIGRATIONS) + STEPS == len(migrations.MIGRATIONS)
    producer.close()
    admin.close()


# -- one at a time ------------------------------------------------------------------------------------

of_mysql = pytest.mark.parametrize(
    "sql_url", [each for each in DATABASE_SERVERS if each != "postgresql"], indirect=True
)


@of_mysql
def test_who_doesnt_get_the_lock_for_migrations_changes_nothing(
    sql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is given up doesn't raise anything by itself."""
    broker = open_broker(sql_url)
    with connected(sql_url) as other:
        assert other.execute(sa.select(sa.func.get_lock(mysql._LOCK, 30))).scalar_one() == 1
        with monkeypatch.context() as hasty:
            hasty.setattr(mysql, "_LOCK_WAIT", 1)
            with pytest.raises(BrokerUnavailable, match="another migration is under way, for 1 s and more"):
                broker.migrate()
        schema = schema_of(sql_url)
        assert migrations.version_of(other, schema) is None
        assert not sa.inspect(other).has_table(schema.tasks.name)
        assert other.execute(sa.select(sa.func.release_lock(mysql._LOCK))).scalar_one() == 1
    assert broker.migrate() == ["version 1: make the tables"]
    broker.close()


@of_mysql
def test_who_gets_the_lock_for_migrations_next_sees_what_was_done(sql_url: str) -> None:
    seen: list[object] = []

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "release_lock" in statement:
            with connected(sql_url) as other:
                seen.append(migrations.version_of(other, schema_of(sql_url)))

    broker = open_broker(sql_url)
    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        broker.migrate()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
    assert seen == [(CURRENT, CURRENT)]
    broker.close()


# -- however long -------------------------------------------------------------------------------------

_LASTS = {"postgresql": "SELECT pg_sleep(1.5)", "mysql": "SELECT SLEEP(1.5)"}


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)
def test_a_step_may_take_longer_than_a_call(sql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index on many rows does."""

    def last(connection: sa.Connection, _schema: Schema) -> None:
        connection.exec_driver_sql(_LASTS[connection.dialect.name])

    broker = open_broker(with_params(sql_url, timeout="0.5"))
    step = Migration(CURRENT + 1, CURRENT, "last", last)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, step))
    assert broker.migrate() == ["version 1: make the tables", f"version {CURRENT + 1}: last"]
    broker.close()
