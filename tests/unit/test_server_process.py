"""ServerProcess: what an adapter starts, stops and kills, and nothing of which outlives the suite."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks.conformance.server_process import ServerProcess, free_port
from tests.cli_process import lives

#: Writes its process id, and that of a child in a session of its own, then serves until it's told to stop.
SERVER = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
def stop(*_):
    child.kill()
    open("stopped", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("serving", flush=True)
open("part", "w").write(f"{os.getpid()} {child.pid}")
os.replace("part", "ready")
time.sleep(600)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess("server", tmp_path / "server.log")
    yield process
    process.kill()


@pytest.fixture
def start(process: ServerProcess, tmp_path: Path) -> Callable[[], list[int]]:
    """Start one; the process ids of it and of its child."""

    def start() -> list[int]:
        ready = tmp_path / "ready"
        ready.unlink(missing_ok=True)
        process.start([sys.executable, "-c", SERVER], ready.exists, cwd=tmp_path)
        return [int(each) for each in ready.read_text().split()]

    return start


def test_it_runs_until_it_is_told_to_stop_and_again(
    process: ServerProcess, start: Callable[[], list[int]], tmp_path: Path
) -> None:
    for _ in range(2):
        pid, child = start()
        assert process.pid == pid
        with pytest.raises(RuntimeError, match="the private server is running"):
            start()
        process.stop()
        assert not lives(pid)
        assert not lives(child)
        assert (tmp_path / "stopped").exists()
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = process.pid
    process.stop()
    assert (tmp_path / "server.log").read_text() == "serving\n" * 2


def test_kill_ends_all_of_it_at_once(
    process: ServerProcess, start: Callable[[], list[int]], tmp_path: Path
) -> None:
    pid, child = start()
    process.kill()
    assert not lives(pid)
    assert not lives(child)  # though it has a session of its own
    assert not (tmp_path / "stopped").exists()
    process.kill()


def test_one_that_doesnt_stop_is_killed(process: ServerProcess, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    process.start(
        [sys.executable, "-c", f"{deaf}; pathlib.Path('ready').touch(); time.sleep(600)"],
        ready.exists,
        cwd=tmp_path,
    )
    pid = process.pid
    with pytest.raises(subprocess.TimeoutExpired):
        process.stop(by=signal.SIGTERM, timeout=0.1)
    assert not lives(pid)


def test_one_that_ends_at_once_is_told_with_what_it_said(process: ServerProcess) -> None:
    with pytest.raises(RuntimeError, match="the private server ended; its log ends with:\nno such port"):
        process.start([sys.executable, "-c", "raise SystemExit('no such port')"], lambda: False)


def test_one_that_doesnt_answer_is_killed(process: ServerProcess) -> None:
    pids = []

    def answers() -> bool:
        pids.append(process.pid)
        return False

    with pytest.raises(RuntimeError, match=r"didn't answer within 0\.1 s"):
        process.start([sys.executable, "-c", "import time; time.sleep(600)"], answers, timeout=0.1)
    assert not lives(pids[0])


def test_a_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] != free_port()
