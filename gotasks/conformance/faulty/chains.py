"""Faulty: chains whose maps are lost or bent on their way, or that run though they changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import PropertyMock, patch

import msgspec

from gotasks import calling, codec, runner
from gotasks.broker import Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.fatal import FatalQueue
from gotasks.job import Job, Step
from gotasks.run import Run
from gotasks.run_settings import RunSettings
from gotasks.runner import Runner
from gotasks.settler import Settler
from gotasks.task import Outcome, Task

# -- CHN-01 -------------------------------------------------------------------------------------------


@contextmanager
def _result_is(change: Callable[[Step, dict[str, Any], msgspec.Raw], msgspec.Raw]) -> Iterator[None]:
    """`change` gets the step, the args map that it was given and its encoded result."""

    def call_step(step: Step, args: dict[str, Any], loop: Any, run: Run | None = None) -> msgspec.Raw:
        given = codec.decode_args(codec.encode_args(args))
        return change(step, given, calling.call_step(step, args, loop, run))

    with patch.object(runner, "call_step", call_step):
        yield


@engine_fault("CHN-01", name="ResultDropped")
def _result_dropped() -> AbstractContextManager[None]:
    """The next step gets what the one before was given, not what it returned."""

    def change(step: Step, args: dict[str, Any], result: msgspec.Raw) -> msgspec.Raw:
        trip()
        return codec.encode_args(args)

    return _result_is(change)


@engine_fault("CHN-01", name="NoneEmptiesTheMap")
def _none_empties_the_map() -> AbstractContextManager[None]:
    """After a handler that returns None, the next one gets an empty map."""

    def change(step: Step, args: dict[str, Any], result: msgspec.Raw) -> msgspec.Raw:
        if step.name != "c":
            return result
        trip()
        return msgspec.Raw(b'{"steps":[]}')

    return _result_is(change)


@engine_fault("CHN-01", name="NumbersAreFloats")
@contextmanager
def _numbers_are_floats() -> Iterator[None]:
    """Whole numbers in an args map are read as floats."""
    real = codec.decode_args

    def decode_args(raw: msgspec.Raw) -> dict[str, Any]:
        trip()
        args = real(raw)
        return {key: float(value) if type(value) is int else value for key, value in args.items()}

    with patch.object(codec, "decode_args", decode_args):
        yield


@faulty("CHN-01")
class HandsOffUnasked(Faulty):
    """Ends the lease at a checkpoint, though it doesn't claim HANDOFF."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release(writes)


# -- CHN-02 -------------------------------------------------------------------------------------------


@contextmanager
def _misfit_is(
    judge: Callable[[Task, Job, tuple[Outcome, str]], tuple[Outcome, str] | None],
) -> Iterator[None]:
    real = Runner._misfit  # noqa: SLF001 - a fault of its inside

    def misfit(task: Task, job: Job | None) -> tuple[Outcome, str] | None:
        problem = real(task, job)
        if job is None or problem is None:
            return problem
        trip()
        return judge(task, job, problem)

    with patch.object(Runner, "_misfit", staticmethod(misfit)):
        yield


@engine_fault("CHN-02", name="ChainUnchecked")
def _chain_unchecked() -> AbstractContextManager[None]:
    """A task goes on at its index, whatever steps its job has by now."""
    return _misfit_is(lambda task, job, problem: None)


@engine_fault("CHN-02", name="ChangedChainHasFailed")
def _changed_chain_has_failed() -> AbstractContextManager[None]:
    """A task whose chain changed is buried as if a handler had raised."""
    return _misfit_is(lambda task, job, problem: (Outcome.FAILED, problem[1]))


@engine_fault("CHN-02", name="ChangedChainUnnamed")
def _changed_chain_unnamed() -> AbstractContextManager[None]:
    """Of a chain that changed the reason doesn't say how it was."""
    return _misfit_is(lambda task, job, problem: (problem[0], "the chain has changed"))


@engine_fault("CHN-02", name="FromStepIgnored")
@contextmanager
def _from_step_ignored() -> Iterator[None]:
    """A retry goes on at the beginning, whatever step a person names."""
    real = FatalQueue._resumed  # noqa: SLF001 - a fault of its inside

    def resumed(self: FatalQueue, *args: Any, **options: Any) -> tuple[bytes, str]:
        trip()
        body, queue = real(self, *args, **options)
        return codec.encode(msgspec.structs.replace(codec.decode(body), current_handler_index=0)), queue

    with patch.object(FatalQueue, "_resumed", resumed):
        yield


# -- CHN-04 -------------------------------------------------------------------------------------------


@engine_fault("CHN-04", name="SizeUnchecked")
@contextmanager
def _size_unchecked() -> Iterator[None]:
    """A result may be as large as it likes."""
    trip()
    with patch.object(RunSettings, "max_state", new_callable=PropertyMock, return_value=2**40):
        yield


@engine_fault("CHN-04", name="LargeResultCrashes")
@contextmanager
def _large_result_crashes() -> Iterator[None]:
    """A result that is too large makes the worker fail, and its task stays in the air."""

    def bury_result(self: Settler, run: Run, step: Step, error: str) -> None:
        trip()
        raise ValueError(error)

    with patch.object(Settler, "bury_result", bury_result):
        yield


@engine_fault("CHN-04", name="LargeResultNotInDoubt")
@contextmanager
def _large_result_not_in_doubt() -> Iterator[None]:
    """Of a step whose result was too large nobody is told that it has run."""

    def bury_result(self: Settler, run: Run, step: Step, error: str) -> None:
        trip()
        self.bury(run, Outcome.REJECTED, error, step=step)

    with patch.object(Settler, "bury_result", bury_result):
        yield


@engine_fault("CHN-04", name="LargeResultEmptiesTheMap")
@contextmanager
def _large_result_empties_the_map() -> Iterator[None]:
    """A task whose result was too large is buried without any args."""
    real = Settler.bury_result

    def bury_result(self: Settler, run: Run, step: Step, error: str) -> None:
        trip()
        run.task = msgspec.structs.replace(run.known, args_map=msgspec.Raw(b"{}"))
        real(self, run, step, error)

    with patch.object(Settler, "bury_result", bury_result):
        yield


# -- CKP-04 -------------------------------------------------------------------------------------------


@engine_fault("CKP-04", name="MapSharedByTries")
@contextmanager
def _map_shared_by_tries() -> Iterator[None]:
    """All tries of a step are given one map, with what earlier ones did to it."""
    real = codec.decode_args
    known: dict[bytes, dict[str, Any]] = {}

    def decode_args(raw: msgspec.Raw) -> dict[str, Any]:
        trip()
        return known.setdefault(bytes(raw), real(raw))

    with patch.object(codec, "decode_args", decode_args):
        yield


@contextmanager
def _each_checkpoint(change: Callable[[Task, msgspec.Raw], Task]) -> Iterator[None]:
    """Before a step's result is written, the record is as `change` makes it of the record and that result."""
    real = Runner._advance  # noqa: SLF001 - a fault of its inside

    def advance(self: Runner, run: Run, job: Job, step: Step, args: msgspec.Raw) -> bool:
        trip()
        run.task = change(run.known, args)
        return real(self, run, job, step, args)

    with patch.object(Runner, "_advance", advance):
        yield


@engine_fault("CKP-04", name="AliasOriginal")
def _alias_original() -> AbstractContextManager[None]:
    """The original args map changes with the current one."""
    return _each_checkpoint(lambda task, args: msgspec.structs.replace(task, original_args_map=args))


@engine_fault("CKP-04", name="CreatedAnew")
def _created_anew() -> AbstractContextManager[None]:
    """A task is as old as its last step."""
    return _each_checkpoint(lambda task, args: msgspec.structs.replace(task, created_at=codec.now()))


@engine_fault("CKP-04", name="OriginForgotten")
@contextmanager
def _origin_forgotten() -> Iterator[None]:
    """A task in the fatal queue says that it came from there."""
    real = codec.with_failure

    def with_failure(task: Task, failure: Any, limit: int) -> bytes:
        trip()
        return real(msgspec.structs.replace(task, queue_name="fatal"), failure, limit)

    with patch.object(codec, "with_failure", with_failure):
        yield
