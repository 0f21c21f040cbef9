"""examples/first.py, the program of the README, runs as it is, and SIGTERM stops it cleanly."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.contract import eventually
from tests.redis_server import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "first.py"


@pytest.fixture
def program(tmp_path: Path) -> tuple[Path, int]:
    """The program, and the port of its metrics: 2121 if that is free, else a copy that has another one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 2121))
        except OSError:
            port = free_port()
        else:
            return EXAMPLE, 2121
    source = EXAMPLE.read_text()
    assert source.count('":2121"') == 1
    copy = tmp_path / "first.py"
    copy.write_text(source.replace('":2121"', f'":{port}"'))
    return copy, port


def catches(status: str, number: signal.Signals) -> bool:
    """Whether a process, by its /proc/…/status, has a handler of its own for a signal."""
    (caught,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text: str = page.read().decode()
    return text


class Running:
    """The program, and what it has printed."""

    def __init__(self, program: Path, folder: Path, **env: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
        environ |= {"PYTHONWARNINGS": "error", **env}
        self.process = subprocess.Popen(
            [sys.executable, str(program)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )
        self.lines: list[str] = []
        self._working = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if "working until" in line:
                self._working.set()
        self._working.set()

    def wait_until_it_works(self) -> None:
        """Until it has said so, and (where that can be seen) until `app.run` listens to signals."""
        assert self._working.wait(30), self.lines
        assert self.process.poll() is None, self.lines
        if (status := Path(f"/proc/{self.process.pid}/status")).exists():
            eventually(lambda: catches(status.read_text(), signal.SIGTERM), what="a handler of SIGTERM")

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(10)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def running(program: tuple[Path, int], broker_url: str, tmp_path: Path) -> Iterator[Running]:
    running = Running(program[0], tmp_path, GOTASKS_BROKER_URL=broker_url)
    yield running
    running.close()


@pytest.mark.needs("RECORDS")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_example_runs_and_stops_cleanly(
    running: Running, program: tuple[Path, int], number: signal.Signals
) -> None:
    running.wait_until_it_works()
    counted = re.compile(r'^task_execution_stats_count\{.*job_name="checkout".*\} 3\.0$', re.MULTILINE)
    eventually(lambda: counted.search(metrics(program[1])) is not None, within=20, what="three tasks done")
    assert "task_queue_stats{" in metrics(program[1])

    assert running.stop(number) == 0, running.lines

    printed = "\n".join(running.lines)
    for order in (42, 43, 44):
        assert printed.count(f"order {order}: charged as ch_{order}") == 1, printed
    done = r"^[0-9a-f-]{36} \{'order': 42, 'charge': 'ch_42'\} \S*(done|DONE)\S*$"
    assert re.search(done, printed, re.MULTILINE), printed
    assert re.search(r"^ready: \d QueueStats\(ready=\d, ", printed, re.MULTILINE), printed
    assert "Traceback" not in printed


def test_it_keeps_its_tasks_in_a_file_of_this_folder(program: tuple[Path, int], tmp_path: Path) -> None:
    running = Running(program[0], tmp_path)
    try:
        running.wait_until_it_works()
        assert (tmp_path / "tasks.db").stat().st_size > 0
        assert running.stop(signal.SIGTERM) == 0, running.lines
    finally:
        running.close()
