"""Logs: what the facts of a worker say in the standard library's logging. Nothing here configures logging.

`app.events.listen(LogListener())` is all it takes; the `gotasks worker` command does it. Each record has the
attributes `task_id`, `job`, `queue` and `step`, empty where the fact has none.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from gotasks.events import (
    BrokerDown,
    BrokerUp,
    Checkpointed,
    Event,
    LeaseLost,
    LoopStalled,
    StepDone,
    StepRetried,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)

#: A server that stays away is mentioned this often. Seconds.
BETWEEN_MENTIONS = 10.0

#: Of a longer error only the beginning and the end are logged; the fatal queue has more. Characters.
LONGEST_ERROR = 500

#: The attributes that each record has, in this order in a line of JSON.
FIELDS = ("task_id", "job", "queue", "step")

#: The writer itself looks at the level.
_ALWAYS = -1

#: Released for one of these reasons, a task didn't go on as it should; the others are everyday.
_WARN_WHEN_RELEASED = {
    "lease": "its lease couldn't be extended in time",
    "timeout": "a step ran too long",
}


class LogListener:
    """Writes facts to a logger. Thread-safe, and cheap for facts whose level isn't logged.

    ERROR: a task went to the fatal queue. WARNING: a retry, a crash, a lost lease, a server that is away (at once,
    then at most every 10 s), a stalled event loop. INFO: a task given back at a stop, a server that is back. DEBUG:
    every start, step, checkpoint and end.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """`logger`: by default the one named "gotasks"."""
        self._logger = logger if logger is not None else logging.getLogger("gotasks")
        self._outage = _Outage()
        self._writers: dict[type[Event], tuple[int, Callable[[Any], None]]] = {
            TaskStarted: (logging.DEBUG, self._started),
            StepDone: (logging.DEBUG, self._step_done),
            Checkpointed: (logging.DEBUG, self._checkpointed),
            TaskSucceeded: (logging.DEBUG, self._succeeded),
            StepRetried: (logging.WARNING, self._retried),
            TaskBuried: (logging.ERROR, self._buried),
            TaskReleased: (_ALWAYS, self._released),  # the level depends on the reason
            TaskCrashed: (logging.WARNING, self._crashed),
            LeaseLost: (logging.WARNING, self._lost),
            BrokerDown: (_ALWAYS, self._down),  # the outage is tracked whatever is logged
            BrokerUp: (_ALWAYS, self._up),
            LoopStalled: (logging.WARNING, self._stalled),
        }

    def __call__(self, event: Event) -> None:
        writer = self._writers.get(type(event))
        if writer is not None and (writer[0] == _ALWAYS or self._logger.isEnabledFor(writer[0])):
            writer[1](event)

    def _say(self, level: int, event: Event, message: str, *values: object) -> None:
        self._logger.log(
            level, message, *values, extra={name: getattr(event, name, "") or "" for name in FIELDS}
        )

    # -- tasks ------------------------------------------------------------------------------------

    def _started(self, event: TaskStarted) -> None:
        self._say(logging.DEBUG, event, "task %s of job %r: taken up", event.task_id, event.job)

    def _step_done(self, event: StepDone) -> None:
        how = "done" if event.ok else "raised"
        message = "task %s of job %r: step %r %s after %.3f s"
        self._say(logging.DEBUG, event, message, event.task_id, event.job, event.step, how, event.seconds)

    def _checkpointed(self, event: Checkpointed) -> None:
        message = "task %s of job %r: checkpoint before step %r"
        self._say(logging.DEBUG, event, message, event.task_id, event.job, event.step)

    def _succeeded(self, event: TaskSucceeded) -> None:
        message = "task %s of job %r: done after %.3f s"
        self._say(logging.DEBUG, event, message, event.task_id, event.job, event.seconds)

    def _retried(self, event: StepRetried) -> None:
        message = "task %s of job %r: step %r failed (try %d), again in %.3g s: %s"
        values = event.task_id, event.job, event.step, event.tries, event.delay, _line(event.error)
        self._say(logging.WARNING, event, message, *values)

    def _buried(self, event: TaskBuried) -> None:
        message = "task %s of job %r: to the fatal queue, %s%s: %s"
        where = f" at step {event.step!r}" if event.step else ""
        self._say(
            logging.ERROR, event, message, event.task_id, event.job, event.outcome, where, _line(event.error)
        )

    def _released(self, event: TaskReleased) -> None:
        reason = _WARN_WHEN_RELEASED.get(event.why)
        if reason is not None:
            message = "task %s of job %r: given back, since %s"
            self._say(logging.WARNING, event, message, event.task_id, event.job, reason)
        else:
            level = logging.INFO if event.why == "stop" else logging.DEBUG
            self._say(level, event, "task %s of job %r: given back (%s)", event.task_id, event.job, event.why)

    def _crashed(self, event: TaskCrashed) -> None:
        message = "task %s of job %r: its worker went away (%d times in this step)"
        self._say(logging.WARNING, event, message, event.task_id, event.job, event.deaths)

    def _lost(self, event: LeaseLost) -> None:
        message = (
            "task %s of job %r: the lease is lost (somebody else has the task, or it was cancelled), so what this "
            "worker did since the last checkpoint %s"
        )
        what = "is discarded" if event.sure else "is discarded, unless the write before did take effect"
        self._say(logging.WARNING, event, message, event.task_id, event.job, what)

    # -- the worker -------------------------------------------------------------------------------

    def _down(self, event: BrokerDown) -> None:
        if self._outage.mention(event.what):
            message = "the broker doesn't answer, and is asked again (%s, attempt %d): %s"
            self._say(logging.WARNING, event, message, event.what, event.attempt, _line(event.error))

    def _up(self, event: BrokerUp) -> None:
        attempts = self._outage.over(event.what, event.attempts)
        if attempts:
            self._say(logging.INFO, event, "the broker is back after %d attempts (%s)", attempts, event.what)

    def _stalled(self, event: LoopStalled) -> None:
        message = "the event loop of the async handlers made no progress for %.1f s; it is at\n%s"
        self._say(logging.WARNING, event, message, event.seconds, event.stack)


def _line(text: str) -> str:
    """An error on one line that any file takes, so that it can't look like another record; not too long."""
    if len(text) > LONGEST_ERROR:
        text = f"{text[: LONGEST_ERROR // 2]} … {text[-LONGEST_ERROR // 2 :]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _Outage:
    """Decides what is said of a server that is away, whose every caller reports each attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._down: set[str] = set()
        self._mentioned = False  #: in this outage
        self._last = -BETWEEN_MENTIONS
        self._attempts = 0

    def mention(self, what: str) -> bool:
        """A call failed; whether that is to be said."""
        now = time.monotonic()
        with self._lock:
            if what != "extend":  # may never be answered again: there may be no lease left to extend
                self._down.add(what)
            if now - self._last < BETWEEN_MENTIONS:
                return False
            self._last = now
            self._mentioned = True
            return True

    def over(self, what: str, attempts: int) -> int:
        """A call that had failed was answered. Above 0 if all are and the outage was mentioned: the most attempts."""
        with self._lock:
            self._down.discard(what)
            self._attempts = max(self._attempts, attempts)
            if self._down or not self._mentioned:
                return 0
            most, self._attempts = self._attempts, 0
            self._mentioned = False
            return most


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339, UTC), level, logger, message, the fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line.update((name, value) for name in FIELDS if (value := getattr(record, name, "")))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
