"""Who isn't let in, or names a database that isn't there, is told so at once; a worker that is at work goes on."""

from __future__ import annotations

import secrets
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gotasks import App, ArgsMap, Status
from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import MissingHook
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks.events import BrokerDown, Event
from gotasks_sql.address import Address
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected
from gotasks_sql.dialects import dialect_of
from tests.backends.contract import LONG, QUEUE, envelope, eventually, put, take_one, write
from tests.cli_process import Cli
from tests.conftest import DATABASE_SERVERS
from tests.servers import Servers
from tests.sql_server import PrivatePostgreSQL, restricted

SECRET = "s3cr3t"

of_servers = pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite has no logins
#: PostgreSQL may be told to trust everybody, and often is, where it's for tests.
of_mysql = pytest.mark.parametrize(
    "sql_url", [each for each in DATABASE_SERVERS if each != "postgresql"], indirect=True
)


def logged_in(url: str, user: str, password: str) -> str:
    """The URL with another login."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{password}@{rest.rpartition('@')[2]}"


def misplaced(url: str) -> str:
    """A URL of a place that isn't there, or is no database."""
    if url.startswith("sqlite"):
        file = Path(str(Address.of(BrokerURL(url)).url.database)).with_name("text.db")
        file.write_text("no database" * 100)
        return f"sqlite:///{file}"
    path, _, query = url.partition("?")
    return f"{path.rpartition('/')[0]}/there_is_no_such?{query}"


def nothing(_: ArgsMap) -> None:
    """A handler: a worker without any doesn't start."""


def is_refused_at_once(url: str, says: str) -> None:
    """By each way in: the error is one line with the advice and without the password, and nothing is tried again."""
    broker, app, events = open_broker(url), App(url), list[Event]()
    app.events.listen(events.append)
    app.external("add")
    app.register("work", nothing)
    for call in (
        lambda: broker.stats(QUEUE),
        lambda: broker.enqueue([envelope()]),
        lambda: broker.acquire(QUEUE, limit=1, wait=5.0, lease_for=LONG),
        lambda: app.queue(QUEUE).enqueue("add", {}),
        lambda: app.stats(QUEUE),
        lambda: app.worker(QUEUE).start(),
    ):
        with pytest.raises(ConfigurationError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert [each for each in events if isinstance(each, BrokerDown)] == []
    broker.close()
    app.close()


# -- who isn't let in ---------------------------------------------------------------------------------


@of_servers
def test_a_user_who_isnt_there(sql_url: str) -> None:
    is_refused_at_once(logged_in(sql_url, f"t_{secrets.token_hex(8)}", SECRET), "check the user and the pass")


@of_mysql
def test_a_wrong_password(sql_url: str) -> None:
    try:
        with restricted(sql_url) as (_, role_url):
            user = BrokerURL(role_url).user
            assert user is not None
            is_refused_at_once(logged_in(role_url, user, SECRET), "check the user and the password")
    except ConnectionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def asking(servers: Servers) -> Iterator[PrivatePostgreSQL]:
    """A server that asks for passwords."""
    try:
        private = PrivatePostgreSQL()
    except MissingHook as error:
        servers.missing("postgresql", str(error))
    with private as server:
        with connected(server.url) as connection:
            connection.exec_driver_sql("CREATE ROLE shop LOGIN PASSWORD 'right'")
            connection.exec_driver_sql("CREATE ROLE nobody PASSWORD 'right'")
        rules = ("host all postgres all trust", "host postgres shop,nobody all scram-sha-256")
        (server.data / "pg_hba.conf").write_text("".join(f"{each}\n" for each in rules))
        with connected(server.url) as connection:
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield server


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "login, database, says",
    [
        ("shop:s3cr3t", "postgres", "password authentication failed"),
        ("shop", "postgres", "no password supplied"),
        ("nobody:right", "postgres", "is not permitted to log in"),
        ("shop:s3cr3t", "template1", "no pg_hba.conf entry"),
        ("other:s3cr3t", "postgres", "no pg_hba.conf entry"),
    ],
)
def test_who_a_postgresql_server_doesnt_let_in(
    asking: PrivatePostgreSQL, login: str, database: str, says: str
) -> None:
    url = f"postgresql://{login}@127.0.0.1:{asking.port}/{database}"
    is_refused_at_once(url, f"{says}.*: check the user and the password")


@pytest.mark.timeout(120)
def test_what_passes_by_itself_is_no_reason_to_give_up(asking: PrivatePostgreSQL) -> None:
    """A server that lets in nobody more now."""
    with connected(asking.url) as connection:
        connection.exec_driver_sql("ALTER ROLE shop CONNECTION LIMIT 0")
    broker = open_broker(f"postgresql://shop:right@127.0.0.1:{asking.port}/postgres")
    with pytest.raises(BrokerUnavailable, match="too many connections"):
        broker.stats(QUEUE)
    broker.close()
    with connected(asking.url) as connection:
        connection.exec_driver_sql("ALTER ROLE shop CONNECTION LIMIT -1")


# -- what isn't there -----------------------------------------------------------------------------------


def test_a_database_that_isnt_there(sql_url: str) -> None:
    says = "name another file" if sql_url.startswith("sqlite") else "make the database first, or name another"
    is_refused_at_once(misplaced(sql_url), says)


def test_a_command_ends_with_what_to_change(sql_url: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=misplaced(sql_url), GOTASKS_APP="shop:app")
    for words in (("enqueue", "checkout", "-q", "orders"), ("worker",), ("migrate",)):
        said = cli.run(*words, code=2)
        assert "name another" in said.stderr
        assert "Traceback" not in said.stderr
    cli.close()


# -- in the middle of work ------------------------------------------------------------------------------


class MisplacedMeanwhile(SQLBroker):
    """When a call has done its work, and is about to tidy up, there is no database any more."""

    elsewhere = ""

    def _tidy(self) -> None:
        self._database.engine.dispose()
        self._database._engine = dialect_of(Address.of(BrokerURL(self.elsewhere))).create_engine()
        super()._tidy()


def test_a_call_that_has_done_its_work_isnt_told_that_nobody_is_let_in_any_more(sql_url: str) -> None:
    sound = open_broker(sql_url)
    (task_id,) = put(sound)
    lease = take_one(sound)
    enqueues, acks = (MisplacedMeanwhile.from_url(BrokerURL(sql_url)) for _ in range(2))
    enqueues.elsewhere = acks.elsewhere = misplaced(sql_url)
    assert enqueues.enqueue([envelope("a")]) == {}
    assert acks.ack([write(lease)], keep_for=LONG) == frozenset()
    assert sound.get(["a", task_id]).keys() == {"a", task_id}
    for each in (sound, enqueues, acks):
        each.close()


@contextmanager
def locked_out(admin_url: str, user: str) -> Iterator[None]:
    """Within the block this user's password is another one, and whoever was in has been thrown out."""
    with connected(admin_url) as connection:
        (was,) = connection.exec_driver_sql(
            "SELECT authentication_string FROM mysql.user WHERE user = %s", (user,)
        ).one()
        connection.exec_driver_sql(f"SET PASSWORD FOR {user}@'%%' = PASSWORD('{secrets.token_hex(8)}')")
        connection.exec_driver_sql(f"KILL USER {user}")
    yield
    with connected(admin_url) as connection:
        connection.exec_driver_sql(f"SET PASSWORD FOR {user}@'%%' = '{was}'")


@pytest.mark.parametrize("sql_url", ["mariadb"], indirect=True)
def test_a_worker_outlasts_a_password_that_is_changed(sql_url: str) -> None:
    """Neither what it has done is lost, nor is it done twice."""
    try:
        with restricted(sql_url) as (admin_url, role_url):
            is_outlasted(admin_url, role_url)
    except ConnectionError as error:
        pytest.skip(str(error))


def is_outlasted(admin_url: str, role_url: str) -> None:
    open_broker(admin_url).migrate()
    user = BrokerURL(role_url).user
    assert user is not None
    began, goes_on, calls, down = threading.Event(), threading.Event(), list[int](), set[str]()
    app = App(role_url)

    def handler(args: ArgsMap) -> None:
        calls.append(args["n"])
        began.set()
        assert goes_on.wait(30)

    def listen(event: Event) -> None:
        if isinstance(event, BrokerDown):
            down.add(event.what.split()[0])

    app.register("add", handler)
    app.events.listen(listen)
    queue = app.queue(QUEUE)
    with app.worker(QUEUE):
        first = queue.enqueue("add", {"n": 1})
        assert began.wait(20)
        with locked_out(admin_url, user):
            goes_on.set()
            eventually(lambda: down >= {"acquire", "ack"}, within=20, what="it's told of both")
            with pytest.raises(ConfigurationError, match="check the user"):
                queue.enqueue("add", {"n": 2})
        first.wait(timeout=20)
        second = queue.enqueue("add", {"n": 3})
        second.wait(timeout=20)
    assert (first.status(), second.status(), calls) == (Status.DONE, Status.DONE, [1, 3])
    app.close()
