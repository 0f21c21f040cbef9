"""The SQL broker: what its URLs say, and what it never shows of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL
from gotasks_sql.address import Address

SECRET = "s3cr/t@:%"
LOGIN = "me:s3cr%2Ft%40%3A%25"


def address(url: str) -> Address:
    return Address.of(BrokerURL(url))


def test_what_a_url_leaves_out() -> None:
    given = address("postgresql://host/shop")

    assert (given.dialect, given.prefix, given.schema) == ("postgresql", "gotasks_", None)
    assert (given.timeout, given.connect_timeout, given.pool_size) == (10.0, 5.0, 5)
    assert (given.migrate, given.notify, given.synchronous) == (True, True, "FULL")


@pytest.mark.parametrize(
    "query, field, value",
    [
        ("prefix=shop_", "prefix", "shop_"),
        ("prefix=_", "prefix", "_"),
        (f"prefix={'p' * 45}", "prefix", "p" * 45),
        ("timeout=7.5", "timeout", 7.5),
        ("timeout=0.1", "timeout", 0.1),
        ("timeout=15", "timeout", 15.0),
        ("connect_timeout=2", "connect_timeout", 2.0),
        ("pool_size=1", "pool_size", 1),
        ("migrate=never", "migrate", False),
        ("migrate=empty", "migrate", True),
        ("schema=Shop_1", "schema", "Shop_1"),
        ("notify=off", "notify", False),
    ],
)
def test_each_parameter_sets_its_field_and_no_other(query: str, field: str, value: object) -> None:
    given, plain = address(f"postgresql://host/shop?{query}"), address("postgresql://host/shop")

    assert getattr(given, field) == value
    assert msgspec.structs.replace(given, **{field: getattr(plain, field)}, shown=plain.shown) == plain


@pytest.mark.parametrize(
    "url, drivername, host, port",
    [
        ("postgresql://host/d", "postgresql+psycopg", "host", 5432),
        ("postgresql+psycopg://host:1/d", "postgresql+psycopg", "host", 1),
        ("postgresql:///d", "postgresql+psycopg", None, None),
        ("mysql://host/d", "mysql+pymysql", "host", 3306),
        ("mysql+pymysql://[::1]:1/d", "mysql+pymysql", "::1", 1),
        ("mariadb+pymysql://host/d", "mysql+pymysql", "host", 3306),
        ("mariadb:///d?unix_socket=/run/s", "mysql+pymysql", None, None),
    ],
)
def test_the_server(url: str, drivername: str, host: str | None, port: int | None) -> None:
    made = address(url).url

    assert (made.drivername, made.host, made.port, made.database) == (drivername, host, port, "d")


def test_a_login_is_decoded() -> None:
    made = address(f"postgresql://{LOGIN}@host/shop").url

    assert (made.username, made.password) == ("me", SECRET)


@pytest.mark.parametrize(
    "url, query",
    [
        ("postgresql://h/d?sslmode=verify-full&sslrootcert=/c%20a.pem&prefix=x_&timeout=3",
         {"sslmode": "verify-full", "sslrootcert": "/c a.pem"}),
        ("postgresql:///d?host=/run/postgresql&application_name=shop",
         {"host": "/run/postgresql", "application_name": "shop"}),
        ("mysql://h/d?ssl_ca=/ca.pem&ssl_verify_identity=true&pool_size=2",
         {"ssl_ca": "/ca.pem", "ssl_verify_identity": "true"}),
        ("mariadb:///d?unix_socket=/run/s&migrate=never", {"unix_socket": "/run/s"}),
    ],
)  # fmt: skip
def test_what_is_the_drivers_is_handed_to_it_and_nothing_else(url: str, query: dict[str, str]) -> None:
    assert dict(address(url).url.query) == query


@pytest.mark.parametrize(
    "url, path",
    [
        ("sqlite:///tasks.db", Path.cwd() / "tasks.db"),
        ("sqlite:///below/tasks.db?synchronous=normal", Path.cwd() / "below" / "tasks.db"),
        ("sqlite:////var/lib/my%20tasks.db", Path("/var/lib/my tasks.db")),
        ("sqlite:///~/tasks.db", Path.home() / "tasks.db"),
    ],
)
def test_the_file(url: str, path: Path) -> None:
    made = address(url).url

    assert (made.drivername, made.database) == ("sqlite+pysqlite", str(path))


def test_how_sqlite_syncs() -> None:
    assert address("sqlite:///t.db").synchronous == "FULL"
    assert address("sqlite:///t.db?synchronous=Normal").synchronous == "NORMAL"


@pytest.mark.parametrize(
    "url, says",
    [
        ("sqlite://", "nobody else's: sqlite:///tasks.db, or memory://"),
        ("sqlite:///", "nobody else's"),
        ("sqlite:///:memory:", "nobody else's"),
        ("sqlite:///file:x?mode=memory", "no parameter 'mode'"),
        ("sqlite:///file:x", "nobody else's"),
        ("sqlite://tasks.db", "sqlite:///tasks.db, or sqlite:////var/lib/tasks.db"),
        ("sqlite://me:secret@/tasks.db", "takes the path of a file"),
        ("sqlite+aiosqlite:///t.db", "write sqlite+pysqlite://"),
        ("sqlite:///t.db?synchronous=off", "full or normal"),
        ("sqlite:///t.db?pool_size=3", "no parameter 'pool_size'"),
        ("sqlite:///t.db?schema=x", "no parameter 'schema'"),
        ("postgresql://host", "names a database"),
        ("postgresql://host/a/b", "names a database"),
        ("postgresql://one,two/d", "takes one host"),
        ("postgresql+asyncpg://host/d", "write postgresql+psycopg://"),
        ("postgresql+psycopg2://host/d", "write postgresql+psycopg://"),
        ("postgresql://host/d?synchronous=full", "no parameter 'synchronous'"),
        ("postgresql://host/d?ssl_ca=x", "no parameter 'ssl_ca'"),
        ("postgresql://host/d?password=secret", "no parameter 'password'"),
        ("postgresql://host/d?schema=a-b", "schema= is"),
        ("postgresql://host/d?schema=1a", "schema= is"),
        ("postgresql://host/d?notify=perhaps", "true or false"),
        ("mysql+mysqldb://host/d", "write mysql+pymysql://"),
        ("mysql://host/d?schema=x", "no parameter 'schema'"),
        ("mariadb://host/d?notify=off", "no parameter 'notify'"),
        ("mariadb+asyncmy://host/d", "write mariadb+pymysql://"),
        ("mysql://host/d?prefix=", "prefix= is"),
        ("mysql://host/d?prefix=Shop", "prefix= is"),
        ("mysql://host/d?prefix=1_", "prefix= is"),
        ("mysql://host/d?prefix=a;b", "prefix= is"),
        (f"mysql://host/d?prefix={'p' * 46}", "prefix= is"),
        ("mysql://host/d?migrate=always", "migrate= takes"),
        ("mysql://host/d?timeout=16", "from 0.1 to 15"),
        ("mysql://host/d?timeout=0.05", "from 0.1 to 15"),
        ("mysql://host/d?connect_timeout=60", "from 0.1 to 15"),
        ("mysql://host/d?pool_size=0", "at least 1"),
        ("mysql://host/d?prefixx=a", "no parameter 'prefixx'"),
    ],
)  # fmt: skip
def test_what_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        address(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
def test_a_password_is_shown_nowhere(scheme: str) -> None:
    query = "?sslkey=/the/hidden.key" if scheme == "postgresql" else "?ssl_key=/the/hidden.key"
    given = address(f"{scheme}://{LOGIN}@host/shop{query}")

    for text in (given.shown, str(given.url), repr(given.url)):
        assert "s3cr" not in text
        assert "me:***@host" in text
    assert "hidden" not in given.shown
    assert "s3cr" not in repr(given)
