"""`gotasks migrate`, and what a worker says of tables that it can't work with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks_sql.conformance.tables import connected, schema_of
from gotasks_sql.migrations import CURRENT
from tests.cli_process import Cli

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """A place without tables, in each kind of database in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


def says_version(url: str, version: int, readable_from: int) -> None:
    """Let the tables say that they are of this version, as those of another gotasks do."""
    with connected(url) as connection:
        changed = connection.execute(
            sa.update(schema_of(url).version).values(version=version, readable_from=readable_from)
        )
    assert changed.rowcount == 1


def test_it_makes_the_tables_and_then_there_is_nothing_to_do(cli: Cli, url: str) -> None:
    said = cli.run("migrate", url).stdout.splitlines()
    assert len(said) == CURRENT
    assert "?prefix=t_" in said[0] or url.startswith("sqlite")
    assert said[0].endswith(": version 1: make the tables")
    assert cli.run("migrate", url).stdout.endswith(": nothing to do\n")
    assert cli.json("queues", "orders", "--broker", f"{url}{'&' if '?' in url else '?'}migrate=never")


def test_several_at_once_do_it_once(cli: Cli, url: str) -> None:
    several = [cli.start("migrate", url) for _ in range(6)]
    for each in several:
        each.ends(0)
    said = [each.log for each in several]
    assert sum("make the tables" in each for each in said) == 1
    assert sum("nothing to do" in each for each in said) == 5
    with connected(url) as connection:
        assert connection.execute(sa.select(schema_of(url).version.c.version)).scalars().all() == [CURRENT]


def test_the_broker_is_named_as_for_any_command(cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
    cli.module("mine", f"from gotasks import App\napp = App({sqlite_url!r})\n")
    done = cli.json("migrate", "--app", "mine:app")
    assert (done["broker"], len(done["done"])) == (sqlite_url, CURRENT)
    again = {"broker": sqlite_url, "done": []}
    assert cli.json("migrate", "--broker", sqlite_url) == again
    assert cli.json("migrate", sqlite_url, "--broker", sqlite_url) == again
    assert cli.json("migrate", GOTASKS_BROKER_URL=sqlite_url) == again
    other = f"sqlite:///{tmp_path}/other.db"
    assert cli.json("migrate", other, GOTASKS_BROKER_URL=sqlite_url, GOTASKS_APP="nowhere")["broker"] == other
    assert "name one" in cli.run("migrate", sqlite_url, "--broker", other, code=2).stderr
    assert "which broker?" in cli.run("migrate", code=2).stderr


def test_most_brokers_have_nothing_to_migrate_and_are_not_asked(cli: Cli) -> None:
    assert cli.run("migrate", "memory://").stdout == "memory://: nothing to do\n"
    assert "nothing to do" in cli.run("migrate", "redis://127.0.0.1:1/0").stdout


def test_a_server_that_isnt_there(cli: Cli) -> None:
    said = cli.run("migrate", "postgresql://shop:secret@127.0.0.1:1/shop", code=3).stderr
    assert "Connection refused" in said
    assert "secret" not in said


def test_it_may_run_beside_a_worker(cli: Cli, url: str) -> None:
    worker = cli.worker("shop:app", GOTASKS_BROKER_URL=url)
    assert cli.run("migrate", url).stdout.endswith(": nothing to do\n")
    done = cli.run("enqueue", "checkout", "-q", "orders", "--app", "shop", "--broker", url, "--wait", "20")
    assert '"sent": true' in done.stdout
    worker.signal(signal.SIGTERM)
    worker.ends(0)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_that_may_not_make_tables_says_so_and_ends(
    cli: Cli, sqlite_url: str, processes: str
) -> None:
    never = f"{sqlite_url}?migrate=never"
    words = ("worker", "shop:app", "--broker", never, "--processes", processes)
    ended = cli.start(*words)
    ended.ends(2)
    assert ended.log.count("there is no such file: run `gotasks migrate URL`") == 1
    assert "worker started" not in ended.log
    assert ended.children == []
    cli.run("migrate", never)
    cli.start(*words).until_logged("worker started", times=int(processes))


@pytest.mark.parametrize(
    "version, why",
    [
        (0, f"has version 0 of the gotasks tables, and this gotasks needs {CURRENT}: run `gotasks"),
        (CURRENT + 1, "which needs a newer gotasks: upgrade this one"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_that_meets_other_tables_says_what_to_do_and_ends(
    cli: Cli, sqlite_url: str, version: int, why: str, processes: str
) -> None:
    cli.run("migrate", sqlite_url)
    says_version(sqlite_url, version, version)
    ended = cli.start("worker", "shop:app", "--broker", sqlite_url, "--processes", processes)
    ended.ends(2)
    assert ended.log.count(why) == 1
    assert "worker started" not in ended.log
    enqueued = cli.run("enqueue", "checkout", "-q", "orders", "--app", "shop", "--broker", sqlite_url, code=2)
    assert why in enqueued.stderr


def test_newer_tables_that_this_version_can_read_are_fine(cli: Cli, sqlite_url: str) -> None:
    cli.run("migrate", sqlite_url)
    says_version(sqlite_url, CURRENT + 1, CURRENT)
    assert cli.run("migrate", sqlite_url).stdout.endswith(": nothing to do\n")
    cli.worker("shop:app", "--broker", sqlite_url)


def test_tables_for_a_newer_gotasks_are_left_alone(cli: Cli, sqlite_url: str) -> None:
    cli.run("migrate", sqlite_url)
    says_version(sqlite_url, CURRENT + 1, CURRENT + 1)
    assert "needs a newer gotasks" in cli.run("migrate", sqlite_url, code=2).stderr
