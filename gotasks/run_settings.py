"""RunSettings: what running a chain needs to know about its app and queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gotasks import codec
from gotasks.broker import Capability
from gotasks.job import Job
from gotasks.settings import AckWhen, QueueOptions

if TYPE_CHECKING:
    from gotasks.app import App


@dataclass(frozen=True)
class RunSettings:
    """Seconds and bytes."""

    fatal_queue: str
    lease: float
    max_crashes: int
    keep_for: float  #: how long the record of a finished task stays
    max_body: int  #: of a bury
    delays: bool  #: DELAY
    moves_at_once: bool  #: ATOMIC_MOVE
    hands_off: bool  #: HANDOFF, and checkpoints are written
    jobs: Mapping[str, Job]
    max_lease: float | None = None
    ack_first: bool = False  #: AckWhen.ACQUIRED

    @classmethod
    def of(cls, app: App, options: QueueOptions) -> RunSettings:
        """Those of an app for one of its queues."""
        ack_first = options.ack_when is AckWhen.ACQUIRED
        return cls(
            fatal_queue=app.fatal_queue,
            lease=options.lease,
            max_crashes=options.max_crashes,
            keep_for=app.keep_for,
            max_body=app.max_body,
            delays=Capability.DELAY in app.capabilities,
            moves_at_once=Capability.ATOMIC_MOVE in app.capabilities,
            hands_off=Capability.HANDOFF in app.capabilities and not ack_first,
            jobs=app.jobs,
            max_lease=app.dispatch.limits.max_lease,
            ack_first=ack_first,
        )

    @property
    def max_state(self) -> int:
        """Bytes of a body at enqueue and at a checkpoint."""
        return self.max_body - codec.ROOM_TO_BURY
