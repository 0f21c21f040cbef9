"""The lock, and those who hold it too long."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gotasks.errors import BrokerClosed, BrokerUnavailable
from gotasks_filesystem import FilesystemBroker, store

Make = Callable[..., FilesystemBroker]


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Somebody holds the lock and does nothing: to the kernel another process and another opening are the same."""
    with (path / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def started(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def test_a_frozen_process_is_waited_for_a_while(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PATIENCE", 0.2)
    ours = make_broker(tmp_path)
    ours.stats("orders")
    with frozen(tmp_path):
        thread, raised = started(lambda: ours.stats("orders"))
        thread.join(5)
    assert not thread.is_alive()
    assert isinstance(raised[0], BrokerUnavailable)
    assert "lock` names them" in str(raised[0])
    assert ours.stats("orders").ready == 0


def test_a_busy_thread_is_waited_for_a_while(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PATIENCE", 0.2)
    ours = make_broker(tmp_path)
    with ours._opened():
        thread, raised = started(lambda: ours.stats("orders"))
        thread.join(5)
    assert not thread.is_alive()
    assert isinstance(raised[0], BrokerUnavailable)


def test_close_waits_for_nobody_and_is_seen_by_all(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    ours.stats("orders")
    with frozen(tmp_path):
        calls = [started(lambda: ours.stats("orders")) for _ in range(3)]
        time.sleep(0.1)
        began = time.monotonic()
        closing, _ = started(ours.close)
        for thread, _ in [(closing, []), *calls]:
            thread.join(3)
        assert time.monotonic() - began < 1
    assert [type(raised[0]) for _, raised in calls] == [BrokerClosed] * 3
    assert ours._store._lock is None


def test_close_wakes_an_acquire_that_waits(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    thread, _ = started(lambda: ours.acquire("orders", limit=1, wait=30, lease_for=1))
    time.sleep(0.1)
    ours.close()
    thread.join(1)
    assert not thread.is_alive()
    assert ours._store._lock is None


def test_a_call_that_close_overtakes_leaves_nothing_open(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    with ours._opened():
        lock = ours._store._lock
        assert lock is not None
        ours.close()
        os.fstat(lock)  # still ours
    assert ours._store._lock is None
    with pytest.raises(OSError):
        os.fstat(lock)
    with pytest.raises(BrokerClosed):
        ours.stats("orders")
    assert ours._store._lock is None


def test_who_waits_for_a_task_leaves_the_lock_alone(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PATIENCE", 5.0)
    ours, looking = make_broker(tmp_path), threading.Event()
    offers = store.Store.offers

    def look(self: store.Store, queue: str) -> bool:
        looking.set()
        return offers(self, queue)

    monkeypatch.setattr(store.Store, "offers", look)
    waiting, raised = started(lambda: ours.acquire("orders", limit=1, wait=0.3, lease_for=10))
    assert looking.wait(5)
    with frozen(tmp_path):
        waiting.join(4)
        assert not waiting.is_alive()
    assert raised == []
