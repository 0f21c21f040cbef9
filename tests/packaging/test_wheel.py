"""What is shipped: the files, the entry points, and that they work where there's no checkout."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tomli

from gotasks import __version__
from tests.packaging.conftest import ROOT, Built, Installation


@pytest.fixture(scope="session")
def pyproject() -> dict[str, Any]:
    content: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text())
    return content


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files(directory: Path) -> set[str]:
    """All files of a package as they must appear in the wheel."""
    found = {path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(directory.parent).as_posix() for path in found}


def test_every_backend_is_packaged_and_has_an_entry_point(pyproject: dict[str, Any]) -> None:
    """An editable install works without this, a wheel doesn't."""
    there = {
        path.name for path in (ROOT / "backends").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    packages = set(pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    targets = pyproject["project"]["entry-points"]["gotasks.brokers"].values()
    modules = {target.partition(":")[0] for target in targets} - {"gotasks.memory"}

    assert packages == {"gotasks", *(f"backends/{name}" for name in there)}
    assert there == modules
    assert not (ROOT / "backends" / "__init__.py").exists()


def test_wheel_holds_the_packages_and_nothing_else(built: Built) -> None:
    packages = [ROOT / "gotasks", *(ROOT / "backends").iterdir()]
    shipped = names(built.wheel)
    code = {name for name in shipped if ".dist-info/" not in name}

    assert code == set().union(*(files(package) for package in packages))
    assert {
        f"{name}/py.typed" for name in ("gotasks", "gotasks_rabbitmq", "gotasks_redis", "gotasks_sql")
    } <= code
    assert any(name.startswith("gotasks_redis/lua/") and name.endswith(".lua") for name in code)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in shipped)


def test_metadata(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(path).decode()

    assert "\nLicense-Expression: GPL-3.0-only\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    for extra in ("redis", "sql", "postgres", "mysql", "mariadb", "rabbitmq"):
        assert f"\nProvides-Extra: {extra}\n" in metadata


def test_sdist_holds_the_whole_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml"} <= there
    assert {"tests/conftest.py", "tests/docker/docker-compose.yml", "contrib/README.md", ".ci/run"} <= there
    for folder in ("docs", "examples"):
        assert any(name.startswith(f"{folder}/") for name in there), folder


def test_wheel_built_from_the_sdist_is_the_same(built: Built) -> None:
    assert names(built.wheel_of_sdist) == names(built.wheel)


def test_version(with_redis: Installation) -> None:
    done = with_redis.gotasks("--version")

    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_code_comes_from_the_wheel(with_redis: Installation) -> None:
    done = with_redis.python(
        "import gotasks, gotasks_redis; print(gotasks.__file__); print(gotasks_redis.__file__)"
    )

    assert done.returncode == 0, done.stderr
    for file in done.stdout.splitlines():
        assert Path(file).is_relative_to(with_redis.environment)


def test_brokers_are_listed(with_redis: Installation, pyproject: dict[str, Any]) -> None:
    """Those whose driver isn't there too."""
    done = with_redis.gotasks("brokers", "--json")

    assert done.returncode == 0, done.stderr
    listed = {broker["scheme"] for broker in json.loads(done.stdout)}
    assert {"memory", "redis", "sqlite", "postgresql", "mysql", "mariadb", "amqp"} <= listed
    assert listed == pyproject["project"]["entry-points"]["gotasks.brokers"].keys()


def test_demo(with_redis: Installation) -> None:
    done = with_redis.gotasks("demo")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost" in done.stdout


@pytest.mark.parametrize(
    "url, shared",
    [
        ("memory://", False),
        ("redis://127.0.0.1:1/0", True),
        ("rediss://127.0.0.1:1/0", True),
        ("unix:///nowhere.sock", True),
    ],
)
def test_broker_is_found_by_url(with_redis: Installation, url: str, shared: bool) -> None:
    """Nothing listens at these addresses: what a broker can do is known without a connection."""
    done = with_redis.python(
        "from gotasks import App\n"
        "from gotasks.broker import Capability\n"
        f"print(Capability.SHARED in App({url!r}).capabilities)"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(shared)


def test_core_imports_no_driver(with_redis: Installation) -> None:
    done = with_redis.python(
        "import sys, gotasks, gotasks.cli\n"
        "others = {'redis', 'gotasks_redis', 'sqlalchemy', 'gotasks_sql', 'pika', 'gotasks_rabbitmq', 'pytest'}\n"
        "print(sorted(others & sys.modules.keys()))"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_core_works_without_extras(bare: Installation) -> None:
    done = bare.gotasks("demo")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "url, fix",
    [
        ("redis://:secret@127.0.0.1:1/0", "redis:// needs the 'redis' package: pip install 'gotasks[redis]'"),
        ("sqlite:///tasks.db", "sqlite:// needs the 'sqlalchemy' package: pip install 'gotasks[sql]'"),
    ],
)
def test_missing_driver_is_one_sentence_with_the_fix(bare: Installation, url: str, fix: str) -> None:
    says_the_fix(bare, url, fix)


@pytest.mark.parametrize(
    "url, fix",
    [
        ("postgresql://me:secret@127.0.0.1:1/x", "the 'psycopg' package: pip install 'gotasks[postgres]'"),
        ("mysql://me:secret@127.0.0.1:1/x", "the 'pymysql' package: pip install 'gotasks[mysql]'"),
        ("mariadb://me:secret@127.0.0.1:1/x", "the 'pymysql' package: pip install 'gotasks[mariadb]'"),
    ],
)
def test_a_database_whose_driver_is_missing_names_its_own_extra(
    with_sql: Installation, url: str, fix: str
) -> None:
    says_the_fix(with_sql, url, fix)


def says_the_fix(installation: Installation, url: str, fix: str) -> None:
    done = installation.gotasks("queues", "--broker", url)

    assert done.returncode == 2, done.stderr
    assert fix in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_the_sql_extra_is_enough_for_a_file(with_sql: Installation) -> None:
    done = with_sql.python(
        "from gotasks import App\n"
        "def double(args): return {'n': args['n'] * 2}\n"
        "app = App('sqlite:///shop.db')\n"
        "app.register('double', double)\n"
        "task = app.queue('orders').enqueue('double', {'n': 21})\n"
        "app.drain()\n"
        "print(task.wait(timeout=10))"
    )

    assert (done.returncode, done.stdout) == (0, "{'n': 42}\n"), done.stderr
