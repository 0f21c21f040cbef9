"""Context: what a running handler may know about its task. `gotasks.context.current()` inside a handler."""

from __future__ import annotations

from contextvars import ContextVar, Token

from gotasks.run import Run

_current: ContextVar[Run] = ContextVar("gotasks_run")


class Context:
    """The task that the calling handler works for."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def task_id(self) -> str:
        return self._run.id

    @property
    def queue(self) -> str:
        return self._run.queue

    @property
    def job(self) -> str:
        return self._run.job

    @property
    def step_index(self) -> int:
        """How many steps were completed before this one."""
        return self._run.task.current_handler_index if self._run.task else 0

    @property
    def tries(self) -> int:
        """Failed tries of this step so far."""
        return self._run.task.tries if self._run.task else 0

    @property
    def revoked(self) -> bool:
        """True once the task is somebody else's or cancelled, or the step's time is up: what this handler returns is
        discarded.

        A long handler should look at it now and then, and return.
        """
        return self._run.over


def current() -> Context:
    """The context of the calling handler. Raises LookupError outside one that a worker runs."""
    return Context(_current.get())


def enter(run: Run) -> Token[Run]:
    """Make `run` the one that `current` speaks of, on this thread and in the coroutines started from it."""
    return _current.set(run)


def leave(entered: Token[Run]) -> None:
    """Undo `enter`."""
    _current.reset(entered)
