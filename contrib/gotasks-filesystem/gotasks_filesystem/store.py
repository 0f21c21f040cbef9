"""Store: tasks as files. One directory, one lock, one file a task.

    tasks/<id>                  a task: one line of JSON, then its body. This file alone is the truth.
    queues/=<queue>/ready/      hints: empty files whose names say which task to look at, and in which order
    queues/=<queue>/scheduled/
    queues/=<queue>/leased/
    ended/                      hints: which records to forget, and when
    unique/<hash>               a hint: the id of the task that has this unique key
    new/                        what is being written; empty while nobody holds the lock
    lock                        held by whoever changes anything; holds the two ends of the counter of places

A task changes in one step: its new file is written beside it and renamed over it. A hint is made before that and its
old one removed after it, so a process that is killed in between leaves a hint too many, never one too few. Whoever
follows a hint reads the file, and removes a hint that is wrong.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import re
import secrets
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gotasks.broker import State
from gotasks.errors import BrokerClosed, BrokerUnavailable
from gotasks_filesystem.entry import ENDED, Entry, Task, decode, encode, over, overwritten
from gotasks_filesystem.files import Files

#: How long to wait for the lock, and how long to leave it alone in between, at first and at the most. Seconds.
_PATIENCE, _SHORT, _LONG = 10.0, 0.0002, 0.005

#: How often old records are looked for, in seconds, and how many are removed at once.
_PAUSE, _SOME = 1.0, 1000

_PLACES = struct.Struct(">qq")

#: Hints are sorted by name, so numbers have a fixed width; places at the front are below this one.
_MIDDLE = 10**17

_HINT = re.compile(r"[0-9]{20,40}\.[A-Za-z0-9_-]{1,64}")

#: Of what is passed over: gone meanwhile, a directory, or somebody else's. It stays, and so does its hint.
_NOT_OURS = (FileNotFoundError, IsADirectoryError, PermissionError)


class Store:
    """The files of one broker. Only to be used inside `locked()`, except `closed`, `forked`, `close` and `offers`."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        """
        Args:
            root: made when it is first used.
            sync: whether a change is on the disk before it's confirmed, so that it outlives a power cut too.
        """
        self.closed = False
        self._root = root
        self._files = Files(root, sync=sync)
        self._lock: int | None = None
        self.forked()

    def forked(self) -> None:
        """Forget what a fork has copied: the child would share the parent's lock instead of waiting for it."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
        self._forgot = 0.0
        self._threads = threading.Lock()

    def close(self) -> None:
        """Let go of the lock's file: at once, or as soon as the thread is done that uses it. Never waits."""
        self.closed = True
        if self._threads.acquire(blocking=False):
            if self._lock is not None:
                os.close(self._lock)
            self._lock = None
            self._threads.release()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else, thread or process, changes anything within the block. The kernel frees it if we are killed."""
        deadline = time.monotonic() + _PATIENCE
        if not self._threads.acquire(timeout=_PATIENCE):
            raise BrokerUnavailable(f"{self._root}: another thread has been busy there for {_PATIENCE:.0f} s")
        try:
            lock = self._wait_for_lock(deadline)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError as error:
            raise BrokerUnavailable(f"{self._root} can't be used: {error.strerror or error}") from error
        finally:
            self._threads.release()
            if self.closed:
                self.close()  # it found us here, and left this to us

    def _wait_for_lock(self, deadline: float) -> int:
        """Never blocks in the kernel: whoever holds the lock may be stopped, and `close` has to be seen."""
        pause = _SHORT
        while not self.closed:
            if self._lock is None:
                self._lock = self._open()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self._lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._root} has been locked for {_PATIENCE:.0f} s: is a process that uses it stopped, "
                        f"or stuck? `fuser {self._root}/lock` names them"
                    ) from None
            time.sleep(pause)
            pause = min(pause * 2, _LONG)
        raise BrokerClosed("this broker was closed")

    def _open(self) -> int:
        for name in ("tasks", "queues", "ended", "unique", "new"):
            self._files.make(self._root / name)
        return os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def now(self) -> float:
        """The time of the file system, in seconds: all processes see the same, whatever their clocks say."""
        assert self._lock is not None
        os.utime(self._lock)
        return os.fstat(self._lock).st_mtime

    def offers(self, queue: str) -> bool:
        """Whether it may be worth taking the lock for this queue: a look from outside, without it."""
        try:
            lock = self._root / "lock"
            os.utime(lock)
            now = f"{int(lock.stat().st_mtime * 1000):020d}"
            directory = self._root / "queues" / f"={queue}"
            for state in (State.READY, State.SCHEDULED, State.LEASED):
                hints = directory / state.value
                names = [path.name for path in hints.iterdir()] if hints.is_dir() else []
                if any(state is State.READY or name[:20] <= now for name in names):
                    return True
        except OSError:
            return True  # what's wrong is for the one who takes the lock to say
        return False

    # -- tasks ------------------------------------------------------------------------------------

    def read(self, task_id: str, *, body: bool = True) -> Task | None:
        """A task, if there is one, with its body if that is wanted. What somebody has written over it is given as it
        is: ready, and of no queue.
        """
        try:
            with self._task(task_id).open("rb") as file:
                line, rest = file.readline(), file.read() if body else b""
        except FileNotFoundError:
            return None
        entry = decode(line, task_id)
        return (Entry(id=task_id, queue=""), line + rest) if entry is None else (entry, rest)

    def write(self, entry: Entry, body: bytes, *, before: Entry | None) -> None:
        """Store a task; `before` is what it was, None for a new one."""
        hint, old = self._hint(entry), None if before is None else self._hint(before)
        if hint != old:
            self._files.touch(hint)
        if before is None and entry.unique is not None:
            self._files.replace(self._unique(entry.unique), entry.id.encode())
        self._files.replace(self._task(entry.id), encode(entry) + body)
        if old is not None and old != hint:
            old.unlink(missing_ok=True)  # if a power cut brings it back, it's a hint too many
        if entry.state in ENDED:
            self._free_key(entry)

    def remove(self, entry: Entry) -> None:
        """Forget a task."""
        self._files.unlink(self._task(entry.id))
        self._hint(entry).unlink(missing_ok=True)
        self._free_key(entry)

    def owner(self, key: str) -> str | None:
        """The id of the living task with this unique key."""
        try:
            task_id = self._unique(key).read_text()
        except FileNotFoundError:
            return None
        found = self.read(task_id, body=False)
        if found is None or found[0].unique != key or found[0].state in ENDED:
            return None
        return task_id

    def queue(self, queue: str, state: State, *, bodies: bool = True) -> Iterator[Task]:
        """The tasks of a queue in this state, the next to leave first. Hints that lead nowhere are removed."""
        directory = self._root / "queues" / f"={queue}" / state.value
        try:
            names = sorted(path.name for path in directory.iterdir())
        except FileNotFoundError:
            return
        for name in names:
            with suppress(*_NOT_OURS):
                ours = _HINT.fullmatch(name) is not None
                hint = directory / name if ours else self._take_in(queue, state, directory / name)
                if hint is None:
                    continue
                found = self.read(hint.name.partition(".")[2], body=bodies)
                if found is not None and overwritten(found[0]):
                    found = self._mend(queue, state, hint)
                if found is not None and self._hint(found[0]) == hint:
                    yield found
                else:
                    hint.unlink(missing_ok=True)

    def forget(self, now: float) -> None:
        """Remove records whose time is over: some of them, and not more often than once a second."""
        if now < self._forgot + _PAUSE:
            return
        self._forgot = now
        self._files.sweep()
        directory = self._root / "ended"
        names = sorted(filter(_HINT.fullmatch, (path.name for path in directory.iterdir())))
        for name in names[:_SOME]:
            due, _, task_id = name.partition(".")
            if int(due) > now * 1000:
                return
            with suppress(*_NOT_OURS):
                found = self.read(task_id, body=False)
                if found is not None and over(found[0], now):
                    self.remove(found[0])
                (directory / name).unlink(missing_ok=True)

    def place(self, *, front: bool) -> int:
        """A place before, or behind, all others so far."""
        assert self._lock is not None
        content = os.pread(self._lock, _PLACES.size, 0)
        first: int
        last: int
        first, last = _PLACES.unpack(content) if len(content) == _PLACES.size else (_MIDDLE, _MIDDLE)
        first, last = (first - 1, last) if front else (first, last + 1)
        os.pwrite(self._lock, _PLACES.pack(first, last), 0)
        return first if front else last

    # -- what isn't ours --------------------------------------------------------------------------

    def _take_in(self, queue: str, state: State, path: Path) -> Path | None:
        """Make a task of what somebody has put among the ready ones, and give its hint. One rename: whenever we are
        killed, it's there once. What is hidden is still being written.
        """
        regular = stat.S_ISREG(path.lstat().st_mode) and os.access(path, os.R_OK)
        if state is not State.READY or not regular or path.name.startswith("."):
            return None
        name = f"foreign-{secrets.token_hex(16)}"
        hint = self._hint(Entry(id=name, queue=queue, place=self.place(front=False)))
        self._files.touch(hint)
        path.rename(self._task(name))
        return hint

    def _mend(self, queue: str, state: State, hint: Path) -> Task:
        """A task whose file isn't one of ours is ready, its bytes as they are; its hint tells the rest."""
        order, _, task_id = hint.name.partition(".")
        priority = 9 - int(order[0]) if state is State.READY else 0
        entry = Entry(id=task_id, queue=queue, priority=priority, place=int(order[-20:]))
        body = self._task(task_id).read_bytes()
        self.write(entry, body, before=None)
        return entry, body

    # -- files ------------------------------------------------------------------------------------

    def _task(self, task_id: str) -> Path:
        return self._root / "tasks" / task_id

    def _hint(self, entry: Entry) -> Path:
        if entry.state in ENDED:
            return self._root / "ended" / f"{math.ceil(entry.until * 1000):020d}.{entry.id}"
        if entry.state is State.READY:
            order = f"{9 - entry.priority}{entry.place:020d}"
        else:
            order = f"{math.ceil(entry.until * 1000):020d}{entry.place:020d}"
        return self._root / "queues" / f"={entry.queue}" / entry.state.value / f"{order}.{entry.id}"

    def _unique(self, key: str) -> Path:
        return self._root / "unique" / hashlib.sha256(key.encode()).hexdigest()

    def _free_key(self, entry: Entry) -> None:
        if entry.unique is not None and self.owner(entry.unique) is None:
            self._unique(entry.unique).unlink(missing_ok=True)
