"""The tables of the SQL broker: who makes them, who may, and what another version of them means."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks.broker import Broker, State
from gotasks.discovery import open_broker
from gotasks.errors import ConfigurationError
from gotasks_sql import migrations
from gotasks_sql.conformance.tables import connected, schema_of, with_params
from gotasks_sql.migrations import CURRENT, MIGRATIONS, Migration
from gotasks_sql.schema import Schema
from tests.backends.contract import LONG, QUEUE, envelope, put, stats, take_one, write
from tests.conftest import DATABASE_SERVERS
from tests.sql_server import restricted

ROOT = Path(__file__).parents[2]


@contextmanager
def opened(url: str, **params: str) -> Iterator[Broker]:
    broker = open_broker(with_params(url, **params) if params else url)
    try:
        yield broker
    finally:
        broker.close()


def tables(url: str) -> set[str]:
    schema = schema_of(url)
    with connected(url) as connection:
        there = sa.inspect(connection).get_table_names(schema=schema.metadata.schema)
    return {each.name for each in (schema.tasks, schema.version) if each.name in there}


# -- who makes them -------------------------------------------------------------------------------


def test_the_first_call_makes_them(sql_url: str) -> None:
    with opened(sql_url) as broker:
        assert tables(sql_url) == set()
        assert broker.stats(QUEUE) == stats()
        assert len(tables(sql_url)) == 2


def test_migrate_never_makes_none_but_says_who_does(sql_url: str) -> None:
    missing = "there is no such file" if sql_url.startswith("sqlite") else "has no gotasks tables"
    says = f"{missing}: run `gotasks migrate URL`"
    with opened(sql_url, migrate="never") as broker:
        for call in (lambda: broker.stats(QUEUE), lambda: put(broker)):
            with pytest.raises(ConfigurationError, match=says):
                call()
        assert tables(sql_url) == set()
        assert broker.migrate() == ["version 1: make the tables"]  # on demand it does
        assert broker.migrate() == []
        put(broker)
        assert broker.stats(QUEUE) == stats(ready=1)


#: Waits for a line, so that all of them begin at once.
FIRST_CALL = """
import sys
from gotasks.discovery import open_broker
broker = open_broker(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(broker.stats("orders").ready)
broker.close()
"""


@pytest.mark.timeout(120)
def test_many_processes_whose_first_calls_come_at_once(sql_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_CALL, sql_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    ended = [(each.communicate(timeout=60), each.returncode) for each in processes]
    assert ended == [(("0\n", ""), 0)] * 8
    with connected(sql_url) as connection:
        assert connection.execute(sa.select(schema_of(sql_url).version.c.version)).all() == [(CURRENT,)]


#: Both tables and the four indexes of one: MySQL and MariaDB commit each of these by itself.
STATEMENTS = 6


@pytest.mark.parametrize("done", [1, 3, 5])
def test_a_migration_that_ended_half_way_is_brought_to_its_end(sql_url: str, done: int) -> None:
    left = iter(range(done))

    class Killed(Exception):
        pass

    def kill(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith("CREATE") and next(left, None) is None:
            raise Killed

    sa.event.listen(sa.Engine, "before_cursor_execute", kill)
    try:
        with opened(sql_url) as killed, pytest.raises(Killed):
            killed.migrate()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", kill)

    schema = schema_of(sql_url)
    with opened(sql_url) as broker:
        assert broker.enqueue([envelope("a", unique="k")]) == {}  # the first call makes them
        assert broker.enqueue([envelope("b", unique="k")]) == {"b": "a"}
        assert broker.migrate() == []
    with connected(sql_url) as connection:
        there = sa.inspect(connection).get_indexes(schema.tasks.name, schema=schema.metadata.schema)
    unique = {each.name: bool(each.unique) for each in schema.tasks.indexes}
    assert {each["name"]: bool(each["unique"]) for each in there} == unique
    assert len(unique) + len(tables(sql_url)) == STATEMENTS


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite has no roles
def test_a_role_that_may_only_read_and_write_rows_works_once_they_are_there(sql_url: str) -> None:
    try:
        with restricted(sql_url) as (admin_url, role_url):
            works_with_rows_only(admin_url, role_url)
    except ConnectionError as error:
        pytest.skip(str(error))


def works_with_rows_only(admin_url: str, role_url: str) -> None:
    password = role_url.partition("@")[0].rpartition(":")[2]
    with opened(role_url) as role:
        with pytest.raises(
            ConfigurationError, match="may not make or change tables: run `gotasks migrate URL`"
        ) as said:
            role.stats(QUEUE)
        assert password not in str(said.value)
        assert "\n" not in str(said.value)
        assert tables(admin_url) == set()
        with opened(admin_url) as admin:
            admin.migrate()

        put(role, 3)
        lease = take_one(role)
        assert role.extend([lease], lease_for=LONG) == frozenset()
        assert role.checkpoint([write(lease)]) == frozenset()
        assert role.ack([write(lease, seq=2)], keep_for=LONG) == frozenset()
        assert role.release([write(take_one(role), queue="other")]) == frozenset()
        assert role.get([lease.envelope.id])[lease.envelope.id].state is State.DONE
        assert role.browse("other", state=State.READY, limit=9)
        assert role.cancel([role.browse("other", state=State.READY, limit=1)[0].id], keep_for=0)
        assert role.purge(QUEUE) == 1
        assert (role.stats(QUEUE), role.stats("other")) == (stats(), stats())
        assert role.acquire(QUEUE, limit=1, wait=0.2, lease_for=LONG) == []
        assert role.migrate() == []
    with opened(role_url) as fresh:
        put(fresh)


# -- where they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)
def test_a_schema_is_a_place_of_its_own(sql_url: str) -> None:
    try:
        with restricted(sql_url) as (in_schema, _):
            with opened(sql_url) as outside, opened(in_schema) as inside:
                outside.enqueue([envelope("a", b"outside")])
                inside.enqueue([envelope("a", b"inside")])
                assert take_one(inside).envelope.body == b"inside"
                assert outside.stats(QUEUE) == stats(ready=1)
            assert len(tables(in_schema)) == len(tables(sql_url)) == 2
    except ConnectionError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)
def test_a_schema_that_isnt_there_is_named(sql_url: str) -> None:
    with opened(sql_url, schema="t_there_is_no_such") as broker:
        with pytest.raises(Exception, match="t_there_is_no_such") as caught:
            broker.stats(QUEUE)
        assert "\n" not in str(caught.value)


# -- other versions -------------------------------------------------------------------------------


def add_a_column(connection: sa.Connection, schema: Schema) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {schema.tasks.name} ADD COLUMN extra INTEGER")


@contextmanager
def next_gotasks(readable_from: int) -> Iterator[int]:
    """The code of a version to come, whose tables have one more step behind them."""
    following = CURRENT + 1
    with pytest.MonkeyPatch.context() as patch:
        step = Migration(following, readable_from, "add a column", add_a_column)
        patch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, step))
        patch.setattr(migrations, "CURRENT", following)
        yield following


def test_tables_that_are_too_old_say_what_to_do_and_are_brought_forward(sql_url: str) -> None:
    with opened(sql_url) as old:
        (task_id,) = put(old)
        with next_gotasks(readable_from=CURRENT) as following:
            with opened(sql_url) as new:
                with pytest.raises(
                    ConfigurationError, match=f"has version {CURRENT} .* needs {following}: run `gotasks"
                ):
                    put(new)
                assert new.migrate() == [f"version {following}: add a column"]
                assert new.migrate() == []
                assert take_one(new).envelope.id == task_id
            with opened(sql_url) as new:
                put(new)
        assert old.stats(QUEUE) == stats(ready=1, leased=1)  # whose workers go on meanwhile
    with opened(sql_url) as old:
        put(old)


def test_tables_that_are_too_new_say_what_to_do(sql_url: str) -> None:
    with next_gotasks(readable_from=CURRENT + 1), opened(sql_url) as new:
        put(new)
    with opened(sql_url) as old:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="needs a newer gotasks: upgrade this one"):
                put(old)
        with pytest.raises(ConfigurationError, match="needs a newer gotasks"):
            old.migrate()


def test_an_empty_place_gets_the_newest_tables(sql_url: str) -> None:
    with next_gotasks(readable_from=CURRENT) as following, opened(sql_url) as new:
        put(new)
        with connected(sql_url) as connection:
            version = schema_of(sql_url).version.c
            row = connection.execute(sa.select(version.version, version.readable_from)).one()
        assert tuple(row) == (following, CURRENT)
