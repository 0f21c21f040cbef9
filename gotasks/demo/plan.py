"""Plan: what all processes of one run of the demo have to agree on."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gotasks.demo.files import to_path
from gotasks.errors import ConfigurationError

#: The environment variable by which a worker process gets its plan.
VARIABLE = "GOTASKS_DEMO_PLAN"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Paths are text as `files.to_text` makes it."""

    run: str  #: makes the names of the queues this run's own
    folder: str  #: where journal and logs are
    report: str
    seed: int
    pace: float = 0.0  #: seconds that each step takes at least
    slots: int = 8  #: of each worker
    task_ttl: float | None = None

    @property
    def queue(self) -> str:
        return f"demo-{self.run}"

    @property
    def fatal_queue(self) -> str:
        return f"demo-fatal-{self.run}"

    def path(self, name: str) -> Path:
        """A file of this run."""
        return to_path(self.folder) / name

    @property
    def journal(self) -> Path:
        return self.path("journal.jsonl")

    def variable(self) -> dict[str, str]:
        """The environment of a worker process that follows this plan."""
        return {VARIABLE: msgspec.json.encode(self).decode()}

    @classmethod
    def of_environment(cls) -> Plan:
        """The plan that the demo gave to this process. Raises ConfigurationError."""
        text = os.environ.get(VARIABLE)
        if text is None:
            raise ConfigurationError(
                "gotasks.demo.app is for the worker processes of the demo: run 'gotasks demo'"
            )
        return msgspec.json.decode(text, type=cls)
