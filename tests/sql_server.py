"""Databases for the tests: is one there, a place of one's own in it, a private one to stop and kill."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import MissingHook
from gotasks_sql.conformance import MySQLAdapter, PostgreSQLAdapter
from gotasks_sql.conformance.private import PrivateMariaDB, PrivatePostgreSQL, PrivateServer
from gotasks_sql.conformance.tables import connected, with_params

__all__ = [
    "PrivateMariaDB",
    "PrivatePostgreSQL",
    "answers_mariadb",
    "answers_mysql",
    "answers_postgresql",
    "drop_tables",
    "prefixed",
    "private_mariadb",
    "private_postgresql",
    "restricted",
]

#: A table is dropped when nobody is inside any more; who stays longer was left behind by the test. Seconds.
_PATIENCE = 10


def answers_postgresql(url: str) -> str:
    """Return the version of the server at this URL. Raises ConnectionError where none can be used."""
    return _version(PostgreSQLAdapter(url), "PostgreSQL")


def answers_mariadb(url: str) -> str:
    """As `answers_postgresql`. MySQL isn't MariaDB: each has to be tested by itself."""
    return _version(MySQLAdapter(url), "MariaDB")


def answers_mysql(url: str) -> str:
    """As `answers_mariadb`, the other way round."""
    return _version(MySQLAdapter(url), "MySQL")


def _version(adapter: PostgreSQLAdapter | MySQLAdapter, wanted: str) -> str:
    try:
        product, _, version = adapter.server_version(adapter.broker_url).partition(" ")
    except sa.exc.DBAPIError as error:
        *_, reason = getattr(error.orig, "args", None) or [error.orig]
        raise ConnectionError(str(reason).strip().partition("\n")[0]) from None
    if product != wanted:
        raise ConnectionError(f"it is {product} {version}, not {wanted}")
    return version


@contextmanager
def prefixed(url: str) -> Iterator[str]:
    """Give a URL with a prefix that nobody else uses; afterwards drop the tables of this prefix, and only these."""
    prefix = f"t_{secrets.token_hex(8)}_"
    try:
        yield with_params(url, prefix=prefix)
    finally:
        drop_tables(url, prefix)


def drop_tables(url: str, prefix: str) -> list[str]:
    """Drop all tables `prefix…` of a database that others may use too; return their names."""
    with connected(url) as connection:
        mysql = connection.dialect.name == "mysql"
        variable = "lock_wait_timeout" if mysql else "lock_timeout"
        connection.exec_driver_sql(f"SET {variable} = {_PATIENCE if mysql else _PATIENCE * 1000}")
        names = [each for each in sa.inspect(connection).get_table_names() if each.startswith(prefix)]
        if names:
            connection.exec_driver_sql(f"DROP TABLE {', '.join(names)}")
    return names


def private_postgresql(directory: Path) -> AbstractContextManager[str]:
    """Run a server of our own for as long as the context lasts; give its URL. It lives beside `directory`: see there.

    Raises FileNotFoundError where its programs aren't installed.
    """
    return _private(PrivatePostgreSQL)


def private_mariadb(directory: Path) -> AbstractContextManager[str]:
    """As `private_postgresql`."""
    return _private(PrivateMariaDB)


@contextmanager
def _private(kind: type[PrivateServer]) -> Iterator[str]:
    try:
        server = kind()
    except MissingHook:
        raise FileNotFoundError(f"no {kind.program} on this machine") from None
    with server:
        yield server.url


@contextmanager
def restricted(url: str) -> Iterator[tuple[str, str]]:
    """Give two URLs of a place that is made for the test: one whose role may do all there, and one of a role that may
    read and write rows, but neither make nor change a table.

    Raises ConnectionError where our role may not make such a place.
    """
    name = f"t_{secrets.token_hex(8)}"
    password = secrets.token_hex(8)
    make, remove = _STATEMENTS["postgresql" if BrokerURL(url).scheme == "postgresql" else "mysql"]
    login, host = f"{name}:{password}", url.rpartition("@")[2] if "@" in url else url.partition("://")[2]
    scheme = url.partition("://")[0]
    if scheme.startswith("postgresql"):
        admin, role = with_params(url, schema=name), with_params(f"{scheme}://{login}@{host}", schema=name)
    else:
        server = host.partition("?")[0].rpartition("/")[0]
        admin = f"{url.partition('?')[0].rpartition('/')[0]}/{name}"
        role = f"{scheme}://{login}@{server}/{name}"
    try:
        try:
            _run(url, make, name, password)
        except sa.exc.DBAPIError as error:
            raise ConnectionError(
                f"our role may not make a place with a role of its own: {error.orig}"
            ) from None
        yield admin, role
    finally:
        _run(url, remove, name, password)


#: To make a place with a role, and to remove both.
_STATEMENTS = {
    "postgresql": (
        (
            "CREATE ROLE {name} LOGIN PASSWORD '{password}'",
            "CREATE SCHEMA {name}",
            "GRANT USAGE ON SCHEMA {name} TO {name}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {name} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {name}",
        ),
        ("DROP SCHEMA IF EXISTS {name} CASCADE", "DROP ROLE IF EXISTS {name}"),
    ),
    "mysql": (
        (
            "CREATE DATABASE {name}",
            "CREATE USER {name}@'%%' IDENTIFIED BY '{password}'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {name}@'%%'",
        ),
        ("DROP USER IF EXISTS {name}@'%%'", "DROP DATABASE IF EXISTS {name}"),
    ),
}


def _run(url: str, statements: tuple[str, ...], name: str, password: str) -> None:
    with connected(url) as connection:
        for each in statements:
            connection.exec_driver_sql(each.format(name=name, password=password))
