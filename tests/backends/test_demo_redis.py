from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.backends.demo_process import Demo, held_by_the_killed_one, make_tree, workers_are_gone
from tests.resp import Resp
from tests.servers import SecretURL

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def nothing_stays(url: str) -> None:
    """Only records that expire are left in the namespace."""
    (namespace,) = parse_qs(urlsplit(url).query)["namespace"]
    with Resp(url) as server:
        keys = server.call("KEYS", f"{{{namespace}}}:*")  # the namespace is this test's own, and small
        assert isinstance(keys, list)
        for key in keys:
            assert isinstance(key, bytes)
            left = server.call("PTTL", key)
            assert isinstance(left, int)
            assert left == -2 or 0 <= left <= 60_000, key


def test_a_killed_worker_loses_nothing(tree: Path, redis_url: SecretURL, tmp_path: Path) -> None:
    demo = Demo(tree, "--json", folder=tmp_path, scratch=tmp_path / "scratch", GOTASKS_BROKER_URL=redis_url)
    stdout, lines = demo.ends_well()
    held = held_by_the_killed_one(lines)
    table = json.loads(stdout)
    assert table["files"] == 60
    assert table["crashes"] >= held >= 1
    assert (table["fatal"], table["lost"], table["doubled"], table["started_twice"]) == (1, 0, 0, 0)
    again = sum(int(count) for count in re.findall(r"^(\d+) tasks? came back at", lines, re.MULTILINE))
    assert again >= held, lines
    workers_are_gone(lines)
    nothing_stays(redis_url)


def test_ctrl_c_stops_the_workers(tree: Path, redis_url: SecretURL, tmp_path: Path) -> None:
    demo = Demo(tree, folder=tmp_path, scratch=tmp_path / "scratch", GOTASKS_BROKER_URL=redis_url)
    demo.interrupted()
    nothing_stays(redis_url)
