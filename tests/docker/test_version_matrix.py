"""`make test-docker` as far as it goes without an engine: what is said, what isn't run and why, and the exit codes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gotasks.conformance.adapter import Adapter
from gotasks.conformance.outcome import Result
from gotasks.conformance.report import Report
from tests.docker import matrix
from tests.docker.container import RUN, reason
from tests.docker.matrix import Line, exit_code, table, verdict
from tests.docker.services import KINDS, services
from tests.servers import SERVERS

ROOT = Path(__file__).parents[2]

PASSED = Line("redis", "redis:7.0-alpine", "7.0.15", "passed, quick: 245 pass", passed=True)
FAILED = Line("postgresql", "postgres:15-alpine", "15.4", "FAILED: CKP-03", passed=False)
MISSING = Line("mysql", "mysql:8.4", "", "not run: no Docker engine answers", None)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program of this name first on PATH, whose text is given."""

    def put(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return put


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command: its exit code and what it says."""
    monkeypatch.setenv(RUN, "")  # it sets this one
    monkeypatch.setattr(matrix, "OUT", tmp_path / "out")

    def run(*words: str) -> tuple[int, str]:
        code = matrix.main(words)
        return code, capsys.readouterr().out

    return run


def test_the_table_has_every_service() -> None:
    assert table([PASSED, FAILED, MISSING]).splitlines() == [
        "service     image               version  verdict",
        "─" * 74,
        "redis       redis:7.0-alpine    7.0.15   passed, quick: 245 pass",
        "postgresql  postgres:15-alpine  15.4     FAILED: CKP-03",
        "mysql       mysql:8.4           -        not run: no Docker engine answers",
        "1 passed, 1 failed, 1 not run",
    ]


@pytest.mark.parametrize(
    "lines,code",
    [
        ([PASSED], 0),
        ([PASSED, MISSING], 0),
        ([PASSED, FAILED, MISSING], 1),
        ([MISSING], 3),
        ([], 3),
    ],
)
def test_exit_codes(lines: list[Line], code: int) -> None:
    assert exit_code(lines) == code


def test_without_an_engine_nothing_runs_and_that_is_no_success(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    code, said = run("redis", "mysql")

    assert code == 3
    assert said.count("not run: no Docker engine answers") == 4  # as it goes on, and in the table
    assert said.endswith("0 passed, 0 failed, 2 not run\n")


def test_an_image_that_cant_be_had_is_not_run(
    run: Callable[..., tuple[int, str]], program: Callable[[str, str], None]
) -> None:
    program(
        "docker",
        'case "$1" in info) ;; image) exit 1 ;; ps) ;;\n'
        '*) echo "Error response from daemon: lookup registry.example: no such host" >&2; exit 1 ;; esac',
    )

    code, said = run("valkey")

    assert code == 3
    assert "not run: the image can't be had: lookup registry.example: no such host" in said


def test_an_image_that_doesnt_start_is_a_failure(
    run: Callable[..., tuple[int, str]], program: Callable[[str, str], None]
) -> None:
    program("docker", 'case "$1" in info|image|ps) ;; *) exit 1 ;; esac')
    program("docker-compose", "echo 'no such runtime' >&2; exit 1")

    code, said = run("valkey")

    assert code == 1
    assert "FAILED: no such runtime" in said


def test_nats_needs_its_plug_in(program: Callable[[str, str], None]) -> None:
    program("docker", "true")

    why = matrix.not_run(services()["nats"], {"gotasks_nats": False})

    assert why == "gotasks-nats isn't installed: pip install -e contrib/gotasks-nats"
    assert matrix.not_run(services()["redis"], {"gotasks_nats": False}) is None


def test_an_unknown_service_is_refused(
    run: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("rediss")

    assert ended.value.code == 2
    assert "no service is named rediss; there are redis, redis-8, valkey" in capsys.readouterr().err


def test_verdicts() -> None:
    full = msgspec.json.decode((ROOT / "docs" / "conformance" / "redis.json").read_bytes(), type=Report)
    quick = msgspec.structs.replace(full, quick=True)
    first, *others = full.rows
    bad = msgspec.structs.replace(full, rows=[msgspec.structs.replace(first, result=Result.FAIL), *others])

    assert verdict(full, 0, "full") == f"certified full: {full.counts()}"
    assert verdict(quick, 0, "full") == f"passed, quick: {full.counts()}"
    assert verdict(bad, 1, "full") == f"FAILED: {first.id}"
    less = msgspec.structs.replace(full, capabilities=[])
    assert verdict(less, 1, "full").startswith("FAILED: not full: ")


def test_the_last_line_is_the_reason() -> None:
    said = "pulling\nError response from daemon: no such host\n\n"
    assert reason(said) == "no such host"
    assert reason("") == "it didn't say why"


def test_services_are_what_the_compose_file_says(tmp_path: Path) -> None:
    found = services()

    assert SERVERS.keys() <= found.keys()  # those that tests/servers.py starts
    assert {name.partition("-")[0] for name in found} == KINDS.keys()
    for service in found.values():
        name = service.name.upper().replace("-", "_").replace(".", "_")
        assert service.variable == f"GOTASKS_TEST_{name}_IMAGE"
    assert len({service.default for service in found.values()}) == len(found)


def test_images_come_from_environment_file_and_default(tmp_path: Path) -> None:
    service, file = services()["redis"], tmp_path / ".env"
    assert service.image({}, file) == service.default

    file.write_text("GOTASKS_TEST_REDIS_8_IMAGE=other:8\nGOTASKS_TEST_REDIS_IMAGE=local:7\n")

    assert service.image({}, file) == "local:7"
    assert service.image({"GOTASKS_TEST_REDIS_IMAGE": "mine:7"}, file) == "mine:7"


@pytest.mark.parametrize("name", [name for name in services() if not name.startswith("nats")])
def test_every_service_has_an_adapter(name: str) -> None:
    module, _, attribute = services()[name].adapter.partition(":")

    assert issubclass(getattr(importlib.import_module(module), attribute), Adapter)
