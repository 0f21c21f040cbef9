"""Clocks: put this process's wall clock forward or back. Called in a process of its own (`elsewhere`).

Only `time.time`, `time_ns`, `localtime`, `gmtime` and `datetime` are moved, in every module that has them; the
monotonic clock goes on as ever, and so does the system's (`time.clock_gettime`).
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from typing import TYPE_CHECKING, Any

from gotasks.broker import Broker

if TYPE_CHECKING:
    from typing_extensions import Self

_time, _time_ns, _localtime, _gmtime = time.time, time.time_ns, time.localtime, time.gmtime
_datetime, _date = dt.datetime, dt.date
_ahead = 0.0


class _Date(dt.date):
    @classmethod
    def today(cls) -> Self:
        return cls.fromtimestamp(_shifted())


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(_shifted(), tz)

    @classmethod
    def today(cls) -> Self:
        return cls.fromtimestamp(_shifted())

    @classmethod
    def utcnow(cls) -> Self:
        return cls.fromtimestamp(_shifted(), dt.timezone.utc).replace(tzinfo=None)


def shift(_: Broker, seconds: float) -> None:
    """From now on this process's wall clock is so many seconds ahead of the system's; behind, if negative."""
    global _ahead  # noqa: PLW0603 - a process has one clock
    _ahead = seconds
    if time.time is not _time:  # it was moved before
        return
    moved: dict[object, object] = {
        _time: _shifted,
        _time_ns: lambda: _time_ns() + int(_ahead * 1e9),
        _localtime: lambda secs=None: _localtime(_shifted() if secs is None else secs),
        _gmtime: lambda secs=None: _gmtime(_shifted() if secs is None else secs),
        _datetime: _Datetime,
        _date: _Date,
    }
    for name, module in list(sys.modules.items()):
        if name == __name__:
            continue
        names: dict[str, Any] = getattr(module, "__dict__", {})
        for attribute, value in list(names.items()):
            if isinstance(value, (type, type(_time))) and value in moved:
                names[attribute] = moved[value]


def _shifted() -> float:
    return _time() + _ahead
