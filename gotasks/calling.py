"""Calling a handler: the args map in, the next one out, in a worker and without one."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from gotasks import codec
from gotasks.args import ArgsMap, to_args_map
from gotasks.errors import GotasksError, InvalidArgs
from gotasks.job import Job, Step
from gotasks.loop import LoopThread, StepTimeout
from gotasks.run import Run


class InvalidResult(InvalidArgs):
    """A handler returned what can't be stored as an args map."""


class ArgsMisfit(InvalidArgs):
    """The args map isn't what the handler's annotation asks for. The handler wasn't called."""


#: Trying again can't change these.
NEVER_RETRIED = (InvalidResult, ArgsMisfit, codec.Unreadable)


def call_step(step: Step, args: ArgsMap, loop: LoopThread, run: Run | None = None) -> msgspec.Raw:
    """Call the handler with its args map, or what its annotation makes of it; return the next args map, encoded."""
    try:
        given = step.prepare(args)
    except InvalidArgs as error:
        raise ArgsMisfit(f"step {step.name!r}: {error}") from error
    if step.is_async:
        result = _on_loop(step, partial(step.func, given), loop, run)
    else:
        result = step.func(given)
        if result is not None and type(result) is not dict and inspect.isawaitable(result):
            result = _on_loop(step, lambda: result, loop, run)
    if result is None:
        result = args  # the map goes on as it is
    try:
        return codec.encode_args(result if isinstance(result, dict) else to_args_map(result))
    except InvalidArgs as error:
        raise InvalidResult(f"step {step.name!r} returned what can't be stored: {error}") from error


def _on_loop(step: Step, work: Callable[[], Any], loop: LoopThread, run: Run | None) -> Any:
    def started(cancel: Callable[[], None]) -> None:
        if run is not None:
            run.cancel = cancel
            if run.over:
                cancel()

    return loop.run(work, timeout=step.timeout, started=started)


def run_here(job: Job, args: object) -> ArgsMap:
    """Run a job's whole chain in this thread, without a broker; return the final args map."""
    raw = codec.encode_args(to_args_map(args))
    loop = LoopThread()
    try:
        for step in job.steps:
            raw = _run_step_here(step, raw, loop)
        return codec.decode_args(raw)
    finally:
        loop.close()


def _run_step_here(step: Step, raw: msgspec.Raw, loop: LoopThread) -> msgspec.Raw:
    tries = 0
    while True:
        try:
            return call_step(step, codec.decode_args(raw), loop)
        except Exception as error:
            tries += 1
            retry = step.retry
            if retry is None or not isinstance(error, retry.on) or isinstance(error, NEVER_RETRIED):
                raise
            if tries > retry.max_times:
                raise
            time.sleep(retry.sleep(tries))


def sentence(error: BaseException) -> str:
    """What went wrong, in one line."""
    try:
        text = str(error)
    except Exception:
        text = "(its message can't be shown)"
    if isinstance(error, (StepTimeout, GotasksError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def handler_trace(error: BaseException) -> str:
    """The traceback, from the handler's own first frame on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _handler_frames(error)))
    except Exception:
        return ""


def _handler_frames(error: BaseException) -> Any:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("gotasks."):
        frames = frames.tb_next
    return frames if frames is not None else error.__traceback__
