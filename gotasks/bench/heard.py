"""Heard: what worker and broker log as a warning meanwhile. It is printed once, and not amid a bar."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Heard(logging.Handler):
    """Listens within its block. A worker asks the broker for its warnings when it starts, and logs them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger("gotasks")
        self._lines: dict[str, None] = {}

    @property
    def lines(self) -> list[str]:
        """What was said, each sentence once."""
        return list(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines[record.getMessage()] = None

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._logger.removeHandler(self)
