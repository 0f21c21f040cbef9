"""What isn't a task, or can't be run, ends in the fatal queue with a reason, and the worker goes on (G8)."""

from __future__ import annotations

import base64
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from gotasks import App, ArgsMap, codec, reentrant
from gotasks.broker import Envelope
from gotasks.conformance.kit.process import until
from gotasks.errors import InvalidArgs, PayloadTooLarge, TaskFailed, TaskNotFound
from gotasks.fatal import FatalTask
from gotasks.job import step
from gotasks.logs import LogListener
from gotasks.task import Outcome, Status, new_task_id
from tests.chaos import netjobs
from tests.chaos.netcrew import Crew, settled
from tests.resp import Resp

QUEUE = netjobs.QUEUE

#: What a terminal, a file or an encoder may choke on: NUL, an escape, lone surrogates, an emoji, line ends.
NASTY = "\x00\x1b[31m\ud800\udfff\N{GRINNING FACE}\N{RIGHT-TO-LEFT OVERRIDE}\n\r\u2028"

#: A line of log is no longer than this, whatever a handler raises. Characters.
LONGEST_LINE = 4000


def good(args: ArgsMap) -> ArgsMap:
    return {**args, "good": True}


def raising(args: ArgsMap) -> ArgsMap:
    raise RuntimeError(NASTY * (args["size"] // len(NASTY)) + NASTY)


def returning(args: ArgsMap) -> ArgsMap:
    return {"result": "x" * args["size"] if args["size"] else NASTY}


def build() -> App:
    app = App()
    app.queue(QUEUE)
    app.register("good", good)
    app.register("raising", raising)
    app.register("raising-again", reentrant(raising, max_times=2, sleepy_ms=1))
    app.register("returning", returning)
    app.register("returning-first", returning, step(good, name="after"))
    return app


@pytest.fixture
def app(redis_url: str) -> Iterator[App]:
    app = build()
    app.use_broker(redis_url)
    yield app
    app.close()


@pytest.fixture
def server(redis_url: str) -> Iterator[Resp]:
    with Resp(redis_url) as server:
        yield server


def key(redis_url: str, kind: str, name: str) -> str:
    """The name of a key of this namespace."""
    (namespace,) = parse_qs(urlsplit(redis_url).query)["namespace"]
    return f"{{{namespace}}}:{kind}:{name}"


def put(app: App, body: bytes) -> str:
    """Store this body as it is."""
    envelope = Envelope(id=new_task_id(), queue=QUEUE, body=body)
    assert app.dispatch.broker.enqueue([envelope]) == {}
    return envelope.id


def buried(app: App, count: int) -> list[FatalTask]:
    """Wait for so many tasks in the fatal queue, and until nothing is left elsewhere."""
    until(lambda: len(app.fatal.list(5000)) >= count, f"{count} tasks in the fatal queue")
    settled(app, timeout=10)
    found = app.fatal.list(5000)
    assert len(found) == count, found
    return found


def works(app: App) -> None:
    """The worker goes on: a good task is done."""
    assert app.queue(QUEUE).enqueue("good", {"n": 1}).wait(timeout=10) == {"n": 1, "good": True}


def buried_as_said(app: App, case: Case) -> FatalTask:
    """Put the case's body into the queue; it ends in fatal as the case says, and the worker goes on."""
    task_id = put(app, case.body)
    with app.worker(QUEUE):
        (found,) = buried(app, 1)
        works(app)
    assert found.id == task_id
    assert found.failure.outcome is case.outcome
    assert case.reason in found.failure.error
    return found


def record(**changes: Any) -> bytes:
    """A record of the job "good" that is right but for these changes."""
    fields = {
        "task_id": new_task_id(),
        "created_at": codec.now(),
        "updated_at": codec.now(),
        "queue_name": QUEUE,
        "job_name": "good",
        "args_map": {"n": 1},
        "current_handler_index": 0,
        "original_args_map": {"n": 1},
        "v": codec.VERSION,
        "steps": ["good"],
    }
    return json.dumps(fields | changes).encode()


# -- bodies ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A body, and what must become of it."""

    name: str
    body: bytes
    outcome: Outcome
    reason: str  #: in the error


DEEP = 100_000

#: Not records at all: they're kept as the bytes that they are.
UNREADABLE = [
    Case("bytes", b"\x00\xff\xfe garbage \r\n", Outcome.UNREADABLE, "not a task record"),
    Case("nothing", b"", Outcome.UNREADABLE, "not a task record"),
    Case("null", b"null", Outcome.UNREADABLE, "not a task record"),
    Case("list", b"[1, 2]", Outcome.UNREADABLE, "not a task record"),
    Case("text", b'"a task"', Outcome.UNREADABLE, "not a task record"),
    Case("empty-object", b"{}", Outcome.UNREADABLE, "missing required field"),
    Case("cut-off", record()[:-1], Outcome.UNREADABLE, "not a task record"),
    Case("utf-16", record().decode().encode("utf-16"), Outcome.UNREADABLE, "not a task record"),
    Case("nested", b"[" * DEEP, Outcome.UNREADABLE, "not a task record"),
    Case("args-list", record(args_map=[1]), Outcome.UNREADABLE, "args map isn't an object"),
    Case("args-text", record(args_map="n"), Outcome.UNREADABLE, "args map isn't an object"),
    Case("index-text", record(current_handler_index="0"), Outcome.UNREADABLE, "current_handler_index"),
    Case(
        "args-nested",
        record().replace(b'"n": 1', b'"n": ' + b"[" * DEEP + b"]" * DEEP, 1),
        Outcome.UNREADABLE,
        "not a task record",
    ),
    Case("newer", record(v=codec.VERSION + 1), Outcome.UNREADABLE, "upgrade gotasks here"),
]

#: Records of tasks that can't be run: they stay records, which a person can mend and resume.
UNFIT = [
    Case("index-below", record(current_handler_index=-1), Outcome.UNREADABLE, "index -1 in a chain of 1"),
    Case("index-above", record(current_handler_index=2), Outcome.UNREADABLE, "index 2 in a chain of 1"),
    Case("index-huge", record(current_handler_index=10**30), Outcome.UNREADABLE, "in a chain of 1"),
    Case("unknown-job", record(job_name="nobody's"), Outcome.UNKNOWN_JOB, 'no job "nobody\'s"'),
    Case("renamed", record(steps=["better"]), Outcome.CHAIN_CHANGED, "were better; now they are good"),
    Case("longer", record(steps=["good", "more"]), Outcome.CHAIN_CHANGED, "were good → more; now"),
    Case("args-bytes", record().replace(b'"n": 1', b'"n": "\xff"', 1), Outcome.FAILED, "can't be read"),
]


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case.name)
def test_what_is_no_record(app: App, case: Case) -> None:
    found = buried_as_said(app, case)
    assert found.task is not None
    assert found.task.raw is not None
    assert base64.b64decode(found.task.raw) == case.body
    assert found.task.queue_name == QUEUE
    with pytest.raises(TaskFailed, match=r"not a task record|upgrade gotasks"):
        app.task(found.id).wait(timeout=1)
    app.fatal.drop(found.id)
    assert app.fatal.list() == []


@pytest.mark.parametrize("case", UNFIT, ids=lambda case: case.name)
def test_a_record_that_cannot_run(app: App, case: Case) -> None:
    found = buried_as_said(app, case)
    assert not found.failure.in_doubt
    assert found.task is not None
    given = codec.decode(case.body)
    assert bytes(found.task.args_map) == bytes(given.args_map)
    assert found.task.job_name == given.job_name
    assert found.task.current_handler_index == given.current_handler_index
    app.fatal.drop(found.id)
    assert app.fatal.list() == []


def test_a_renamed_handler_is_resumed_where_a_person_says(app: App) -> None:
    task_id = put(app, record(steps=["better"]))
    with app.worker(QUEUE):
        buried(app, 1)
        app.fatal.retry(task_id, from_step="good")
        assert app.task(task_id).wait(timeout=10) == {"n": 1, "good": True}


# -- too large, or not to be stored ---------------------------------------------------------------


def test_a_payload_that_is_too_large_is_not_stored(app: App, redis_url: str, server: Resp) -> None:
    with pytest.raises(PayloadTooLarge, match="bytes") as caught:
        app.queue(QUEUE).enqueue("good", {"n": "x" * 2 * 1024 * 1024})
    (task_id,) = caught.value.ids
    with pytest.raises(PayloadTooLarge):
        app.queue(QUEUE).enqueue_many("good", [{"n": 1}, {"n": "x" * 2 * 1024 * 1024}])
    with pytest.raises(TaskNotFound):
        app.task(task_id).status()
    assert server.call("KEYS", key(redis_url, "*", "*")) == []


@pytest.mark.parametrize("job", ["returning", "returning-first"])
@pytest.mark.parametrize("size", [2 * 1024 * 1024, 0], ids=["large", "surrogates"])
def test_a_result_that_cannot_be_stored(app: App, job: str, size: int) -> None:
    with app.worker(QUEUE):
        task = app.queue(QUEUE).enqueue(job, {"size": size})
        with pytest.raises(TaskFailed, match=r"bytes|Unicode|utf-8|surrogates") as caught:
            task.wait(timeout=10)
        works(app)
    assert caught.value.step == "returning"
    (found,) = buried(app, 1)
    assert found.failure.in_doubt  # it has run, and isn't reentrant
    assert task.args == {"size": size}


def test_args_that_json_cannot_hold_are_not_stored(app: App, redis_url: str, server: Resp) -> None:
    for value in (NASTY, float("nan"), object(), {1: 2}):
        with pytest.raises(InvalidArgs):
            app.queue(QUEUE).enqueue("good", {"n": value})
    assert server.call("KEYS", key(redis_url, "*", "*")) == []


# -- logs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["raising", "raising-again"])
@pytest.mark.parametrize("size", [0, 1024 * 1024], ids=["short", "1 MiB"])
def test_a_message_that_nobody_can_print(
    app: App, tmp_path: Path, job: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is kept as far as it fits, and logged as lines that a file takes: one for each fact, and not a megabyte."""
    path = tmp_path / "log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("LINE %(levelname)s %(message)s"))
    listener = LogListener()
    logger = logging.getLogger("gotasks")
    logger.addHandler(handler)
    logger.propagate = False  # else pytest shows a megabyte if this fails
    app.events.listen(listener)
    try:
        with app.worker(QUEUE):
            task = app.queue(QUEUE).enqueue(job, {"size": size})
            with pytest.raises(TaskFailed) as caught:
                task.wait(timeout=10)
            works(app)
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()
    (found,) = buried(app, 1)
    assert found.failure.outcome is Outcome.FAILED
    assert len(found.body) <= app.max_body
    for kept in (found.failure.error, found.failure.traceback, caught.value.error):
        assert "\N{GRINNING FACE}" in kept
        assert "\\ud800" in kept
        kept.encode()
    assert "--- Logging error ---" not in capsys.readouterr().err
    said = path.read_text(encoding="utf-8")
    facts = [each for each in said.split("LINE ") if task.id in each]
    assert len(facts) == (1 if job == "raising" else 3)
    assert all(each.count("\n") == 1 for each in facts), "a fact is one line"
    assert max(map(len, facts)) <= LONGEST_LINE


# -- foreign elements -----------------------------------------------------------------------------


def test_foreign_elements_in_the_ready_list(app: App, redis_url: str, server: Resp) -> None:
    """What somebody pushes into the list by hand: each becomes a task that a person can see and drop."""
    elements = [b"\x00\xff\r\n", b"", b"two words", b"x" * 100, "\N{GRINNING FACE}".encode() * 20, b"[1, 2]"]
    large = b"y" * (2 * 1024 * 1024)  # wrapping it won't fit: kept as it came
    app.queue(QUEUE).enqueue_many("good", [{"n": 1}] * 20)
    for number, element in enumerate([*elements, large]):
        server.call("LPUSH" if number % 2 else "RPUSH", key(redis_url, "ready", QUEUE), element)
    with app.worker(QUEUE):
        found = buried(app, len(elements) + 1)
        works(app)
    assert {each.failure.outcome for each in found} == {Outcome.UNREADABLE}
    wrapped = [each.task.raw for each in found if each.task is not None and each.task.raw is not None]
    assert sorted(map(base64.b64decode, wrapped)) == sorted(elements)
    (unwrapped,) = (each for each in found if each.task is None)
    assert unwrapped.body == large
    for each in found:
        app.fatal.drop(each.id)
    assert app.fatal.list() == []


def test_an_id_without_a_record(app: App, redis_url: str, server: Resp) -> None:
    """Its record was deleted, or it never had one: a person is told, under the same id."""
    queue = app.queue(QUEUE)
    gone = [queue.enqueue("good", {"n": 1}).id for _ in range(3)]
    late = queue.enqueue("good", {"n": 1}, delay=0.2).id
    for task_id in [*gone, late]:
        server.call("DEL", key(redis_url, "task", task_id))
    server.call("RPUSH", key(redis_url, "ready", QUEUE), "never-was")
    with app.worker(QUEUE):
        found = buried(app, 5)
        works(app)
    assert {each.id for each in found} == {*gone, late, "never-was"}
    assert {each.failure.outcome for each in found} == {Outcome.UNREADABLE}
    assert all(each.failure.error for each in found)


def test_a_held_task_whose_record_is_deleted(app: App, redis_url: str, server: Resp) -> None:
    task_id = app.queue(QUEUE).enqueue("good", {"n": 1}).id
    (lease,) = app.dispatch.broker.acquire(QUEUE, limit=1, wait=0, lease_for=0.1)
    server.call("DEL", key(redis_url, "task", task_id))
    with app.worker(QUEUE):
        (found,) = buried(app, 1)
        works(app)
    assert found.id == lease.envelope.id == task_id
    assert found.failure.outcome is Outcome.UNREADABLE
    assert found.failure.in_doubt


def test_the_id_of_a_task_pushed_once_more(redis_url: str, server: Resp, tmp_path: Path) -> None:
    """Held, done or buried: an id that somebody pushes again doesn't start its task a second time."""
    app = netjobs.build()
    app.use_broker(redis_url)
    ready = key(redis_url, "ready", QUEUE)
    with Crew(tmp_path, redis_url, count=1, limit=4, lease=10) as crew:
        task = app.queue(QUEUE).enqueue("single", netjobs.first_args(300))
        until(lambda: crew.history.update().find("start", task=task.id), "the start of the task")
        server.call("RPUSH", ready, task.id)
        app.queue(QUEUE).enqueue("single", netjobs.first_args(1)).wait(timeout=10)
        task.wait(timeout=10)
        server.call("RPUSH", ready, task.id)
        app.queue(QUEUE).enqueue("single", netjobs.first_args(1)).wait(timeout=10)
        settled(app, timeout=10)
        assert len(crew.history.update().find("start", task=task.id)) == 1
        assert task.status() is Status.DONE
        assert app.fatal.list() == []
    app.close()


def test_a_record_of_another_type(app: App, redis_url: str, server: Resp) -> None:
    """One key that isn't a hash must not take those with it that are acquired in the same call."""
    queue = app.queue(QUEUE)
    before = queue.enqueue_many("good", [{"n": 1}] * 4)
    server.call("SET", key(redis_url, "task", "a-string"), "a string")
    server.call("LPUSH", key(redis_url, "ready", QUEUE), "a-string")
    after = queue.enqueue_many("good", [{"n": 1}] * 4)
    with app.worker(QUEUE):
        for task in [*before, *after]:
            assert task.wait(timeout=10) == {"n": 1, "good": True}
        (found,) = buried(app, 1)
    assert found.task is not None
    assert found.task.raw is not None
    assert base64.b64decode(found.task.raw) == b"a-string"


# -- the pace -------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_garbage_between_good_tasks(redis_url: str, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """1,000 good tasks among 1,000 pieces of garbage: all are done, at no less than half of their pace without it."""
    app = netjobs.build()
    app.use_broker(redis_url)
    plain = [_good_body(app) for _ in range(1000)]
    mixed = [_good_body(app) for _ in range(1000)] + [
        Envelope(id=new_task_id(), queue=QUEUE, body=random.choice([*UNREADABLE[:12], *UNFIT[:5]]).body)
        for _ in range(1000)
    ]
    random.shuffle(mixed)
    with Crew(tmp_path, redis_url, count=1, limit=10, lease=10) as crew:
        app.queue(QUEUE).enqueue("single", netjobs.first_args(1)).wait(timeout=15)
        without = _pace(app, crew, plain)
        lines = crew.lines[0]
        within = _pace(app, crew, mixed)
        figures(
            f"good tasks a second: {without:.0f} without garbage, {within:.0f} among it; {crew.lines[0]} lines"
        )
        assert within >= without / 2
        found = buried(app, 1000)
        assert all(each.failure.error for each in found)
        done = [end.at for end in crew.history.update().find("done")]
        assert len(done) == 2001
        assert crew.lines[0] - lines <= 1000 + 10  # one for each that was buried
        assert max(map(len, crew.output.splitlines())) <= LONGEST_LINE
    app.close()


def _good_body(app: App) -> Envelope:
    task_id = new_task_id()
    body = record(
        task_id=task_id,
        job_name="single",
        steps=list(app.jobs["single"].step_names),
        args_map=netjobs.first_args(2),
        original_args_map=netjobs.first_args(2),
    )
    return Envelope(id=task_id, queue=QUEUE, body=body)


def _pace(app: App, crew: Crew, envelopes: list[Envelope]) -> float:
    """Enqueue these; good tasks done in a second, from the first start to the last end."""
    before = len(crew.history.update().entries)
    app.dispatch.enqueue(envelopes)
    settled(app, timeout=60)
    until(lambda: len(crew.history.update().entries) > before, "anything in the history")
    moments = [each.at for each in crew.history.entries[before:] if each.what in ("start", "end")]
    assert len(moments) == 2000
    return 1000 / (max(moments) - min(moments))
