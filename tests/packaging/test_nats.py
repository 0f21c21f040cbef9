"""A stranger's plug-in that speaks to a server: both wheels in a clean environment, checked there on a NATS server.

The whole check takes minutes, and so has its place beside the plug-in: `pytest` in contrib/gotasks-nats.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ENVIRONMENT, ROOT, Installation, build
from tests.servers import Found, Servers

PLUG_IN = ROOT / "contrib" / "gotasks-nats"

#: Of each of the server's parts: fencing, checkpoints, deaths, order, counts, moves, kills.
ROWS = (
    "ACK-03",
    "ACK-06",
    "CKP-05",
    "CKP-06",
    "CNT",
    "DTH-01",
    "LSE-04",
    "MOV",
    "ORD",
    "SRV-02",
    "SRV-04",
    "SRV-05",
)


@pytest.fixture(scope="session")
def nats_server(servers: Servers, request: pytest.FixtureRequest) -> Found:
    """A NATS server, perhaps one that others use too: the suite touches nothing but streams of its own."""
    return servers.find("nats", request)


@pytest.fixture(scope="session")
def plugged_in(
    nats_server: Found, with_conformance: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """Both wheels in one environment, with the conformance extra."""
    (wheel,) = build(PLUG_IN, tmp_path_factory.mktemp("plug-in"), "--wheel")
    with_conformance.pip_install(str(wheel))
    return with_conformance


def test_it_is_found(plugged_in: Installation) -> None:
    (line,) = [each for each in plugged_in.gotasks("brokers").stdout.splitlines() if "nats://" in each]

    assert "gotasks-nats 0.1.0" in line
    assert "ATOMIC_MOVE" in line


def test_it_passes_what_is_the_servers_part(
    plugged_in: Installation, nats_server: Found, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    rows = [word for row in ROWS for word in ("--only", row)]
    done = plugged_in.gotasks("check", nats_server.url, "--quick", "--jobs=8", *rows, "--report", str(report))

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["distribution"] == "gotasks-nats"
    passed = {each["id"] for each in found["rows"] if each["result"] == "pass"}
    assert {"ACK-03", "CKP-05", "CNT-01", "DTH-01", "MOV-02", "ORD-01", "SRV-02", "SRV-05"} <= passed


def test_it_imports_only_what_is_public() -> None:
    sources = (PLUG_IN / "gotasks_nats").glob("*.py")
    lines = [line for path in sources for line in path.read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("from gotasks.", "import gotasks"))}

    assert imported == {
        "gotasks.broker",
        "gotasks.errors",
        "gotasks.conformance",
        "gotasks.conformance.server_process",
    }


def test_its_own_tests_pass(plugged_in: Installation, nats_server: Found) -> None:
    done = subprocess.run(
        [str(plugged_in.environment / "bin" / "python"), "-m", "pytest", "-q", "-k", "not TestConformance"],
        cwd=PLUG_IN,
        env={**ENVIRONMENT, "GOTASKS_TEST_NATS_URL": nats_server.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
