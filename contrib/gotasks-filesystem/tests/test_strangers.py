"""What somebody else does to the files: nothing that they wrote is lost, and none of it stops a queue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gotasks.broker import Envelope, QueueStats, State, Write
from gotasks_filesystem import FilesystemBroker

Make = Callable[..., FilesystemBroker]


def drop(path: Path, name: str, data: bytes) -> Path:
    ready = path / "queues" / "=orders" / "ready"
    ready.mkdir(parents=True, exist_ok=True)
    (ready / name).write_bytes(data)
    return ready / name


def acquired(ours: FilesystemBroker) -> dict[str, bytes]:
    leases = ours.acquire("orders", limit=10, wait=0, lease_for=10)
    return {each.envelope.id: each.envelope.body for each in leases}


OVERWRITTEN = [b"what is this?", b"", b"\xff\n", b'{"id": "\xff"}\n', b'{"id":"one","x":' + b"[" * 100_000]


@pytest.mark.parametrize("data", OVERWRITTEN, ids=lambda data: repr(data[:12]))
@pytest.mark.parametrize("priority", [0, 7])
def test_a_ready_task_that_was_written_over(
    tmp_path: Path, make_broker: Make, priority: int, data: bytes
) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body", priority=priority)])
    (tmp_path / "tasks" / "one").write_bytes(data)

    (lease,) = ours.acquire("orders", limit=1, wait=0, lease_for=10)
    assert (lease.envelope.id, lease.envelope.body) == ("one", data)
    assert lease.envelope.priority == priority
    assert ours.ack([Write(lease=lease, body=b"", seq=1)], keep_for=0) == frozenset()


def test_a_scheduled_task_that_was_written_over(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body", delay=60, priority=3)])
    (tmp_path / "tasks" / "one").write_bytes(b"what is this?")

    assert ours.stats("orders") == QueueStats(ready=1, scheduled=0, leased=0)
    assert acquired(ours) == {"one": b"what is this?"}


def test_a_leased_task_that_was_written_over(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body", unique="key")])
    (lease,) = ours.acquire("orders", limit=1, wait=0, lease_for=60)
    (tmp_path / "tasks" / "one").write_bytes(b"what is this?")

    assert ours.checkpoint([Write(lease=lease, body=b"", seq=1)]) == {lease.receipt}
    assert acquired(ours) == {"one": b"what is this?"}
    assert ours.ack([Write(lease=lease, body=b"", seq=2)], keep_for=0) == {lease.receipt}


def test_a_record_that_was_written_over_goes_at_its_time(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body")])
    ours.cancel(["one"], keep_for=0.05)
    (tmp_path / "tasks" / "one").write_bytes(b"what is this?")
    time.sleep(0.1)

    assert make_broker(tmp_path).get(["one"]) == {}


def test_the_same_bytes_twice_are_two_tasks_and_the_first_stays_held(
    tmp_path: Path, make_broker: Make
) -> None:
    ours = make_broker(tmp_path)
    drop(tmp_path, "by hand", b"bytes")
    (first,) = ours.acquire("orders", limit=10, wait=0, lease_for=10)
    drop(tmp_path, "by hand", b"bytes")
    (second,) = ours.acquire("orders", limit=10, wait=0, lease_for=10)

    assert first.envelope.id != second.envelope.id
    writes = [Write(lease=each, body=b"", seq=1) for each in (first, second)]
    assert ours.ack(writes, keep_for=0) == frozenset()


def test_the_same_bytes_in_two_queues_are_two_tasks(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    drop(tmp_path, "by hand", b"bytes")
    other = tmp_path / "queues" / "=other" / "ready"
    other.mkdir(parents=True)
    (other / "by hand").write_bytes(b"bytes")

    leases = [ours.acquire(each, limit=10, wait=0, lease_for=10) for each in ("orders", "other")]
    writes = [Write(lease=lease, body=b"", seq=1) for (lease,) in leases]
    assert ours.ack(writes, keep_for=0) == frozenset()


@pytest.mark.parametrize("method", ["touch", "rename", "write", "unlink"])
def test_a_kill_neither_loses_nor_doubles_what_was_dropped(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    drop(tmp_path, "by hand", b"bytes")
    ours = make_broker(tmp_path)
    ours.stats("other")

    class Killed(BaseException):
        pass

    def kill(*_args: object, **_kwargs: object) -> None:
        raise Killed

    where = ours._store if method == "write" else Path
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(where, method, kill)
        acquired(ours)
        ours.purge("orders")  # where nothing was unlinked until now

    ended = 0
    for _ in range(3):
        for lease in ours.acquire("orders", limit=1, wait=0, lease_for=10):
            assert lease.envelope.body == b"bytes"
            ours.ack([Write(lease=lease, body=b"", seq=1)], keep_for=0)
            ended += 1
    leased = ours.stats("orders").leased or 0
    assert ended + leased == 1


def test_what_is_hidden_is_still_being_written(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    hidden = drop(tmp_path, ".by hand", b"half of")

    assert acquired(ours) == {}
    assert hidden.read_bytes() == b"half of"


def test_files_that_are_no_tasks_are_passed_over(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body")])
    unreadable = drop(tmp_path, "unreadable", b"bytes")
    ready = unreadable.parent
    (ready / "directory").mkdir()
    (ready / f"{0:021d}.directory").mkdir()
    (ready / "dangling").symlink_to("nowhere")
    (ready / f"{0:021d}.dangling").symlink_to("nowhere")
    os.mkfifo(ready / "pipe")
    (tmp_path / "tasks" / "directory").mkdir()
    for each in ("ended", "new", "tasks", "unique", "queues"):
        (tmp_path / each / ".DS_Store").write_bytes(b"bytes")
        (tmp_path / each / "a directory").mkdir()
    access = os.access  # root may read whatever the mode is
    monkeypatch.setattr(os, "access", lambda path, mode: path != unreadable and access(path, mode))

    another = make_broker(tmp_path)
    assert another.stats("orders").ready == 1
    assert len(another.browse("orders", state=State.READY, limit=10)) == 1
    assert acquired(another) == {"one": b"body"}
    assert unreadable.read_bytes() == b"bytes"


def test_a_task_that_may_not_be_read_keeps_its_hint(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id=each, queue="orders", body=b"body") for each in ("one", "two")])
    opened = Path.open

    def refused(path: Path, mode: str) -> object:
        if path.name == "one":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        with ours._opened():
            assert [entry.id for entry, _ in ours._store.queue("orders", State.READY)] == ["two"]
    assert acquired(ours) == {"one": b"body", "two": b"body"}
