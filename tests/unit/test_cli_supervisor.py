"""The supervisor, with children that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_process import lives, until

#: What each child does first: it says that it was born, and when.
HEAD = """
import os, sys, time
with open(os.environ["BIRTHS"], "a") as births:
    births.write(f"{os.getpid()} {time.monotonic()}\\n")
"""

#: Runs a supervisor: what the children do after that, how many there are, and their grace time.
PARENT = """
import logging, sys
from gotasks.worker import supervisor

logging.basicConfig(level="INFO")
supervisor._AFTER_GRACE = 0.1
child, processes, grace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sys.exit(supervisor.Supervisor([sys.executable, "-c", child], processes, grace=grace).run())
"""


class Family:
    """A supervisor and its children."""

    def __init__(self, directory: Path, child: str, *, processes: int = 1, grace: float = 30.0) -> None:
        self._births = directory / "births"
        self._births.touch()
        self._log = directory / "log"
        words = [sys.executable, "-c", PARENT, HEAD + child, str(processes), str(grace)]
        with self._log.open("w") as log:
            env = {**os.environ, "BIRTHS": str(self._births)}
            self.parent = subprocess.Popen(words, stderr=log, env=env)

    @property
    def births(self) -> list[tuple[int, float]]:
        lines = self._births.read_text().splitlines()
        return [(int(pid), float(moment)) for pid, moment in (line.split() for line in lines)]

    def until_born(self, count: int) -> None:
        until(lambda: len(self.births) >= count, self._log.read_text)

    def ends(self, code: int) -> str:
        """The supervisor ends with this code and leaves no child; returns what it has logged."""
        assert self.parent.wait(20) == code, self._log.read_text()
        until(lambda: not any(lives(pid) for pid, _ in self.births), "a child is left over")
        return self._log.read_text()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self.parent.kill()
        self.parent.wait()
        for pid, _ in self.births:
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    families: list[Family] = []

    def family(child: str, **options: Any) -> Family:
        families.append(Family(tmp_path, child, **options))
        return families[-1]

    yield family
    for each in families:
        each.close()


def test_a_crash_loop_does_not_spin(start: Callable[..., Family]) -> None:
    family = start("raise SystemExit(7)")
    family.until_born(4)
    until(lambda: "another is started in 2 s" in family.log, "the fourth hasn't ended")  # so none is running
    family.parent.send_signal(signal.SIGTERM)
    said = family.ends(0)
    moments = [moment for _, moment in family.births]
    # The first restart is at once, the next ones half a second and a second later.
    assert moments[2] - moments[1] >= 0.45
    assert moments[3] - moments[2] >= 0.95
    assert "ended with exit code 7; another is started now" in said
    assert "ended with exit code 7; another is started in 0.5 s" in said


def test_children_that_do_not_stop_are_killed_after_their_grace(start: Callable[..., Family]) -> None:
    family = start("time.sleep(60)", processes=2, grace=0.2)
    family.until_born(2)
    family.parent.send_signal(signal.SIGINT)
    assert "2 processes don't stop and are killed" in family.ends(1)


def test_a_child_that_fails_while_it_stops_makes_the_exit_code_1(start: Callable[..., Family]) -> None:
    child = "os.read(int(os.environ['GOTASKS_SUPERVISOR_FD']), 1)\nraise SystemExit(3)"
    family = start(child)
    family.until_born(1)
    family.parent.send_signal(signal.SIGTERM)
    assert "ended with exit code 3 instead of stopping" in family.ends(1)


def test_a_second_signal_kills(start: Callable[..., Family], tmp_path: Path) -> None:
    child = (
        "from gotasks.worker.supervisor import Lifeline\n"
        "Lifeline.inherited().orders.get()\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    family = start(child)
    family.until_born(1)
    family.parent.send_signal(signal.SIGTERM)
    until((tmp_path / "asked").exists, "the child isn't asked to stop")
    family.parent.send_signal(signal.SIGTERM)
    family.ends(128 + signal.SIGTERM)


def test_children_learn_that_the_supervisor_was_killed(start: Callable[..., Family]) -> None:
    child = "from gotasks.worker.supervisor import Lifeline\nLifeline.inherited().orders.get()"
    family = start(child, processes=2)
    family.until_born(2)
    family.parent.kill()
    family.ends(-signal.SIGKILL)


def test_a_stray_variable_is_no_lifeline(tmp_path: Path) -> None:
    script = "from gotasks.worker.supervisor import Lifeline; print(Lifeline.inherited())"
    for value in ("", "x", "77", "1"):  # 1 is open: a file, not a pipe
        with (tmp_path / "out").open("w+") as output:
            env = {**os.environ, "GOTASKS_SUPERVISOR_FD": value}
            subprocess.run([sys.executable, "-c", script], env=env, stdout=output, check=True)
            output.seek(0)
            assert output.read() == "None\n"
