"""`gotasks bench`: what is counted, what follows from it, and that nothing is left behind."""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gotasks.bench import timer as timing
from gotasks.bench.advice import Place, advise
from gotasks.bench.counting import Count, CountingBroker, Counts
from gotasks.bench.figures import Drain, Enqueue, Figures, Latency, Time
from gotasks.bench.heard import Heard
from gotasks.bench.run import run
from gotasks.bench.stand import Stand
from gotasks.bench.timer import Stopped, Timer
from gotasks.broker import Broker, BrokerURL, Envelope, Write
from gotasks.errors import BrokerUnavailable, ConfigurationError, GotasksError
from gotasks.events import BrokerDown
from gotasks.memory import MemoryBroker

# -- counting -------------------------------------------------------------------------------------


def envelopes(count: int) -> list[Envelope]:
    return [Envelope(id=f"t{number}", queue="q", body=b"x") for number in range(count)]


def test_calls_and_what_they_carry_are_counted() -> None:
    broker = CountingBroker(MemoryBroker())
    broker.enqueue(envelopes(5))
    before = broker.counts()
    leases = broker.acquire("q", limit=3, wait=0, lease_for=9)
    leases += broker.acquire("q", limit=3, wait=0, lease_for=9)
    broker.ack([Write(lease=each, body=b"", seq=1) for each in leases], keep_for=0)
    assert broker.stats("q").ready == 0
    counts = broker.counts().since(before)
    assert {name: (each.calls, each.items) for name, each in counts.methods.items()} == {
        "acquire": (2, 5),
        "ack": (1, 5),
        "stats": (1, 0),
    }
    assert 0 < sum(each.seconds for each in counts.methods.values()) <= counts.busy <= counts.seconds
    assert all(each.cpu >= 0 for each in counts.methods.values())


def test_a_call_that_fails_is_counted() -> None:
    broker = CountingBroker(MemoryBroker())
    broker.close()
    with pytest.raises(GotasksError):
        broker.stats("q")
    assert broker.counts().methods["stats"].calls == 1
    busy = broker.counts().busy
    assert broker.counts().busy == busy  # none is under way any more


def test_calls_at_the_same_time_are_one_busy_time() -> None:
    broker = CountingBroker(MemoryBroker())
    began = time.monotonic()
    broker.begin()
    broker.begin()
    assert broker.counts().busy > 0  # though none has ended
    broker.end("ack", Count(calls=1, seconds=5.0))
    broker.end("ack", Count(calls=1, seconds=5.0))
    counts = broker.counts()
    assert counts.methods["ack"].seconds == 10.0
    assert 0 < counts.busy <= time.monotonic() - began


def test_the_whole_contract_goes_through() -> None:
    # What the core uses but a proxy forgets is answered by the base class: unsupported, or nothing to warn of.
    own = {"from_url", "refuse_unclaimed"}
    contract = {name for name, value in vars(Broker).items() if callable(value) and not name.startswith("_")}
    assert contract - own - vars(CountingBroker).keys() == set()


# -- figures --------------------------------------------------------------------------------------


def counts(*, seconds: float, cpu: float, busy: float, **methods: Count) -> Counts:
    return Counts(seconds=seconds, cpu=cpu, busy=busy, methods=methods)


def test_percentiles() -> None:
    found = Latency.of([number / 1000 for number in range(101)])
    assert (found.p50_ms, found.p99_ms) == pytest.approx((50, 99))
    assert found.samples == 101
    assert Latency.of([0.002, 0.002]).p99_ms == pytest.approx(2)


def test_calls_a_task_and_tasks_a_call() -> None:
    counted = counts(
        seconds=2.0,
        cpu=0.5,
        busy=1.5,
        acquire=Count(calls=10, items=100),
        ack=Count(calls=30, items=100),
        stats=Count(calls=10),
    )
    found = Drain.of(counted, 100)
    assert found.tasks_per_second == 50
    assert found.calls_per_task == 0.5
    assert found.tasks_per_call == 5  # `stats` carries none
    assert found.in_calls == 0.75


@pytest.mark.parametrize(
    "cpu, busy, in_calls, parts",
    [
        (
            0.5,
            1.5,
            0.25,
            (5_000, 12_500, 2_500),
        ),  # calls took 1.5 s, and this process was at work for 0.25 s of it
        (1.9, 1.5, 0.25, (19_000, 1_000, 0)),  # other threads were at work while calls were under way
        (0.1, 0.2, 0.1, (1_000, 1_000, 18_000)),
        (3.0, 1.0, 1.0, (30_000, 0, 0)),  # on several cores
        (0.5, 0.1, 0.25, (5_000, 0, 15_000)),
    ],
)
def test_where_the_time_goes(cpu: float, busy: float, in_calls: float, parts: tuple[int, int, int]) -> None:
    found = Time.of(counts(seconds=2.0, cpu=cpu, busy=busy, ack=Count(calls=1, cpu=in_calls)), 100)
    assert found.task_us == pytest.approx(20_000)
    assert found.process_in_calls_us == pytest.approx(in_calls * 10_000)
    assert (found.process_us, found.broker_us, found.waiting_us) == pytest.approx(parts)


# -- advice ---------------------------------------------------------------------------------------

#: Nothing stands out.
CALM: dict[str, Any] = {
    "ping_ms": 0.1,
    "one_by_one": 5_000.0,
    "bulk": 10_000.0,
    "group": 6.2,
    "latency_ms": 0.5,
    "broker": 0.3,
    "process": 0.6,
    "waiting": 0.1,
}


def advice(
    *,
    url: str = "redis",
    params: dict[str, str] | None = None,
    shared: bool = True,
    cores: int = 4,
    hiredis: bool = True,
    **figures: float,
) -> list[str]:
    said = {**CALM, **figures}

    def latency(ms: float) -> Latency:
        return Latency(p50_ms=ms, p99_ms=2 * ms, samples=100)

    measured = Figures(
        ping=latency(said["ping_ms"]),
        enqueue=Enqueue(one_by_one=said["one_by_one"], bulk=said["bulk"], batch=1000),
        drain=Drain(
            tasks_per_second=10_000,
            tasks=10_000,
            calls_per_task=0.3,
            tasks_per_call=said["group"],
            in_calls=0.5,
            methods={},
        ),
        chain_steps_per_second=9_000,
        latency=latency(said["latency_ms"]),
        time=Time(
            task_us=100.0,
            process_us=100 * said["process"],
            process_in_calls_us=1.0,
            broker_us=100 * said["broker"],
            waiting_us=100 * said["waiting"],
        ),
    )
    place = Place(scheme=url, params=params or {}, shared=shared, cores=cores, hiredis=hiredis, slots=10)
    return advise(measured, place)


def only(sentences: list[str]) -> str:
    assert len(sentences) == 1, sentences
    return sentences[0]


def test_nothing_stands_out() -> None:
    assert advice() == []


def test_a_server_that_is_far_away() -> None:
    said = only(advice(ping_ms=23.4, broker=0.95, bulk=500_000.0, one_by_one=40.0, latency_ms=50.0))
    assert "23.4 ms" in said
    assert "12500 times" in said
    assert "max_limit (10 here)" in said
    assert advice(ping_ms=4.9) == []


def test_calls_that_carry_little() -> None:
    said = only(advice(broker=0.55))
    assert "55%" in said
    assert "6.2 tasks" in said
    assert "max_limit (10 here)" in said
    assert advice(broker=0.55, group=80.0) == []
    assert advice(broker=0.39) == []


def test_a_process_that_is_busy() -> None:
    said = only(advice(process=0.97))
    assert "97%" in said
    assert "--processes 4" in said
    assert "no other core" in only(advice(process=0.97, cores=1))
    assert "processes can share" in only(advice(process=0.97, shared=False, url="memory"))
    assert advice(process=0.84) == []


def test_redis_without_hiredis() -> None:
    said = only(advice(hiredis=False))
    assert "pip install hiredis" in said
    assert "60%" in said
    assert advice(hiredis=False, url="postgresql") == []


def test_sqlite_that_waits_for_the_disk() -> None:
    said = only(advice(url="sqlite", one_by_one=250.0, bulk=500.0))
    assert "4.0 ms" in said
    assert "?synchronous=normal" in said
    assert advice(url="sqlite", one_by_one=250.0, bulk=500.0, params={"synchronous": "NORMAL"}) == []
    assert advice(url="sqlite") == []
    assert advice(url="mysql", one_by_one=250.0, bulk=500.0) == []


def test_bulk_pays() -> None:
    said = only(advice(bulk=48_000.0))
    assert "48,000 tasks a second, 10 times" in said
    assert advice(bulk=14_000.0) == []


def test_a_worker_that_asks_from_time_to_time() -> None:
    said = only(advice(latency_ms=118.0))
    assert "118 ms" in said
    assert "0.1 ms" in said
    assert advice(latency_ms=21.0) != []
    assert advice(latency_ms=19.0) == []
    assert advice(latency_ms=30.0, ping_ms=4.0) == []


def test_a_machine_that_others_use() -> None:
    assert "38%" in only(advice(waiting=0.38))


def test_what_limits_most_comes_first() -> None:
    said = advice(broker=0.5, process=0.9, bulk=48_000.0, waiting=0.4)
    order = ("max_limit", "--processes", "enqueue_many", "quiet")
    places = [next(index for index, each in enumerate(said) if word in each) for word in order]
    assert all(a < b for a, b in itertools.pairwise(places))


# -- time, and Ctrl-C -----------------------------------------------------------------------------


class Told:
    """Who is told."""

    def __init__(self) -> None:
        self.parts: list[float] = []

    def __call__(self, _what: str, part: float) -> None:
        self.parts.append(part)


def fine() -> None:
    """Nothing has gone wrong."""


def test_laps_go_on_until_the_time_is_over_and_it_is_enough() -> None:
    told, asked = Told(), itertools.count(1)
    for _ in Timer(0.001, told, fine).laps("x", enough=lambda: next(asked) == 9):
        pass
    assert next(asked) == 10
    assert told.parts == sorted(told.parts)
    assert told.parts[0] >= 0
    assert told.parts[-1] == 1.0


def test_laps_end_when_all_is_done() -> None:
    left = [1, 2, 3]
    for _ in Timer(1000, Told(), fine).laps("x", enough=lambda: False, all_done=lambda: not left):
        left.pop()
    assert left == []


def test_a_standstill_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PATIENCE", 0.0)
    with pytest.raises(GotasksError, match="drain: nothing has moved"):
        list(Timer(0.001, Told(), fine).laps("drain", enough=lambda: False))
    with pytest.raises(GotasksError, match="latency: nothing has moved"):
        Timer(0.001, Told(), fine).until("latency", lambda: False)


def test_what_went_wrong_elsewhere_ends_the_lap() -> None:
    def wrong() -> None:
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable, match="gone"):
        list(Timer(1000, Told(), wrong).laps("x", enough=lambda: True))
    with pytest.raises(BrokerUnavailable, match="gone"):
        Timer(1000, Told(), wrong).until("x", lambda: False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_lap_and_the_second_doesn_t(number: signal.Signals) -> None:
    timer = Timer(1000, Told(), fine)
    before = signal.getsignal(number)
    with timer.signals():
        laps = timer.laps("x", enough=lambda: True)
        next(laps)
        signal.raise_signal(number)  # nothing is raised here, where something may be half done
        with pytest.raises(Stopped):
            next(laps)
        with pytest.raises(Stopped):
            timer.until("x", lambda: False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


# -- the stand ------------------------------------------------------------------------------------


class Kept(MemoryBroker):
    """Can be looked into when it is closed."""

    @property
    def tasks(self) -> dict[str, Any]:
        return dict(self._tasks)


@pytest.fixture
def memory() -> Iterator[Kept]:
    broker = Kept()
    yield broker
    broker.close()


def test_a_stand_leaves_nothing(memory: Kept) -> None:
    memory.enqueue(envelopes(3))
    with Stand(memory, "bench-1", slots=2, payload=10) as stand:
        stand.fill(stand.one, 20)
        with stand.worker((2, 19)) as moments:
            Timer(1, Told(), stand.check).until("x", lambda: moments[19] is not None)
        first, last = moments[2], moments[19]
        assert first is not None
        assert last is not None
        assert last.since(first).seconds > 0
        assert stand.starts.qsize() == 20
        assert len(memory.tasks) == 3  # what has ended isn't kept
        stand.fill(stand.chain, 5)
        assert len(memory.tasks) == 8
    assert memory.tasks.keys() == {"t0", "t1", "t2"}  # somebody else's


def test_what_a_broken_run_holds_is_taken_when_its_lease_is_over(memory: Kept) -> None:
    with Stand(memory, "bench-1", slots=2, payload=10) as stand:
        stand.fill(stand.one, 3)
        assert len(memory.acquire("bench-1", limit=2, wait=0, lease_for=0.3)) == 2
    assert memory.tasks == {}


def test_a_task_that_fails_is_an_error_and_is_removed_too(memory: Kept) -> None:
    with Heard(), Stand(memory, "bench-1", slots=2, payload=10) as stand:
        stand.app.external("unknown")  # to the worker, too
        stand.queue.enqueue("unknown")
        with stand.worker(), pytest.raises(GotasksError, match="a task failed at"):
            Timer(1, Told(), stand.check).until("x", lambda: False)
        assert [each.queue for each in memory.tasks.values()] == ["bench-1-fatal"]
    assert memory.tasks == {}


def test_what_is_logged_is_heard_once() -> None:
    with Heard() as heard:
        for text in ("one", "two", "one"):
            logging.getLogger("gotasks").warning("it says %s", text)
        logging.getLogger("gotasks").info("not that")
    logging.getLogger("gotasks").warning("nor that")
    assert heard.lines == ["it says one", "it says two"]


def test_a_call_that_fails_is_an_error() -> None:
    with Stand(MemoryBroker(), "bench-1", slots=2, payload=10) as stand:
        stand.check()
        stand.app.events.emit(BrokerDown("acquire bench-1", "connection refused", 1))
        with pytest.raises(BrokerUnavailable, match=r"acquire bench-1\): connection refused"):
            stand.check()


def test_a_server_that_goes_away_leaves_a_queue_to_be_named(memory: Kept) -> None:
    stand = Stand(memory, "bench-1", slots=2, payload=10)
    with pytest.raises(BrokerUnavailable, match="gotasks purge bench-1"), stand:
        stand.fill(stand.one, 1)
        memory.close()


def test_nothing_is_removed_where_nothing_was_stored(memory: Kept) -> None:
    with Stand(memory, "bench-1", slots=2, payload=10) as stand:
        stand.app.stats("bench-1")
        memory.close()  # an attempt to remove something would raise


def test_args_are_as_large_as_asked_for(memory: Kept) -> None:
    for payload, size in ((100, 100), (11, 11), (0, 11)):
        stand = Stand(memory, "bench-1", slots=2, payload=payload)
        assert len(msgspec.json.encode(stand.args)) == size


def test_the_server_is_not_filled(memory: Kept) -> None:
    large = Stand(memory, "bench-1", slots=10, payload=500_000)
    assert (large.room, large.batch) == (50, 1)
    small = Stand(memory, "bench-1", slots=10, payload=100)
    assert (small.room, small.batch) == (32 * 1024 * 1024 // 700, 1000)
    with pytest.raises(ConfigurationError, match="1000 slots with args of 500000 bytes need 4770 MiB"):
        Stand(memory, "bench-1", slots=1000, payload=500_000)


# -- the whole ------------------------------------------------------------------------------------


class Warns(Kept):
    """Has something to say when a worker starts."""

    def warnings(self) -> list[str]:
        return ["it forgets everything"]


def test_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, told = Warns(), Told()
    monkeypatch.setattr("gotasks.bench.run.open_broker", lambda _url: broker)
    url = BrokerURL("memory://me:secret@here")
    report = run(url, "bench-1", seconds=0.02, slots=2, payload=0, progress=told)
    assert report.warnings == ["it forgets everything"]  # though several workers were told
    assert report.url == "memory://me:***@here"
    assert {0.0, 1.0} <= set(told.parts)
    assert broker.tasks == {}
