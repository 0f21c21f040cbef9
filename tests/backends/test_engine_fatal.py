"""The engine: what fails ends in the fatal queue, with all that a person needs to resume it (guarantee G8)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from gotasks import ArgsMap, Status, reentrant
from gotasks.broker import Capability, Envelope, Write
from gotasks.errors import BrokerError, ConfigurationError, InDoubt, InvalidArgs, TaskFailed, TaskNotFound
from gotasks.events import TaskBuried, TaskReleased
from gotasks.task import Outcome
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine


class Chain:
    """first → second (fails until `mended`) → keep."""

    def __init__(self, engine: Engine, *, careful: bool = False, careful_first: bool = False) -> None:
        self.calls: list[str] = []
        self.mended = False

        def first(args: ArgsMap) -> ArgsMap:
            self.calls.append("first")
            return {**args, "first": True}

        def second(args: ArgsMap) -> ArgsMap:
            self.calls.append("second")
            args["spoilt"] = True
            if not self.mended:
                raise ValueError(f"order {args['order']} has no address")
            return {**args, "second": True}

        self.steps = [f"Chain.__init__.<locals>.{name}" for name in ("first", "second")]
        self.task = engine.enqueue(
            reentrant(first) if careful_first else first,
            reentrant(second, max_times=0) if careful else second,
            engine.keep,
            args={"order": 42},
        )
        self._engine = engine

    def copy(self, task_id: str, queue: str, was: bytes, becomes: bytes) -> None:
        """Enqueue what was buried once more, with a part of its body changed."""
        body = self._engine.buried(self.task).body
        assert was in body
        changed = body.replace(was, becomes)
        self._engine.broker.enqueue([Envelope(id=task_id, queue=queue, body=changed)])


def test_a_failed_task_says_what_failed_where_and_with_which_args(engine: Engine) -> None:
    """In the Go library the log was a stack without the error, and the args were those of a failed try."""
    chain = Chain(engine)
    engine.run()

    assert chain.calls == ["first", "second"]
    found = engine.buried(chain.task)
    failure, record = found.failure, found.task
    assert record is not None
    assert failure.error == "ValueError: order 42 has no address"
    assert failure.outcome is Outcome.FAILED
    assert failure.step == chain.steps[1]
    assert 'raise ValueError(f"order' in failure.traceback
    assert failure.traceback.startswith("Traceback")
    assert "call_step" not in failure.traceback  # it begins in the handler, not in gotasks
    assert (record.queue_name, record.job_name) == (QUEUE, "job-0")
    assert record.current_handler_index == 1
    assert json.loads(bytes(record.args_map)) == {"order": 42, "first": True}
    assert json.loads(bytes(record.original_args_map)) == {"order": 42}

    assert engine.app.stats(QUEUE) == stats()
    assert engine.app.stats("fatal") == stats(ready=1)
    assert [each.id for each in engine.app.fatal.list()] == [chain.task.id]
    (fact,) = engine.watch.all(TaskBuried, chain.task)
    assert (fact.outcome, fact.step, fact.error) == ("failed", failure.step, failure.error)


def test_an_error_that_cant_be_shown_or_stored_is_no_obstacle(engine: Engine) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    def silent(args: ArgsMap) -> None:
        raise Silent

    def surrogate(args: ArgsMap) -> None:
        raise ValueError("bad \ud800 text")

    def endless(args: ArgsMap) -> None:
        raise ValueError("é" * 3_000_000)

    tasks = [engine.enqueue(handler) for handler in (silent, surrogate, endless)]
    engine.run()
    errors = [engine.failure(task).error for task in tasks]
    assert errors[0].startswith("Silent")
    assert errors[1] == "ValueError: bad \\ud800 text"
    assert errors[2].endswith("ééé")
    assert len(engine.buried(tasks[2]).body) < 64 * 1024


# -- retry --------------------------------------------------------------------------------------


def test_a_retry_goes_on_at_the_step_that_failed(engine: Engine) -> None:
    """The Go library stored the index of the last good handler: a resume ran that one again."""
    chain = Chain(engine)
    engine.run()
    chain.mended = True

    assert engine.app.fatal.retry(chain.task.id) == QUEUE
    assert (engine.app.stats(QUEUE), engine.app.stats("fatal")) == (stats(ready=1), stats())
    engine.run()

    assert chain.calls == ["first", "second", "second"]
    assert engine.result(chain.task) == {"order": 42, "first": True, "spoilt": True, "second": True}


def test_a_retry_may_mend_the_args(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    chain.mended = True
    engine.app.fatal.retry(chain.task.id, changes={"order": 43, "note": "by hand"})
    engine.run()
    result = engine.result(chain.task)
    assert (result["order"], result["note"], result["first"]) == (43, "by hand", True)


def test_changes_that_cant_be_stored_leave_the_task_as_it_is(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    before = engine.buried(chain.task)
    with pytest.raises(InvalidArgs):
        engine.app.fatal.retry(chain.task.id, changes={"order": object()})
    with pytest.raises(ConfigurationError, match="too large"):
        engine.app.fatal.retry(chain.task.id, changes={"order": "x" * 2_000_000})
    with pytest.raises(ConfigurationError, match="no step 'third'"):
        engine.app.fatal.retry(chain.task.id, from_step="third")
    assert engine.buried(chain.task) == before
    assert engine.app.stats("fatal") == stats(ready=1)


def test_a_retry_may_skip_the_step_that_failed(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    engine.app.fatal.retry(chain.task.id, from_step="Engine.keep")
    engine.run()
    assert chain.calls == ["first", "second"]
    assert engine.result(chain.task) == {"order": 42, "first": True}


def test_going_back_to_a_step_that_was_completed_needs_force(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    chain.mended = True
    with pytest.raises(InDoubt, match="completed"):
        engine.app.fatal.retry(chain.task.id, from_step=chain.steps[0])
    engine.app.fatal.retry(chain.task.id, from_step=chain.steps[0], force=True)
    engine.run()
    assert chain.calls == ["first", "second", "first", "second"]


def test_a_retry_that_fails_again_comes_back(engine: Engine) -> None:
    chain = Chain(engine)
    for _ in range(3):
        engine.run()
        engine.app.fatal.retry(chain.task.id)
    engine.run()
    assert chain.calls == ["first", *["second"] * 4]
    assert engine.failure(chain.task).outcome is Outcome.FAILED


def test_a_task_that_isnt_in_the_fatal_queue_cant_be_retried_or_dropped(engine: Engine) -> None:
    task = engine.enqueue(engine.keep)
    for call in (engine.app.fatal.retry, engine.app.fatal.drop, engine.app.fatal.show):
        for task_id in (task.id, "unknown"):
            with pytest.raises(TaskNotFound):
                call(task_id)
    engine.run()
    assert engine.result(task) == {}


def test_drop_removes_a_task_for_good(engine: Engine) -> None:
    chain, other = Chain(engine), Chain(engine)
    engine.run()
    engine.app.fatal.drop(chain.task.id)
    assert [each.id for each in engine.app.fatal.list()] == [other.task.id]
    with pytest.raises(TaskNotFound):
        engine.app.fatal.drop(chain.task.id)
    assert engine.app.stats("fatal") == stats(ready=1)


def test_the_fatal_queue_is_listed_oldest_first_page_by_page(engine: Engine) -> None:
    job = engine.app.register("fails", lambda_that_fails)
    expected = []
    for n in range(
        5
    ):  # one by one: where a move takes two writes, tasks that fail together come in any order
        expected.append(engine.app.queue(QUEUE).enqueue(job, {"n": n}).id)
        engine.run()
    assert [each.id for each in engine.app.fatal.list()] == expected
    assert [each.id for each in engine.app.fatal.list(2)] == expected[:2]
    assert [each.id for each in engine.app.fatal.list(2, after=expected[1])] == expected[2:4]
    assert [each.id for each in engine.app.fatal.list()] == expected  # looking turned nothing round
    engine.app.fatal.retry(expected[2])
    assert [each.id for each in engine.app.fatal.list()] == expected[:2] + expected[3:]


def lambda_that_fails(args: ArgsMap) -> None:
    raise ValueError(args["n"])


def test_the_second_of_two_operators_is_told_that_another_holds_it(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    (held,) = engine.broker.acquire("fatal", limit=1, wait=0, lease_for=30)
    with pytest.raises(TaskNotFound, match="holds it"):
        engine.app.fatal.retry(held.envelope.id)
    with pytest.raises(TaskNotFound, match="holds it"):
        engine.app.fatal.drop(chain.task.id)


def test_what_isnt_an_id_is_no_task_and_isnt_asked_for(engine: Engine) -> None:
    chain = Chain(engine)
    engine.run()
    fatal = engine.app.fatal
    for call in (fatal.show, fatal.retry, fatal.drop):
        with pytest.raises(TaskNotFound):
            call("no such/id")
    if Capability.RECORDS in engine.app.capabilities:
        with pytest.raises(TaskNotFound):
            engine.app.task("").status()
    assert fatal.list(after="no such/id") == fatal.list(limit=0) == []
    assert [each.id for each in fatal.list()] == [chain.task.id]


@pytest.mark.parametrize(
    "engine", ["no atomic move"], indirect=True
)  # the moves of all others have no middle
def test_a_retry_whose_task_is_taken_in_the_middle_of_its_move_has_nothing_to_give_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(engine)
    engine.run()
    monkeypatch.setattr("gotasks.fatal._HOLD", 0.2)
    broker = engine.broker
    release = broker.release

    def release_to_another(writes: Sequence[Write]) -> frozenset[str]:
        lost = release(writes)
        broker.acquire("fatal", limit=1, wait=0, lease_for=30)
        return lost

    monkeypatch.setattr(broker, "release", release_to_another)
    with pytest.raises(BrokerError, match="taken by somebody else"):
        engine.app.fatal.retry(chain.task.id)
    assert engine.app.stats("fatal") == stats(leased=1)


def test_the_fatal_queue_may_have_another_name() -> None:
    engine = Engine("memory://", fatal_queue="graveyard")
    chain = Chain(engine)
    engine.run()
    assert engine.app.stats("graveyard") == stats(ready=1)
    assert chain.task.status() is Status.FATAL
    with pytest.raises(ConfigurationError, match="graveyard"):
        engine.app.queue("graveyard")
    engine.close()


# -- what a waiting program is told -------------------------------------------------------------


@pytest.mark.needs("RECORDS")
def test_wait_raises_what_is_known_of_the_failure(worked: Engine) -> None:
    chain = Chain(worked)
    worked.run()
    with pytest.raises(TaskFailed) as caught:
        chain.task.wait(timeout=5)
    assert caught.value.task_id == chain.task.id
    assert caught.value.step == chain.steps[1] == chain.task.step
    assert caught.value.error == "ValueError: order 42 has no address"
    assert "Traceback" in caught.value.traceback
    assert (
        str(caught.value) == f"task {chain.task.id} failed at step '{chain.steps[1]}': {caught.value.error}"
    )
    assert chain.task.status() is Status.FATAL


def test_a_move_without_atomic_move_is_two_writes_and_a_copy_left_between_them_never_runs() -> None:
    """First the record is marked where it is; whoever acquires it then finishes the move."""
    engine = Engine("memory://?without=ATOMIC_MOVE")
    chain = Chain(engine)
    with engine.app.worker():
        engine.watch.wait(TaskBuried, chain.task)
        (moved,) = engine.watch.wait(TaskReleased, chain.task)
        assert moved.why == "moved"
    assert Capability.ATOMIC_MOVE not in engine.app.capabilities

    # A worker that died between the two writes: what it marked is found, moved and not run.
    chain.copy("left-over", QUEUE, b'"v":1', b'"v":1,"moving":"fatal"')
    chain.mended = True
    engine.run()
    assert chain.calls == ["first", "second"]
    eventually(lambda: engine.app.stats("fatal") == stats(ready=2), what="the end of the move")
    engine.close()


def test_a_task_whose_queue_has_no_valid_name_is_not_put_into_it() -> None:
    """No worker could serve it there."""
    engine = Engine("memory://")
    chain = Chain(engine)
    engine.run()
    chain.copy("stranger", "fatal", b'"queue_name":"orders"', b'"queue_name":"we\\"ird"')
    with pytest.raises(ConfigurationError, match=r"stranger can't go back .* not 'we.ird'.*enqueue it anew"):
        engine.app.fatal.retry("stranger", force=True)
    assert engine.app.stats("fatal") == stats(ready=2)
    engine.close()


def test_a_retry_whose_move_was_interrupted_needs_force() -> None:
    engine = Engine("memory://")
    chain = Chain(engine)
    engine.run()
    chain.copy("left-over", "fatal", b'"v":1', b'"v":1,"moving":"orders"')
    with pytest.raises(InDoubt, match="interrupted"):
        engine.app.fatal.retry("left-over")
    assert engine.app.fatal.retry("left-over", force=True) == QUEUE
    engine.close()
