"""`gotasks new-broker`: what it makes, and what it refuses."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from tests.cli_process import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


def test_what_it_makes(cli: Cli, tmp_path: Path) -> None:
    made = json.loads(cli.run("new-broker", "acme2", "--json").stdout)

    folder = tmp_path / made["folder"]
    assert folder.name == "gotasks-acme2"
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(made["files"]) == sorted(files)
    project = tomli.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["gotasks.brokers"] == {"acme2": "gotasks_acme2:Acme2Broker"}
    assert project["entry-points"]["gotasks.conformance"] == {"acme2": "gotasks_acme2.adapter:Acme2Adapter"}
    assert project["dependencies"] == ["gotasks>=0.1"]
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())
    assert "class Acme2Broker(Broker):" in (folder / "gotasks_acme2" / "broker.py").read_text()
    assert not [path for path in folder.rglob("*") if path.is_file() and "@class@" in path.read_text()]


def test_it_says_what_to_do_next(cli: Cli) -> None:
    said = cli.run("new-broker", "acme").stdout

    assert "  gotasks-acme/gotasks_acme/broker.py\n" in said
    assert "  cd gotasks-acme\n  pip install -e '.[test]'\n  pytest\n" in said


def test_nothing_is_written_over(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gotasks-acme").mkdir()
    (tmp_path / "gotasks-acme" / "README.md").write_text("mine")
    done = cli.run("new-broker", "acme", code=2)

    assert "is there already, and nothing was changed" in done.stderr
    assert [path.read_text() for path in (tmp_path / "gotasks-acme").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "name", ["Acme", "2acme", "ac-me", "ac_me", "", "../acme", "a" * 41, "äcme", "acme\n"]
)
def test_a_name_that_can_not_be_one(cli: Cli, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.iterdir())
    done = cli.run("new-broker", name, code=2)

    assert "can't be the name of a broker" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_scheme_that_somebody_has(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("new-broker", "redis", code=2)

    assert "redis:// is offered by gotasks already" in done.stderr
    assert not (tmp_path / "gotasks-redis").exists()


def test_a_folder_that_can_not_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gotasks-acme").write_text("a file")
    done = cli.run("new-broker", "acme", code=2)

    assert "is there already" in done.stderr
    assert (tmp_path / "gotasks-acme").read_text() == "a file"
