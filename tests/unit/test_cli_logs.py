"""What is logged of the facts of a worker."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gotasks import events, logs
from gotasks.events import Event
from gotasks.logs import JsonFormatter, LogListener


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger = logging.getLogger("test-of-gotasks-logs")
    kept = Kept()
    logger.addHandler(kept)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def listener(kept: Kept) -> LogListener:
    return LogListener(logging.getLogger("test-of-gotasks-logs"))


TASK = ("id-1", "orders", "checkout")


@pytest.mark.parametrize(
    "event, level, words",
    [
        (
            events.TaskBuried(*TASK, "charge", "failed", "ValueError: no", 0.1),
            "ERROR",
            ["id-1", "charge", "failed", "no"],
        ),
        (events.TaskBuried(*TASK, "", "unreadable", "not a record", 0.1), "ERROR", ["unreadable"]),
        (
            events.StepRetried(*TASK, "charge", 2, 0.5, "OSError: away"),
            "WARNING",
            ["charge", "try 2", "away"],
        ),
        (events.TaskCrashed(*TASK, 2), "WARNING", ["went away", "2"]),
        (events.LeaseLost(*TASK, sure=True), "WARNING", ["lease is lost"]),
        (events.TaskReleased(*TASK, "lease", 0.0), "WARNING", ["given back"]),
        (events.TaskReleased(*TASK, "timeout", 0.0), "WARNING", ["given back"]),
        (events.TaskReleased(*TASK, "stop", 0.0), "INFO", ["given back"]),
        (events.LoopStalled(31.0, "in nap()"), "WARNING", ["31.0 s", "nap()"]),
        (events.TaskReleased(*TASK, "retry", 2.0), None, []),  # the retry itself was said
        (events.TaskSucceeded(*TASK, 0.1), None, []),
        (events.TaskStarted(*TASK, None), None, []),
        (events.QueueMeasured("orders", 1, 2, 3), None, []),
    ],
)
def test_each_fact_has_its_level(
    listener: LogListener, kept: Kept, event: Event, level: str | None, words: list[str]
) -> None:
    listener(event)
    assert [record.levelname for record in kept.records] == ([] if level is None else [level])
    for record in kept.records:
        assert all(word in record.getMessage() for word in words), record.getMessage()


def test_each_record_says_which_task(listener: LogListener, kept: Kept) -> None:
    listener(events.TaskBuried(*TASK, "charge", "failed", "no", 0.1))
    listener(events.BrokerDown("acquire orders", "refused", 1))
    fields = [tuple(getattr(record, name) for name in logs.FIELDS) for record in kept.records]
    assert fields == [("id-1", "checkout", "orders", "charge"), ("", "", "", "")]


def test_every_fact_is_there_at_debug(listener: LogListener, kept: Kept) -> None:
    logging.getLogger("test-of-gotasks-logs").setLevel(logging.DEBUG)
    listener(events.TaskStarted(*TASK, None))
    listener(events.StepDone(*TASK, "charge", 0.1, ok=False))
    listener(events.Checkpointed(*TASK, "receipt"))
    listener(events.TaskSucceeded(*TASK, 0.1))
    assert [record.levelname for record in kept.records] == ["DEBUG"] * 4


def test_an_error_cannot_look_like_another_record(listener: LogListener, kept: Kept) -> None:
    listener(events.TaskBuried(*TASK, "charge", "failed", "no\n2026-01-01 ERROR made up", 0.1))
    assert "\n" not in kept.records[0].getMessage()


def test_a_server_that_is_away_is_said_once_and_when_it_is_back(listener: LogListener, kept: Kept) -> None:
    for attempt in range(1, 50):
        listener(events.BrokerDown("acquire orders", "refused", attempt))
        listener(events.BrokerDown("acquire mail", "refused", attempt))
        listener(events.BrokerDown("extend", "refused", 1))  # it may be that no lease is left to extend
    listener(events.BrokerUp("acquire orders", 49))
    assert [record.levelname for record in kept.records] == ["WARNING"]
    assert "refused" in kept.records[0].getMessage()
    listener(events.BrokerUp("acquire mail", 48))
    assert "back after 49 attempts" in kept.records[1].getMessage()
    assert len(kept.records) == 2


def test_a_server_that_stays_away_is_mentioned_again(
    listener: LogListener, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("gotasks.logs.time.monotonic", lambda: now)
    said = []
    for _ in range(300):  # one attempt in each tenth of a second, 30 s long
        before = len(kept.records)
        listener(events.BrokerDown("acquire orders", "refused", 1))
        if len(kept.records) > before:
            said.append(now)
        now += 0.1
    assert said == pytest.approx([1000, 1010, 1020], abs=0.11)


def test_a_server_that_comes_and_goes_does_not_fill_the_log(listener: LogListener, kept: Kept) -> None:
    for _ in range(100):
        listener(events.BrokerDown("acquire orders", "refused", 1))
        listener(events.BrokerUp("acquire orders", 1))
    assert len(kept.records) == 2


def test_json_lines() -> None:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("gotasks")  # noqa: LOG001 - one that nobody else sees
    logger.addHandler(handler)
    LogListener(logger)(events.TaskBuried(*TASK, "charge", "failed", "line 1\nline 2 →", 0.1))
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("a handler of mine")
    first, second = [json.loads(line) for line in output.getvalue().splitlines()]
    assert first["level"] == "ERROR"
    assert first["time"].endswith("Z")
    assert [first[name] for name in logs.FIELDS] == ["id-1", "checkout", "orders", "charge"]
    assert "→" in first["message"]
    assert "ValueError: boom" in second["traceback"]
    assert "task_id" not in second
