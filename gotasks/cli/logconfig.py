"""Logging of the worker command: to stderr, as lines or as JSON. Nothing else in gotasks configures logging."""

from __future__ import annotations

import logging

from gotasks.logs import JsonFormatter

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str | None, *, as_json: bool) -> None:
    """Log from `level` on (default: info). What the app has configured itself is left alone, unless `as_json`."""
    root, ours = logging.getLogger(), logging.getLogger("gotasks")
    theirs = bool(root.handlers or ours.handlers)
    if as_json or not theirs:
        handler = logging.StreamHandler()
        handler.setFormatter(
            JsonFormatter()
            if as_json
            else logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s")
        )
        root.handlers[:] = [handler]
        ours.handlers.clear()
        ours.propagate = True
        root.setLevel((level or "info").upper())
    if level is not None or not theirs:
        ours.setLevel((level or "info").upper())
