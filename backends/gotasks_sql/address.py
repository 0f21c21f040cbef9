"""Address: what a broker URL says of a database, checked before anything connects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import sqlalchemy

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,44}")
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

#: Scheme → the name that SQLAlchemy has for the driver with which the broker was tested, and its port.
_DRIVERS: Mapping[str, tuple[str, int | None]] = {
    "sqlite": ("pysqlite", None),
    "postgresql": ("psycopg", 5432),
    "mysql": ("pymysql", 3306),
    "mariadb": ("pymysql", 3306),
}

_COMMON = frozenset({"prefix", "timeout", "migrate"})
_NETWORK = _COMMON | {"connect_timeout", "pool_size"}
_OWN: Mapping[str, frozenset[str]] = {
    "sqlite": _COMMON | {"synchronous"},
    "postgresql": _NETWORK | {"schema", "notify", "prepare_threshold"},
    "mysql": _NETWORK,
    "mariadb": _NETWORK,
}
#: What is handed to the driver as it is.
_LIBPQ = frozenset(
    {
        "application_name", "channel_binding", "gssencmode", "host", "options", "passfile",
        "require_auth", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslrootcert", "target_session_attrs",
    }
)  # fmt: skip
_PYMYSQL = frozenset(
    {"ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity", "unix_socket"}
)
_DRIVERS_OWN: Mapping[str, frozenset[str]] = {
    "sqlite": frozenset(),
    "postgresql": _LIBPQ,
    "mysql": _PYMYSQL,
    "mariadb": _PYMYSQL,
}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A database, the tables in it that are ours, and how to work with them."""

    dialect: str  #: sqlite, postgresql, mysql or mariadb, as the URL has it
    url: sqlalchemy.URL  #: for SQLAlchemy; its str() hides the password
    shown: str  #: the broker URL without secrets, for messages
    prefix: str  #: of the names of our tables
    schema: str | None
    timeout: float  #: how long a call waits for the server, in seconds
    connect_timeout: float
    pool_size: int  #: connections that are kept; more are opened while more threads call
    migrate: bool  #: an empty place gets its tables by itself
    notify: bool  #: PostgreSQL: wake waiting workers by LISTEN and NOTIFY
    prepare_threshold: int | None  #: PostgreSQL: a statement is prepared when it comes so often; None: never
    synchronous: str  #: SQLite: FULL or NORMAL

    @classmethod
    def of(cls, url: BrokerURL) -> Address:
        """Parse and check. Raises InvalidURL."""
        known = _OWN[url.scheme] | _DRIVERS_OWN[url.scheme]
        driver, port = _DRIVERS[url.scheme]
        url.only(known, driver=driver)
        prefix = url.text("prefix", "gotasks_")
        if not _PREFIX.fullmatch(prefix):
            raise InvalidURL("prefix= is 1 to 45 of a-z 0-9 _, and starts with no digit")
        schema = url.text("schema", "") or None
        if schema is not None and not _SCHEMA.fullmatch(schema):
            raise InvalidURL("schema= is 1 to 63 of A-Z a-z 0-9 _, and starts with no digit")
        synchronous = url.text("synchronous", "full").upper()
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidURL("synchronous= takes full or normal")
        return cls(
            dialect=url.scheme,
            url=_sqlite(url) if url.scheme == "sqlite" else _server(url, driver, port),
            shown=str(url),
            prefix=prefix,
            schema=schema,
            timeout=_seconds(url, "timeout", 10.0),
            connect_timeout=_seconds(url, "connect_timeout", 5.0),
            pool_size=url.integer("pool_size", 5, least=1),
            migrate=_migrate(url),
            notify=url.boolean("notify", default=True),
            prepare_threshold=_prepare_threshold(url),
            synchronous=synchronous,
        )


def _sqlite(url: BrokerURL) -> sqlalchemy.URL:
    if url.hosts or url.user or url.password:
        raise InvalidURL(
            "sqlite:// takes the path of a file: sqlite:///tasks.db, or sqlite:////var/lib/tasks.db"
        )
    path = url.path[1:]
    if path in ("", ":memory:") or path.startswith("file:"):
        raise InvalidURL("sqlite:// without a file is nobody else's: sqlite:///tasks.db, or memory://")
    return sqlalchemy.URL.create("sqlite+pysqlite", database=str(Path(path).expanduser().absolute()))


def _server(url: BrokerURL, driver: str, port: int | None) -> sqlalchemy.URL:
    database = url.path.lstrip("/")
    if not database or "/" in database:
        raise InvalidURL(f"{url.scheme}:// names a database: {url.scheme}://user:password@host/database")
    if len(url.hosts) > 1:
        raise InvalidURL(f"{url.scheme}:// takes one host")
    host, given = url.hosts[0] if url.hosts else (None, None)
    query = {name: value for name, value in url.params.items() if name in _DRIVERS_OWN[url.scheme]}
    return sqlalchemy.URL.create(
        f"{'postgresql' if url.scheme == 'postgresql' else 'mysql'}+{driver}",
        username=url.user,
        password=url.password,
        host=host,
        port=given or (port if host else None),
        database=database,
        query=query,
    )


def _seconds(url: BrokerURL, name: str, default: float) -> float:
    seconds = url.seconds(name, default)
    if not 0.1 <= seconds <= 15.0:  # two of them are within the 30 s that a call may take
        raise InvalidURL(f"{name}= is a number of seconds from 0.1 to 15")
    return seconds


def _prepare_threshold(url: BrokerURL) -> int | None:
    if url.text("prepare_threshold", "") == "off":
        return None
    return url.integer("prepare_threshold", 5, least=1)


def _migrate(url: BrokerURL) -> bool:
    choice = url.text("migrate", "empty")
    if choice not in ("empty", "never"):
        raise InvalidURL("migrate= takes empty (make the tables where there are none) or never")
    return choice == "empty"
