"""Checker: runs rows on a backend, one after the other, and says how each came out."""

from __future__ import annotations

import sys
import threading
import time
import traceback
import zlib
from collections.abc import Mapping
from pathlib import Path

from gotasks.broker import Capability
from gotasks.conformance.adapter import Adapter, MissingHook, NotApplicable
from gotasks.conformance.expect import Nonconformance
from gotasks.conformance.outcome import NOT_APPLICABLE, Outcome, Result
from gotasks.conformance.redact import redact
from gotasks.conformance.refusals import refuse
from gotasks.conformance.row import Row
from gotasks.conformance.scene import Scene

#: A full run of a row may take so many times longer than a quick one.
_FULL = 3

#: What is broken off may take so long to end. Seconds.
_PATIENCE = 5.0

#: Of a reason. Characters.
_LONGEST = 1500

_DURABILITY = ("none", "restart", "kill")


def run_row(row: Row, adapter: Adapter, *, quick: bool = False, seed: int = 0) -> Outcome:
    """Run one row in a thread of its own, for at most its time."""
    began = time.monotonic()
    playing = _Playing(row, adapter, quick=quick, seed=seed)
    thread = threading.Thread(target=playing.run, name=f"row {row.id}", daemon=True)
    thread.start()
    timeout = row.timeout if quick else row.timeout * _FULL
    thread.join(timeout)
    result, reason, error = playing.result, playing.reason, playing.error
    if thread.is_alive():
        result, reason = Result.FAIL, f"it didn't end within {timeout:g} s; it stands at {_where(thread)}"
        error = TimeoutError(reason)
        playing.break_off(thread)
    link = adapter.waivers.get(row.id)
    if link is not None and result is Result.FAIL:
        result, reason = Result.WAIVED, f"{link}: {reason}"
    elif link is not None and result is Result.PASS:
        result, reason = Result.FAIL, f"it is waived ({link}) but passes: remove the waiver"
    return Outcome(
        row=row,
        result=result,
        reason=redact(reason, adapter.broker_url),
        seconds=time.monotonic() - began,
        figures={
            name: redact(value, adapter.broker_url) if isinstance(value, str) else value
            for name, value in dict(playing.figures).items()
        },
        error=error,
    )


class _Playing:
    """A row that is being played. What it has set when its time is over is all that counts."""

    def __init__(self, row: Row, adapter: Adapter, *, quick: bool, seed: int) -> None:
        self._row, self._adapter, self._quick = row, adapter, quick
        self._seed = zlib.crc32(f"{seed} {row.id}".encode())
        self.result = Result.FAIL
        self.reason = "it ended without a word"
        self.figures: Mapping[str, float | int | str] = {}
        self.error: BaseException | None = None
        self._scene: Scene | None = None

    def break_off(self, thread: threading.Thread) -> None:
        """Its time is over: have its thread end, for its clients and its threads are in the way of later rows."""
        if self._scene is not None:
            closing = threading.Thread(
                target=self._scene.break_off, name=f"end of {thread.name}", daemon=True
            )
            closing.start()
            closing.join(_PATIENCE)
            thread.join(_PATIENCE)

    def run(self) -> None:
        try:
            self._play()
        except BaseException as error:
            self.error, self.reason = error, _sentence(error)

    def _play(self) -> None:
        with _scene(self._adapter, quick=self._quick, seed=self._seed) as it:
            self._scene, self.figures = it, it.figures
            try:
                why_not = self._unsupported(it)
                if why_not is None:
                    self._row.test(it)
            except NotApplicable as error:
                self.result, self.reason = Result.UNSUPPORTED, f"{NOT_APPLICABLE}{error}"
                return
            except MissingHook as error:
                self.result, self.reason = Result.NOT_RUN, str(error)
                return
            except ModuleNotFoundError as error:
                if error.name != "hypothesis":
                    raise
                self.result, self.reason = Result.NOT_RUN, "pip install 'gotasks[conformance]'"
                return
        self.result, self.reason = (Result.PASS, "") if why_not is None else (Result.UNSUPPORTED, why_not)

    def _unsupported(self, it: Scene) -> str | None:
        """Why the row isn't for this broker, or None. What isn't claimed must be refused."""
        missing = [each for each in Capability if each in self._row.needs and not it.claims(each)]
        if missing:
            return "; ".join(f"{each.name} isn't claimed, and {refuse(it, each)}" for each in missing)
        if self._row.processes and not it.claims(Capability.SHARED):
            return f"SHARED isn't claimed, and {refuse(it, Capability.SHARED)}"
        needed = self._row.durability
        if needed and _DURABILITY.index(it.limits.durability) < _DURABILITY.index(needed):
            return f"limits.durability is {it.limits.durability!r}"
        return None


def _scene(adapter: Adapter, *, quick: bool, seed: int) -> Scene:
    try:
        return Scene(adapter, quick=quick, seed=seed)
    except (NotApplicable, MissingHook) as error:
        # There's no row that needs no place and no client: an adapter can't do without.
        raise Nonconformance(f"the adapter's url or open raised {type(error).__name__}: {error}") from error


def _sentence(error: BaseException) -> str:
    try:
        text = _what(error)
    except Exception:
        text = f"it raised a {type(error).__name__} that can't be shown"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 300]} … {text[-300:]}"


def _what(error: BaseException) -> str:
    if isinstance(error, Nonconformance):
        return str(error)
    place = next(
        (
            f"{Path(each.filename).name}:{each.lineno}"
            for each in traceback.extract_tb(error.__traceback__)[::-1]
        ),
        "?",
    )
    return f"it raised {type(error).__name__}: {error} ({place})"


def _where(thread: threading.Thread) -> str:
    """The innermost call of a thread, and the one inside the suite that led to it."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - there is no other way
    if frame is None:
        return "its end"
    stack = traceback.extract_stack(frame)
    ours = next((each for each in reversed(stack) if "/rows/" in each.filename), stack[-1])
    return f"{Path(ours.filename).name}:{ours.lineno} ({stack[-1].name})"
