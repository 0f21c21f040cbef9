from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.resp import Resp
from tests.servers import SecretURL


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(60):
        (root / os.fsdecode(b"file \xff %d" % number)).write_text(f"{number} words\n" * number)
    return root


def start(tree: Path, url: str, *options: str, scratch: Path) -> subprocess.Popen[str]:
    scratch.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "gotasks", "demo", str(tree), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GOTASKS_BROKER_URL": url, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    )


def nothing_stays(url: str, scratch: Path) -> None:
    """Only records that expire are left in the namespace, and no file of ours."""
    assert list(scratch.iterdir()) == []
    (namespace,) = parse_qs(urlsplit(url).query)["namespace"]
    with Resp(url) as server:
        keys = server.call("KEYS", f"{{{namespace}}}:*")  # the namespace is this test's own, and small
        assert isinstance(keys, list)
        for key in keys:
            assert isinstance(key, bytes)
            left = server.call("PTTL", key)
            assert isinstance(left, int)
            assert left == -2 or 0 <= left <= 60_000, key


def gone(pids: list[str]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.timeout(120)
def test_a_killed_worker_loses_nothing(tree: Path, redis_url: SecretURL, tmp_path: Path) -> None:
    process = start(tree, redis_url, "--json", scratch=tmp_path / "scratch")
    stdout, lines = process.communicate()
    assert process.returncode == 0, lines
    killed = re.search(
        r"killed worker (\d+) \(SIGKILL\) while it held (\d+) tasks?; started worker (\d+)", lines
    )
    assert killed is not None, lines
    table = json.loads(stdout)
    assert table["files"] == 60
    assert table["crashes"] >= int(killed[2]) >= 1
    assert (table["fatal"], table["lost"], table["doubled"], table["started_twice"]) == (1, 0, 0, 0)
    again = sum(int(count) for count in re.findall(r"^(\d+) tasks? came back at", lines, re.MULTILINE))
    assert again >= int(killed[2]), lines
    gone([killed[1], killed[3]])
    nothing_stays(redis_url, tmp_path / "scratch")


@pytest.mark.timeout(120)
def test_ctrl_c_stops_the_workers(tree: Path, redis_url: SecretURL, tmp_path: Path) -> None:
    process = start(tree, redis_url, scratch=tmp_path / "scratch")
    assert process.stdout is not None
    assert process.stderr is not None
    pids: list[str] = []
    with process.stdout as output, process.stderr:
        for line in output:
            if line.startswith("killed"):  # so that a dead worker's tasks have to be cleaned up as well
                pids = re.findall(r"worker (\d+)", line)
                break
        process.send_signal(signal.SIGINT)
        rest = output.read()
    assert process.wait() == 130, rest
    assert "stopped" in rest
    assert len(pids) == 2
    gone(pids)
    nothing_stays(redis_url, tmp_path / "scratch")
