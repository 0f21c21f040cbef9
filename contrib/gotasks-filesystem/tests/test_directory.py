"""What only this broker has: a directory."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gotasks.broker import BrokerURL, Envelope, QueueStats, Write
from gotasks.errors import BrokerUnavailable, InvalidURL
from gotasks_filesystem import FilesystemBroker
from gotasks_filesystem.adapter import FilesystemAdapter
from gotasks_filesystem.files import Files

Make = Callable[..., FilesystemBroker]


@pytest.mark.parametrize(
    "url",
    ["filesystem://", "filesystem:///", "filesystem://host/path", "filesystem:///path?synchronous=true"],
)
def test_a_url_that_names_no_directory(url: str) -> None:
    with pytest.raises(InvalidURL):
        FilesystemBroker.from_url(BrokerURL(url))


def test_nothing_is_made_before_it_is_used(tmp_path: Path, make_broker: Make) -> None:
    make_broker(tmp_path / "tasks").close()

    assert not (tmp_path / "tasks").exists()


def test_a_place_that_is_no_directory(tmp_path: Path, make_broker: Make) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(BrokerUnavailable, match="file can't be used"):
        make_broker(tmp_path / "file").stats("orders")


def test_nothing_is_left_of_a_finished_task(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path, "?sync=true")
    ours.enqueue([Envelope(id="one", queue="..", body=b"body", unique="key")])
    (lease,) = ours.acquire("..", limit=1, wait=0, lease_for=10)
    ours.ack([Write(lease=lease, body=b"done", seq=1)], keep_for=0)

    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    assert [path.parent.name for path in files] == []


def test_the_directory_is_for_one_user(tmp_path: Path, make_broker: Make) -> None:
    make_broker(tmp_path / "above" / "tasks").stats("orders")

    assert stat.S_IMODE((tmp_path / "above" / "tasks").stat().st_mode) == 0o700


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path, make_broker: Make) -> None:
    (tmp_path / "tasks").mkdir(mode=0o750)
    make_broker(tmp_path / "tasks").stats("orders")

    assert stat.S_IMODE((tmp_path / "tasks").stat().st_mode) == 0o750


def test_a_server_of_the_suite_has_the_parameters_under_test(tmp_path: Path) -> None:
    adapter = FilesystemAdapter(f"filesystem://{tmp_path}?sync=true")
    with adapter.server(tmp_path) as server:
        assert server.url == f"filesystem://{tmp_path}/tasks?sync=true"


def test_what_a_kill_left_half_written_goes(tmp_path: Path, make_broker: Make) -> None:
    make_broker(tmp_path).stats("orders")
    (tmp_path / "new" / "one").write_bytes(b"half of")
    make_broker(tmp_path).stats("orders")

    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_full_disk_left_half_written_goes(tmp_path: Path, make_broker: Make) -> None:
    ours = make_broker(tmp_path)
    ours.stats("orders")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a disk that is full after so many bytes
    try:
        with pytest.raises(BrokerUnavailable):
            ours.enqueue([Envelope(id="one", queue="orders", body=b"x" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list((tmp_path / "new").iterdir()) == []


def test_leases_that_were_made_before_the_disk_was_full_are_returned(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id=each, queue="orders", body=b"") for each in ("one", "two", "three")])
    replace = Files.replace

    def full(self: Files, path: Path, content: bytes) -> None:
        if path.name == "three":
            raise OSError(28, "No space left on device")
        replace(self, path, content)

    monkeypatch.setattr(Files, "replace", full)
    leases = ours.acquire("orders", limit=3, wait=0, lease_for=10)
    assert [each.envelope.id for each in leases] == ["one", "two"]
    with pytest.raises(BrokerUnavailable, match="No space left"):
        ours.acquire("orders", limit=3, wait=0, lease_for=10)


def test_counting_leaves_the_bodies_alone(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_broker(tmp_path)
    ours.enqueue([Envelope(id=each, queue="orders", body=b"x" * 10**6) for each in ("one", "two")])
    ours.acquire("orders", limit=1, wait=0, lease_for=10)
    asked = []
    read = ours._store.read

    def watched(task_id: str, *, body: bool = True) -> object:
        asked.append(body)
        return read(task_id, body=body)

    monkeypatch.setattr(ours._store, "read", watched)
    assert ours.stats("orders") == QueueStats(ready=1, scheduled=0, leased=1)
    assert asked == [False, False]


def on_disk(path: Path, query: str, make_broker: Make, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Which files and directories a task's life hands to fsync."""
    seen = set()
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        seen.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    ours = make_broker(path, query)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body")])
    (lease,) = ours.acquire("orders", limit=1, wait=0, lease_for=10)
    ours.ack([Write(lease=lease, body=b"done", seq=1)], keep_for=10)
    return seen


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc to name descriptors")


@linux
def test_all_that_a_task_is_found_by_is_on_the_disk(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    queue = root / "queues" / "=orders"
    seen = on_disk(root, "?sync=true", make_broker, monkeypatch)

    assert {root / "new" / "one", root / "tasks", queue / "ready", queue / "leased", root / "ended"} <= seen
    assert {tmp_path, root, root / "queues", queue} <= seen


@linux
def test_without_sync_nothing_waits_for_the_disk(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_disk(tmp_path / "root", "", make_broker, monkeypatch) == set()


@linux
@pytest.mark.parametrize("how", ["ack", "purge", "cancel"])
def test_that_a_task_is_gone_is_on_the_disk(
    tmp_path: Path, make_broker: Make, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    ours = make_broker(tmp_path, "?sync=true")
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body")])
    leases = ours.acquire("orders", limit=1, wait=0, lease_for=10) if how == "ack" else []
    seen = set()
    monkeypatch.setattr(os, "fsync", lambda each: seen.add(Path(f"/proc/self/fd/{each}").readlink()))
    if how == "ack":
        ours.ack([Write(lease=leases[0], body=b"", seq=1)], keep_for=0)
    elif how == "purge":
        ours.purge("orders")
    else:
        ours.cancel(["one"], keep_for=0)

    assert seen == {tmp_path / "tasks"}
