"""Accident: one worker process is killed in the middle of its work, for all to see."""

from __future__ import annotations

from gotasks.demo.crew import Crew
from gotasks.demo.journal import Tally
from gotasks.demo.screen import Screen


class Accident:
    """Happens once, when half of the tasks are settled and a worker is certain to hold some."""

    def __init__(self, crew: Crew, tally: Tally, screen: Screen, *, total: int) -> None:
        self._crew = crew
        self._tally = tally
        self._screen = screen
        self._half = total // 2
        self.victim: int | None = None  #: its pid, once it was killed

    def look(self) -> None:
        """Let it happen if it's time. Raises GotasksError if a worker has ended without it."""
        self._crew.check()
        if self.victim is not None or len(self._tally.settled) < self._half:
            return
        pid = max(self._crew.pids, key=lambda each: len(self._tally.running[each]))
        if not self._tally.running[pid] or not self._crew.freeze(pid):
            return
        self._tally.update()  # the last that it wrote; whatever runs by now runs until the kill
        held = len(self._tally.running[pid])
        if not held:
            self._crew.thaw(pid)
            return
        self._crew.kill(pid)
        self.victim = pid
        del self._tally.running[pid]
        instead = self._crew.start()
        tasks = f"{held} task{'' if held == 1 else 's'}"
        self._screen.say(
            f"killed worker {pid} (SIGKILL) while it held {tasks}; started worker {instead} in its place",
            "red",
        )
