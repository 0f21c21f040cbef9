"""Settings: what can be set by environment variables, and the options of a queue."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from gotasks.errors import ConfigurationError

T = TypeVar("T", int, float)


class AckWhen(Enum):
    """When a task leaves the broker."""

    SUCCEED = (
        "succeed"  #: after its last step: checkpoints, resume after a crash, at least or at most once a step
    )
    ACQUIRED = "acquired"  #: before its first step: at most once for the whole task; a crash loses it


@dataclass(frozen=True)
class QueueOptions:
    """How a worker process serves one queue.

    Attributes:
        max_limit: handlers that run at once.
        monitor_interval: seconds between two measurements of the queue for the metrics.
        lease: seconds after which a task of a dead worker is offered again. Renewed while a task runs.
        ack_when: see AckWhen.
        max_crashes: a task whose worker went away that often in one reentrant step goes to the fatal queue.
    """

    max_limit: int = 10
    monitor_interval: float = 5.0
    lease: float = 30.0
    ack_when: AckWhen = AckWhen.SUCCEED
    max_crashes: int = 3

    def __post_init__(self) -> None:
        _whole("max_limit", self.max_limit)
        _whole("max_crashes", self.max_crashes)
        _positive("monitor_interval", self.monitor_interval)
        _positive("lease", self.lease)
        if not isinstance(self.ack_when, AckWhen):
            raise ConfigurationError(
                f"ack_when is AckWhen.SUCCEED or AckWhen.ACQUIRED, not {self.ack_when!r}"
            )

    def overridden(self) -> QueueOptions:
        """With what GOTASKS_MAX_LIMIT, GOTASKS_MONITOR_INTERVAL and GOTASKS_LEASE say. Raises ConfigurationError."""
        return replace(
            self,
            max_limit=_env("GOTASKS_MAX_LIMIT", int, self.max_limit),
            monitor_interval=_env("GOTASKS_MONITOR_INTERVAL", float, self.monitor_interval),
            lease=_env("GOTASKS_LEASE", float, self.lease),
        )


def grace(default: float = 30.0) -> float:
    """GOTASKS_GRACE: how long a stop waits for running handlers, in seconds. Raises ConfigurationError."""
    value = _env("GOTASKS_GRACE", float, default)
    _positive("GOTASKS_GRACE", value)
    return value


def broker_url() -> str | None:
    """GOTASKS_BROKER_URL, or None."""
    return os.environ.get("GOTASKS_BROKER_URL") or None


def _env(name: str, kind: Callable[[str], T], default: T) -> T:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}: it takes a number") from None


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is a whole number from 1, not {value!r}")


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is a number of seconds above 0, not {value!r}")
