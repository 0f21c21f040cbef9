"""Service: a thread with a start and a stop. Every moving part of a worker is one."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

logger = logging.getLogger("gotasks")


class Service(ABC):
    """Runs `main` on a thread of its own, from `start` until `main` returns, which it does soon after `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=f"gotasks-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread. Once only."""
        self._thread.start()

    def stop(self) -> None:
        """Ask `main` to return. Idempotent; doesn't wait."""
        self.stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for `main` to return; whether it has (or never began)."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @abstractmethod
    def main(self) -> None:
        """The work. Must outlive any error of the broker; what escapes is a bug, and is logged."""

    def _guarded(self) -> None:
        try:
            self.main()
        except BaseException:
            logger.critical(
                "gotasks: the %s has died of a bug; its worker can't go on as it should",
                self.name,
                exc_info=True,
            )
            raise
