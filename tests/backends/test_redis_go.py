"""Redis: what the Go library has put into its lists, in the bytes in which it does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from gotasks import App, ArgsMap, Status
from gotasks.discovery import open_broker
from gotasks.errors import InvalidURL, TaskFailed
from gotasks_redis import RedisBroker
from tests.backends.contract import eventually, stats, take, take_one, write
from tests.resp import Resp

#: As json-iterator writes a task there: fields in the order of the struct, keys of maps sorted, `<`, `>` and `&`
#: escaped, each number of a map a float64, times of the machine's zone with up to nine digits.
ID = "5c6f0e2a-8d2b-11ea-8d6b-0242ac130003"
ARGS = (
    rb'{"amount":12.5,"big":1e+21,"exact":9007199254740992,"html":"\u003ca href=\"x\"\u003e\u0026",'
    rb'"items":[{"sku":"a"},null],"n":42,"name":"'
    + "Jürgen 黄".encode()
    + rb'","ok":true,"sep":"\u2028","tiny":1e-7}'
)
STACK = (
    rb"goroutine 34 [running]:\nruntime/debug.Stack(0xc0000a4000, 0x1, 0x1)\n\t/usr/local/go/src/runtime/debug/stack.go"
    rb":24 +0x9d\ngithub.com/jiajunhuang/gotasks.handleTask.func1(0xc00012c000, 0x7ffc, 0x6)\n"
)
CREATED = "2020-05-03T14:02:11.123456789+08:00"


def document(
    task_id: str = ID,
    *,
    queue: str,
    job: str = "checkout",
    index: int = 0,
    args: bytes = ARGS,
    original: bytes = ARGS,
    log: bytes = b"",
) -> bytes:
    """A task as the Go library pushes it."""
    return (
        b'{"task_id":"%b","created_at":"%b","updated_at":"2020-05-03T06:02:12.5Z","queue_name":"%b","job_name":"%b",'
        b'"args_map":%b,"current_handler_index":%d,"original_args_map":%b,"result_log":"%b"}'
        % (task_id.encode(), CREATED.encode(), queue.encode(), job.encode(), args, index, original, log)
    )


@pytest.fixture
def server(redis_url: str) -> Iterator[Resp]:
    with Resp(redis_url) as server:
        yield server


@pytest.fixture
def queue(server: Resp) -> Iterator[str]:
    """A queue that nobody else has: Go's lists are in no namespace."""
    name = f"test-{secrets.token_hex(8)}"
    yield name
    server.call("DEL", f"gt:queue:{name}")


@pytest.fixture
def app(redis_url: str, queue: str) -> Iterator[App]:
    """Three steps, each of which notes what it was given; the second fails where it is told so."""
    app = App(f"{redis_url}&go=true")
    app.queue(queue)

    def first(args: ArgsMap) -> ArgsMap:
        return {**args, "seen": [*args.get("seen", []), "first"]}

    def second(args: ArgsMap) -> ArgsMap:
        if args.get("fail"):
            raise ValueError("as it was told")
        return {**args, "seen": [*args.get("seen", []), "second"]}

    def third(args: ArgsMap) -> ArgsMap:
        return {**args, "seen": [*args.get("seen", []), "third"]}

    app.register("checkout", first, second, third)
    yield app
    app.close()


def pushed(server: Resp, queue: str, *documents: bytes) -> None:
    """As `Enqueue` of the Go library does it."""
    for each in documents:
        server.call("LPUSH", f"gt:queue:{queue}", each)


def waiting(server: Resp, queue: str) -> object:
    return server.call("LLEN", f"gt:queue:{queue}")


def test_a_document_is_run_and_recorded(app: App, server: Resp, queue: str) -> None:
    with app.worker(queue):
        pushed(server, queue, document(queue=queue))  # nobody wakes the idle worker
        eventually(lambda: waiting(server, queue) == 0, what="the document taken")
        task = app.task(ID)
        given = json.loads(ARGS)
        assert task.wait(10) == {**given, "seen": ["first", "second", "third"]}
    record = task.task()
    assert task.status() is Status.DONE
    assert json.loads(bytes(record.original_args_map)) == given
    assert (record.created_at, record.queue_name, record.job_name) == (CREATED, queue, "checkout")
    assert record.current_handler_index == 3
    assert [name.rpartition(".")[2] for name in record.steps or ()] == ["first", "second", "third"]


def test_a_map_that_is_null_is_an_empty_one(app: App, server: Resp, queue: str) -> None:
    """As Go writes it after `Enqueue(queue, job, nil)`, and after a handler that returned nil."""
    pushed(server, queue, document(queue=queue, args=b"null", original=b"null"))
    assert app.drain(queue) == 1
    assert app.task(ID).wait(0) == {"seen": ["first", "second", "third"]}


def test_a_failed_one_goes_on_at_its_step(app: App, server: Resp, queue: str) -> None:
    """From Go's fatal queue, where its origin isn't told any more; and it's of its new queue, should it fail again."""
    args = b'{"fail":true,"seen":["first"]}'
    failed = document(queue="fatal", index=1, args=args, original=b"{}", log=STACK)
    server.call("LPUSH", f"gt:queue:{queue}-fatal", failed)
    server.call("LMOVE", f"gt:queue:{queue}-fatal", f"gt:queue:{queue}", "RIGHT", "LEFT")
    assert app.drain(queue, raises=False) == 1
    with pytest.raises(TaskFailed, match="as it was told"):
        app.task(ID).wait(0)
    (fatal,) = app.fatal.list()
    assert fatal.task is not None
    assert (fatal.id, fatal.task.queue_name, fatal.task.current_handler_index) == (ID, queue, 1)
    assert app.fatal.retry(ID, changes={"fail": False}) == queue
    app.drain(queue)
    assert app.task(ID).wait(0) == {"fail": False, "seen": ["first", "second", "third"]}


def test_they_come_in_their_order_and_are_counted(app: App, redis_url: str, server: Resp, queue: str) -> None:
    ids = [f"{number:08d}{ID[8:]}" for number in range(5)]
    pushed(server, queue, *(document(each, queue=queue) for each in ids))
    broker = open_broker(f"{redis_url}&go=true")
    assert broker.stats(queue) == stats(ready=5)
    found = [each.envelope for each in (*take(broker, 2, queue=queue), *take(broker, 9, queue=queue))]
    assert [each.id for each in found] == ids
    assert [each.body for each in found] == [document(each, queue=queue) for each in ids]
    assert broker.stats(queue) == stats(leased=5)
    broker.close()


def test_what_is_no_document_is_shown_to_a_person(app: App, redis_url: str, server: Resp, queue: str) -> None:
    """Nor is a document lost whose id is known: Go gives no id twice, but a person may push one again.

    Only a document has an id of its own: what looks like one is nobody's, and what names a task isn't that task.
    """
    again = document(queue=queue, args=b'{"again":true}')
    found = [document(queue=queue), again, b"\x00 not JSON", b'{"task_id":"x"}', b"null", ID.encode()]
    pushed(server, queue, *found)
    broker = open_broker(f"{redis_url}&go=true")
    leases = take(broker, 9, queue=queue)
    assert [each.envelope.body for each in leases] == found
    assert leases[0].envelope.id == ID
    assert all(each.envelope.id.startswith("foreign-") for each in leases[1:])
    assert len({each.envelope.id for each in leases}) == len(found)
    assert broker.release([write(each, each.envelope.body) for each in leases]) == frozenset()
    broker.close()
    assert app.drain(queue, raises=False) == 6
    unreadable = app.fatal.list()
    assert [each.failure.outcome.value for each in unreadable] == ["unreadable"] * 4
    assert app.task(ID).status() is Status.DONE


@pytest.mark.parametrize("origin", ['a\\"', "b\\\\", r"mail\u0026sms", '\\",\\"job_name\\":\\"'])
def test_a_document_stays_one(redis_url: str, server: Resp, queue: str, origin: str) -> None:
    """Whatever Go's queue was called."""
    pushed(server, queue, document(queue=origin))
    broker = open_broker(f"{redis_url}&go=true")
    lease = take_one(broker, queue=queue)
    assert (lease.envelope.id, lease.envelope.body) == (ID, document(queue=queue))
    broker.close()


def test_what_is_almost_a_document_stays_as_it_is(redis_url: str, server: Resp, queue: str) -> None:
    """With a field more than Go writes: it mustn't get lost with the name of the queue."""
    other = document(queue='x","more":"y')
    pushed(server, queue, other)
    broker = open_broker(f"{redis_url}&go=true")
    assert take_one(broker, queue=queue).envelope.body == other
    broker.close()


def test_what_is_taken_meanwhile_is_counted(
    redis_url: str, server: Resp, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are two counts, and the document goes from one to the other between them."""
    broker, other = open_broker(f"{redis_url}&go=true"), open_broker(f"{redis_url}&go=true")
    assert isinstance(broker, RedisBroker)
    pushed(server, queue, document(queue=queue))
    run = broker._connections.run

    def run_and_take(*args: Any, **options: Any) -> Any:
        reply = run(*args, **options)
        take(other, queue=queue)
        return reply

    monkeypatch.setattr(broker._connections, "run", run_and_take)
    found = broker.stats(queue)
    assert (found.ready or 0) + (found.leased or 0) >= 1
    broker.close()
    other.close()


def test_it_is_counted_without_replicas_too(redis_url: str, server: Resp, queue: str) -> None:
    """To count is no write, so it needs none to be there."""
    pushed(server, queue, document(queue=queue))
    broker = open_broker(f"{redis_url}&go=true&replicas=9")
    assert broker.stats(queue) == stats(ready=1)
    broker.close()


def test_a_queue_is_emptied_with_its_list(redis_url: str, server: Resp, queue: str) -> None:
    broker = open_broker(f"{redis_url}&go=true")
    pushed(server, queue, *(document(f"{number:08d}{ID[8:]}", queue=queue) for number in range(3)))
    take_one(broker, queue=queue)
    assert broker.purge(queue) == 2
    assert broker.stats(queue) == stats(leased=1)
    assert waiting(server, queue) == 0
    broker.close()


def test_nobody_else_touches_the_list(redis_url: str, server: Resp, queue: str) -> None:
    pushed(server, queue, document(queue=queue))
    broker = open_broker(redis_url)
    assert take(broker, queue=queue) == []
    assert broker.purge(queue) == 0
    assert broker.stats(queue) == stats()
    assert waiting(server, queue) == 1
    broker.close()


def test_a_cluster_has_no_such_lists() -> None:
    """They would be in another slot than the namespace."""
    with pytest.raises(InvalidURL, match=r"redis\+cluster:// has no parameter 'go': .* in other slots"):
        open_broker("redis+cluster://127.0.0.1:1?go=true")
