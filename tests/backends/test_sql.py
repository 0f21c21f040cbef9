"""What only the SQL broker can get wrong: names, places, what it keeps, and what it shows."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gotasks.broker import Broker, BrokerURL, Envelope, State
from gotasks.discovery import open_broker
from gotasks.errors import BrokerClosed, BrokerError, BrokerUnavailable
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected, schema_of, with_params
from tests.backends.contract import (
    LONG,
    QUEUE,
    envelope,
    eventually,
    ids_of,
    put,
    stats,
    take,
    take_one,
    write,
)
from tests.conftest import DATABASE_SERVERS


def rows(url: str) -> int:
    """How many tasks are stored, whatever their state."""
    tasks = schema_of(url).tasks
    with connected(url) as connection:
        return connection.execute(sa.select(sa.func.count()).where(tasks.c.id != "")).scalar_one()


# -- names --------------------------------------------------------------------------------------


def test_names_are_compared_byte_by_byte(sql: Broker) -> None:
    """By MySQL's usual collations `q` is `Q`, and a space at the end is nothing."""
    queues = ["q", "Q", "q_", "q.", "q-", "qq"]
    for number, queue in enumerate(queues):
        put(sql, number + 1, queue=queue)
    assert [sql.stats(queue).ready for queue in queues] == [1, 2, 3, 4, 5, 6]
    assert {lease.envelope.queue for lease in take(sql, 99, queue="Q")} == {"Q"}
    assert sql.purge("q") == 1
    assert [sql.stats(queue).ready for queue in queues] == [0, 0, 3, 4, 5, 6]


def test_ids_are_compared_byte_by_byte(sql: Broker) -> None:
    assert sql.enqueue([envelope("a", b"low"), envelope("A", b"up"), envelope("a_"), envelope("a-")]) == {}
    assert sql.enqueue([envelope("A")]) == {"A": "A"}
    assert {task_id: record.body for task_id, record in sql.get(["A"]).items()} == {"A": b"up"}
    assert list(sql.cancel(["a"], keep_for=LONG)) == ["a"]
    assert ids_of(take(sql, 99)) == ["A", "a_", "a-"]


def test_unique_keys_are_compared_as_they_are(sql: Broker) -> None:
    keys = ["k", "K", "k ", "ß", "ss", "é", "e\u0301", "\ud800", "\x00", "k" * 100_000, "k" * 100_001]
    assert sql.enqueue([envelope(f"t{n}", unique=key) for n, key in enumerate(keys)]) == {}
    assert sql.enqueue([envelope(f"u{n}", unique=key) for n, key in enumerate(keys)]) == {
        f"u{n}": f"t{n}" for n in range(len(keys))
    }
    assert [lease.envelope.unique for lease in take(sql, 99)] == keys


def test_a_releases_order_is_the_calls_whatever_the_ids(sql: Broker) -> None:
    sql.enqueue([envelope(each) for each in ("c", "a", "b")])
    leases = take(sql, 3)
    sql.release([write(lease) for lease in leases])
    assert ids_of(take(sql, 3)) == ["b", "a", "c"]


# -- places -------------------------------------------------------------------------------------


def test_two_prefixes_in_one_database_dont_see_each_other(sql_url: str, sql: Broker) -> None:
    prefix = schema_of(sql_url).tasks.name.removesuffix("tasks")
    other_url = with_params(sql_url, prefix=f"{prefix}b_")
    other = open_broker(other_url)
    assert sql.enqueue([envelope("a", b"mine"), envelope("m")]) == {}
    assert other.enqueue([envelope("a", b"other")]) == {}
    assert (sql.stats(QUEUE), other.stats(QUEUE)) == (stats(ready=2), stats(ready=1))

    lease = take_one(other)
    assert lease.envelope.body == b"other"
    assert sql.ack([write(lease)], keep_for=0) == {lease.receipt}
    assert sql.purge(QUEUE) == 2
    assert other.get(["a"])["a"].state is State.LEASED
    other.close()


# -- what is kept ---------------------------------------------------------------------------------


def test_records_go_when_their_time_is_over_though_nobody_asks_for_them(sql_url: str, sql: Broker) -> None:
    """More of them than one go removes; live tasks stay."""
    for _ in range(2):
        put(sql, sql.limits.max_batch, queue="many")
    (kept,) = put(sql, delay=LONG)
    for _ in range(2):
        leases = take(sql, sql.limits.max_batch, queue="many")
        assert sql.ack([write(lease) for lease in leases], keep_for=2.0) == frozenset()
    assert rows(sql_url) > sql.limits.max_batch

    def forgotten() -> bool:
        assert take(sql) == []  # as an idle worker asks
        return rows(sql_url) == 1

    eventually(forgotten, within=30, what="only what lives")
    assert sql.get([kept]).keys() == {kept}


def test_a_cancelled_tasks_record_goes_too(sql_url: str, sql: Broker) -> None:
    ids = put(sql, 10)
    assert sorted(sql.cancel(ids, keep_for=0.2)) == sorted(ids)
    assert sql.cancel(put(sql, 1), keep_for=0)
    assert rows(sql_url) == 10
    eventually(lambda: take(sql) == [] and rows(sql_url) == 0, within=20, what="nothing")


@pytest.mark.parametrize("seconds", [1e11, 1e13, float("inf")])
def test_a_time_that_no_column_holds_is_a_very_long_one(sql: Broker, seconds: float) -> None:
    done, cancelled, held = put(sql, 3)
    leases = take(sql, 1, lease_for=seconds)
    assert sql.ack([write(lease) for lease in leases], keep_for=seconds) == frozenset()
    assert list(sql.cancel([cancelled], keep_for=seconds)) == [cancelled]
    leases = take(sql, 9, lease_for=seconds)
    assert sql.extend(leases, lease_for=seconds) == frozenset()
    assert take(sql, wait=0.01) == []
    found = {task_id: record.state for task_id, record in sql.get([done, cancelled, held]).items()}
    assert found == {done: State.DONE, cancelled: State.CANCELLED, held: State.LEASED}


# -- what is told -----------------------------------------------------------------------------------


class ClosedMeanwhile(SQLBroker):
    """Another thread closes it when a call has done its work, and is about to tidy up."""

    def _tidy(self) -> None:
        self.close()
        super()._tidy()


def test_a_call_that_has_done_its_work_isnt_told_that_the_broker_is_closed(sql_url: str, sql: Broker) -> None:
    (task_id,) = put(sql)
    lease = take_one(sql)
    enqueues, acks = (ClosedMeanwhile.from_url(BrokerURL(sql_url)) for _ in range(2))
    assert enqueues.enqueue([envelope("a")]) == {}
    assert acks.ack([write(lease)], keep_for=LONG) == frozenset()
    for each in (enqueues, acks):
        with pytest.raises(BrokerClosed):
            each.stats(QUEUE)
    states = {each: record.state for each, record in sql.get(["a", task_id]).items()}
    assert states == {"a": State.READY, task_id: State.DONE}


# -- what is shown --------------------------------------------------------------------------------

BODY = b"a-very-private-body"


def shown(error: BaseException) -> str:
    """All that a log may show of an error, with what it came from."""
    return "".join(traceback.format_exception(error))


def hides_body(text: str) -> None:
    assert BODY.decode() not in text
    assert BODY.hex() not in text.lower()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cr3t@127.0.0.1:1/shop?connect_timeout=0.5",
        "mariadb://me:s3cr3t@127.0.0.1:1/shop?connect_timeout=0.5",
        "mysql://me:s3cr3t@127.0.0.1:1/shop?connect_timeout=0.5",
    ],
)
def test_an_error_of_a_server_that_isnt_there_shows_no_password(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = open_broker(url)
    with pytest.raises(BrokerUnavailable, match=r"me:\*\*\*@127\.0\.0\.1:1/shop") as caught:
        broker.stats(QUEUE)
    broker.close()
    assert "s3cr3t" not in shown(caught.value) + caplog.text
    assert "\n" not in str(caught.value)


@pytest.fixture
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger = logging.getLogger("sqlalchemy")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("_everything_is_logged")
def test_what_a_database_says_of_a_statement_shows_no_body(
    sql_url: str, sql: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    put(sql)
    lease = take_one(sql)
    with connected(sql_url) as connection:
        connection.exec_driver_sql(f"DROP TABLE {schema_of(sql_url).tasks.name}")
    for call in (
        lambda: sql.enqueue([envelope(body=BODY)]),
        lambda: sql.checkpoint([write(lease, BODY)]),
        lambda: sql.release([write(lease, BODY)]),
        lambda: sql.ack([write(lease, BODY)], keep_for=LONG),
    ):
        with pytest.raises(BrokerError) as caught:
            call()
        hides_body(shown(caught.value))
        assert "\n" not in str(caught.value)
    hides_body(caplog.text)


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite adds no condition to a table
@pytest.mark.usefixtures("_everything_is_logged")
def test_what_a_database_says_of_a_row_shows_no_body(
    sql_url: str, sql: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL adds the row to what it says of a condition that isn't kept."""
    (task_id,) = put(sql)
    with connected(sql_url) as connection:
        tasks = schema_of(sql_url).tasks.name
        connection.exec_driver_sql(
            f"ALTER TABLE {tasks} ADD CONSTRAINT short CHECK (octet_length(body) < 10)"
        )
    lease = take_one(sql)
    for call in (
        lambda: sql.enqueue([Envelope(id="x", queue=QUEUE, body=BODY)]),
        lambda: sql.checkpoint([write(lease, BODY)]),
    ):
        with pytest.raises(BrokerError) as caught:
            call()
        hides_body(shown(caught.value))
    hides_body(caplog.text)
    assert lease.envelope.id == task_id
