"""The tests' own ground on databases: whose server it is, and that it is left as it was."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks_sql.conformance.tables import connected
from tests import sql_server
from tests.conftest import DATABASE_SERVERS
from tests.servers import SERVERS, Servers
from tests.sql_server import drop_tables, prefixed, restricted


@pytest.fixture(params=DATABASE_SERVERS)
def server_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """The URL of a database that others may use too."""
    return servers.find(request.param, request).url


def prefix_of(url: str) -> str:
    return BrokerURL(url).params["prefix"]


def make(url: str, *names: str) -> None:
    with connected(url) as connection:
        for name in names:
            connection.exec_driver_sql(f"CREATE TABLE {name} (a INTEGER)")


def there(url: str, *names: str) -> list[str]:
    with connected(url) as connection:
        found = sa.inspect(connection).get_table_names()
    return [each for each in names if each in found]


def test_only_own_tables_are_dropped(server_url: str) -> None:
    with prefixed(server_url) as mine, prefixed(server_url) as other:
        theirs = f"{prefix_of(other)}tasks"
        make(server_url, f"{prefix_of(mine)}a", f"{prefix_of(mine)}b", theirs)

        assert sorted(drop_tables(server_url, prefix_of(mine))) == [
            f"{prefix_of(mine)}a",
            f"{prefix_of(mine)}b",
        ]
        assert drop_tables(server_url, prefix_of(mine)) == []
        assert there(server_url, theirs) == [theirs]
    assert there(server_url, theirs) == []


def test_a_place_with_a_role_is_gone_afterwards(server_url: str) -> None:
    mine = f"mine_{secrets.token_hex(8)}"
    try:
        with restricted(server_url) as (admin, role):
            make(admin, mine)
            assert there(admin, mine) == [mine]
            with connected(role) as connection:
                assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
            with pytest.raises(sa.exc.DBAPIError, match="denied"):
                make(role, "theirs")
    except ConnectionError as error:
        pytest.skip(str(error))
    with pytest.raises(sa.exc.DBAPIError):
        make(role, "theirs")


def test_mariadb_is_not_mysql(servers: Servers, request: pytest.FixtureRequest) -> None:
    url = servers.find("mariadb", request).url

    with pytest.raises(ConnectionError, match=r"^it is MariaDB [0-9.]+, not MySQL$"):
        sql_server.answers_mysql(url)


@pytest.mark.parametrize("name", ["postgresql", "mariadb", "mysql"])
def test_nobody_there_is_one_line_without_a_password(name: str) -> None:
    scheme = SERVERS[name].local_url.partition("://")[0]

    with pytest.raises(ConnectionError) as caught:
        SERVERS[name].answers(f"{scheme}://me:s3cr3t@127.0.0.1:1/nothing")
    assert "refused" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_private_server_is_one_of_its_kind_and_ends(name: str, servers: Servers, tmp_path: Path) -> None:
    server = SERVERS[name]
    private: Callable[[Path], AbstractContextManager[str]] | None = server.private
    assert private is not None
    try:
        with private(tmp_path) as url:
            assert server.answers(url)[0].isdigit()
            with prefixed(url) as mine:
                make(mine, f"{prefix_of(mine)}a")
    except FileNotFoundError as error:
        servers.missing(name, str(error))
    with pytest.raises(ConnectionError):
        server.answers(url)
