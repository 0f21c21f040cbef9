"""The adapters of the databases that are servers."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter, NotApplicable, Server, Transaction
from gotasks_sql.address import Address
from gotasks_sql.conformance import tables, transactions
from gotasks_sql.conformance.private import PrivateMariaDB, PrivatePostgreSQL, PrivateServer
from gotasks_sql.conformance.tables import connected, with_params

#: After this a PostgreSQL server that was told to has read its settings, or never will. Seconds.
_RELOADED = 30.0


class ServerAdapter(Adapter):
    """Places are prefixes of tables. What is killed or set otherwise is a server of the suite's own."""

    lease = 0.5
    private: type[PrivateServer]

    def url(self, namespace: str) -> str:
        return with_params(self.broker_url, prefix=f"n_{namespace.replace('-', '_')}_")

    def drop(self, url: str) -> None:
        with connected(url) as connection:
            tables.schema_of(url).metadata.drop_all(connection)
            transactions.notes_of(url).drop(connection, checkfirst=True)

    def endpoint(self, url: str) -> tuple[str, int]:
        address = Address.of(BrokerURL(url)).url
        if not address.host or address.port is None:
            raise NotApplicable("it is reached by a socket of this machine, not by a network")
        return address.host, address.port

    def impatient(self, url: str) -> tuple[str, float]:
        return with_params(url, timeout="2", connect_timeout="2"), 10.0

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        _, question, query = self.broker_url.partition("?")
        with self.private(f"{question}{query}") as server:
            yield server

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        tables.put_raw(url, queue, data)

    def evict(self, url: str, task_id: str) -> None:
        raise NotApplicable("a task's record and its place in the queue are one row")

    def dump(self, url: str) -> Mapping[str, int]:
        return tables.dump(url)

    def full(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("it is full when its disk is, and then the server itself stops or waits")

    def transaction(self, url: str) -> AbstractContextManager[Transaction]:
        return transactions.transaction(url)

    @abstractmethod
    def disturb(self, server: Server) -> None: ...


class PostgreSQLAdapter(ServerAdapter):
    """A private server is started from Debian's or anybody's `initdb` and `postgres`."""

    private = PrivatePostgreSQL

    def server_version(self, url: str) -> str:
        with connected(url) as connection:
            return f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one().split()[0]}"

    def disturb(self, server: Server) -> None:
        with connected(server.url) as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    @contextmanager
    def weakened(self, server: Server) -> Iterator[None]:
        self._set(server, "off")
        try:
            yield
        finally:
            self._set(server, "on")

    def _set(self, server: Server, value: str) -> None:
        engine = sa.create_engine(Address.of(BrokerURL(server.url)).url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"ALTER SYSTEM SET synchronous_commit = {value}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        end = time.monotonic() + _RELOADED
        while time.monotonic() < end:  # the server reads its settings when it gets there
            engine.dispose()
            with engine.connect() as connection:
                if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == value:
                    break
        engine.dispose()


class MySQLAdapter(ServerAdapter):
    """A private server is started from `mariadb-install-db` and `mariadbd`, for mariadb:// only."""

    private = PrivateMariaDB

    def server_version(self, url: str) -> str:
        with connected(url) as connection:
            version = str(connection.execute(sa.text("SELECT version()")).scalar_one())
        number = re.match(r"[0-9.]+", version)
        return f"{'MariaDB' if 'MariaDB' in version else 'MySQL'} {number[0] if number else version}"

    def disturb(self, server: Server) -> None:
        with connected(server.url) as connection:
            mine = connection.execute(sa.select(sa.func.connection_id())).scalar_one()
            for row in connection.exec_driver_sql("SHOW PROCESSLIST").all():
                if row[0] != mine and row[1] == "root":
                    connection.exec_driver_sql(f"KILL {int(row[0])}")

    @contextmanager
    def weakened(self, server: Server) -> Iterator[None]:
        self._set(server, 0)
        try:
            yield
        finally:
            self._set(server, 1)

    def _set(self, server: Server, value: int) -> None:
        with connected(server.url) as connection:
            connection.exec_driver_sql(f"SET GLOBAL innodb_flush_log_at_trx_commit = {value}")
