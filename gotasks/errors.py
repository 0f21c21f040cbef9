"""Every error that gotasks raises. One base class; the message says what to do next.

A class without a message of its own speaks with the first line of its docstring.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class GotasksError(Exception):
    """Something in gotasks went wrong."""

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "").partition("\n")[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)  # whatever a subclass's __init__ takes


def _restored(cls: type[GotasksError], args: tuple[Any, ...], state: dict[str, Any]) -> GotasksError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# -- what a program got wrong -------------------------------------------------------------------


class ConfigurationError(GotasksError):
    """An option, a URL or an environment variable can't be used as it stands."""


class InvalidURL(ConfigurationError, ValueError):
    """A broker URL can't be understood. The message never contains its password."""


class UnknownScheme(ConfigurationError):
    """No installed distribution offers a broker for this URL scheme."""


class AmbiguousScheme(ConfigurationError):
    """Two installed distributions claim one URL scheme."""


class MissingDriver(ConfigurationError):
    """A backend is here, but the package that it drives isn't installed."""


class IncompatibleBroker(ConfigurationError):
    """A plug-in was written for another version of the broker contract."""


class InvalidName(ConfigurationError, ValueError):
    """A task id, a queue, a job or a step has a name that isn't allowed."""


class DuplicateJob(ConfigurationError):
    """A job of this name is registered already."""


class UnknownJob(ConfigurationError, LookupError):
    """No job of this name is registered."""


class InvalidArgs(GotasksError, ValueError):
    """An args map can't be stored as JSON, or doesn't fit the handler's annotation."""


# -- what became of a task ----------------------------------------------------------------------


class TaskNotFound(GotasksError, LookupError):
    """The broker has no record of this task: never enqueued, or ended longer ago than `task_ttl`."""


class TaskFailed(GotasksError):
    """The task is in the fatal queue. `task_id`, `step`, `error` and `traceback` say why."""

    def __init__(self, task_id: str, step: str | None, error: str, traceback: str = "") -> None:
        super().__init__(task_id, step, error, traceback)
        self.task_id = task_id
        self.step = step
        self.error = error
        self.traceback = traceback

    def __str__(self) -> str:
        where = f" at step {self.step!r}" if self.step else ""
        return f"task {self.task_id} failed{where}: {self.error}"


class TaskCancelled(GotasksError):
    """The task was cancelled."""


class WaitTimeout(GotasksError, TimeoutError):
    """The task hadn't ended when the time was up; it goes on."""


class InDoubt(GotasksError):
    """Resuming this task may start a step a second time, so it has to be asked for by force."""


# -- what a broker may raise --------------------------------------------------------------------


class BrokerError(GotasksError):
    """A broker couldn't do what was asked."""


class BrokerUnavailable(BrokerError):
    """The server can't be reached or didn't answer. The outcome is *unknown*: each item either way.

    `ids`: the tasks of an enqueue whose outcome is unknown (empty for any other call).
    """

    def __init__(self, *args: object, ids: Collection[str] = ()) -> None:
        super().__init__(*args)
        self.ids = tuple(ids)


class Rejected(BrokerError):
    """Certain: the items named by `ids` were not written. What became of the others is unknown."""

    def __init__(self, message: str = "", *, ids: Collection[str]) -> None:
        super().__init__(message)
        self.ids = frozenset(ids)


class PayloadTooLarge(Rejected):
    """The encoded task is larger than the broker or the app allows. Nothing was stored."""


class Unsupported(BrokerError):
    """The broker doesn't have this capability. Nothing was done."""


class BrokerClosed(BrokerError):
    """The broker was closed. Nothing was done."""
