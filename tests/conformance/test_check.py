"""`gotasks check`: what .ci/run calls on each backend, and what it says to people who wrote a wrong broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gotasks.conformance.outcome import Result
from gotasks.conformance.report import verify
from gotasks.conformance.rows.everything import ROWS
from tests.cli_process import Cli
from tests.conformance.beside import PROFILES, SERVERS, Beside
from tests.servers import Servers


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


@pytest.mark.timeout(900)  # the first waits for its own, beside which all others run
@pytest.mark.parametrize("backend", PROFILES)
def test_every_backend_passes_the_quick_check(
    backend: str,
    beside: Mapping[str, Beside],
    servers: Servers,
    request: pytest.FixtureRequest,
    figures: Callable[[str], None],
) -> None:
    if backend not in beside:
        for name in SERVERS.get(backend, (backend,)):
            servers.find(name, request)  # says why
    code, said = beside[backend].ended()

    report = verify((beside[backend].directory / "out.json").read_bytes(), ROWS)
    figures(
        next(line for line in said.splitlines() if " pass" in line and " in " in line and "suite" in line)
    )
    bad = (Result.FAIL, Result.NOT_RUN, Result.WAIVED)
    assert {row.id: row.reason for row in report.rows if row.result in bad} == {}
    assert code == 0, said
    assert all(row.reason for row in report.rows if row.result != "pass")


def rejected(cli: Cli, adapter: str, *rows: str, url: str = "memory://") -> dict[str, str]:
    """What the check says of a bad broker: its failed rows and the reasons."""
    words = [word for row in rows for word in ("--only", row)]
    done = cli.run(
        "check",
        url,
        "--quick",
        "--json",
        f"--adapter=tests.conformance.brokers:{adapter}",
        *words,
        code=1,
    )
    report = json.loads(done.stdout)
    assert not any(verdict["certified"] for verdict in report["verdicts"].values())
    return {row["id"]: row["reason"] for row in report["rows"] if row["result"] == "fail"}


def test_a_broker_that_claims_too_much_is_rejected(cli: Cli) -> None:
    reasons = rejected(cli, "OverClaimingAdapter", "ACK", "UNQ")

    assert "ACK-03" in reasons
    assert any(row.startswith("UNQ") for row in reasons)


def test_a_broker_that_claims_too_little_is_rejected(cli: Cli) -> None:
    reasons = rejected(cli, "UnderClaimingAdapter", "BRW", "CAP", url="memory://?without=BROWSE")

    assert any("BROWSE" in reason for reason in reasons.values()), reasons


def test_a_waiver_of_what_passes_is_a_failure(cli: Cli) -> None:
    reasons = rejected(cli, "WaivingAdapter", "CKP-01")

    assert reasons == {"CKP-01": "it is waived (https://example.org/issues/7) but passes: remove the waiver"}


def test_verify(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    cli.run("check", "memory://", "--only=CKP-01", "--report", str(path))
    assert "is whole and unchanged" in cli.run("check", "--verify", str(path)).stdout

    path.write_bytes(path.read_bytes().replace(b'"pass"', b'"fail"'))
    assert "it was changed after it was written" in cli.run("check", "--verify", str(path), code=1).stderr


def test_the_rows_are_listed(cli: Cli) -> None:
    listed = cli.run("check", "--list").stdout

    assert all(f"{row.id} " in listed and row.title in listed for row in ROWS.values())


@pytest.mark.parametrize(
    "words,says",
    [
        ([], "which broker?"),
        (["nowhere://x"], "no installed package"),
        (["memory://", "--only", "XYZ-01"], "no row is named XYZ-01"),
        (["memory://", "--adapter", "nonsense"], "module:Class"),
        (["memory://", "--adapter", "tests.nothing:Here"], "can't be imported"),
        (["memory://", "--adapter", "tests.cli_process:Cli"], "isn't a subclass"),
        (["memory://?with=everything"], "no parameter 'with'"),
        (["memory"], "a broker URL starts with a scheme"),
    ],
)
def test_what_it_refuses(cli: Cli, words: list[str], says: str) -> None:
    done = cli.run("check", *words, code=2)

    assert says in done.stderr
    assert "Traceback" not in done.stderr
