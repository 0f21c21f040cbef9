"""Refusals: what a broker doesn't claim, it must refuse, and change nothing. Under-claiming is caught here.

Where there is something to refuse, the refusal is asked for. Where there isn't, the broker is watched: what it does
though it doesn't claim it is something on which programs come to rely, and which no row ever looked at.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gotasks.broker import Capability, State
from gotasks.conformance.expect import Nonconformance
from gotasks.errors import Unsupported

if TYPE_CHECKING:
    from gotasks.conformance.scene import Scene

#: So short that what was stored against the rule is there when it is looked for. Seconds.
_SHORT = 0.001


def refuse(it: Scene, capability: Capability) -> str:
    """See that the broker does without `capability`, which it doesn't claim; says what was seen.

    Raises Nonconformance.
    """
    name = str(capability.name)
    return _CHECKS[capability](it, name, it.name(f"without-{name.lower()}"))


def _delay(it: Scene, name: str, queue: str) -> str:
    _option(it, name, queue, delay=_SHORT)
    it.put(queue=queue)
    lease = it.take_one(queue=queue)
    _refused(name, "release(delay=…)", lambda: it.broker.release([it.write(lease, delay=_SHORT)]))
    if it.broker.ack([it.write(lease)], keep_for=0):
        raise Nonconformance(f"release(delay=…) raised Unsupported ({name}), but it has ended the lease")
    return "a delay is refused"


def _priority(it: Scene, name: str, queue: str) -> str:
    _option(it, name, queue, priority=1)
    return "a priority is refused"


def _unique(it: Scene, name: str, queue: str) -> str:
    _option(it, name, queue, unique="key")
    return "a unique key is refused"


def _option(
    it: Scene,
    name: str,
    queue: str,
    *,
    delay: float = 0.0,
    priority: int = 0,
    unique: str | None = None,
) -> None:
    """An envelope with an option that isn't claimed is refused, and so is all that comes with it."""
    asking = it.envelope(queue=queue, delay=delay, priority=priority, unique=unique)
    batch = [it.envelope(queue=queue), asking][-it.limits.max_batch :]
    _refused(name, f"enqueue of an envelope with {name.lower()}=", lambda: it.broker.enqueue(batch))
    stored = len(it.drain(queue=queue))
    if stored:
        raise Nonconformance(f"an enqueue raised Unsupported ({name}), but stored {stored} of its envelopes")


def _records(it: Scene, name: str, queue: str) -> str:
    ids = it.put(queue=queue)
    _refused(name, "get", lambda: it.broker.get(ids))
    return "get is refused"


def _browse(it: Scene, name: str, queue: str) -> str:
    ids = it.put(queue=queue)
    _refused(name, "browse", lambda: it.broker.browse(queue, state=State.READY, limit=1))
    _refused(name, "acquire(ids=…)", lambda: it.take(queue=queue, ids=ids))
    if len(it.drain(queue=queue)) != 1:
        raise Nonconformance(f"acquire(ids=…) raised Unsupported ({name}), but the task isn't ready any more")
    return "browse and acquire(ids=…) are refused"


def _cancel(it: Scene, name: str, queue: str) -> str:
    ids = it.put(queue=queue)
    _refused(name, "cancel", lambda: it.broker.cancel(ids, keep_for=0))
    if len(it.drain(queue=queue)) != 1:
        raise Nonconformance(f"cancel raised Unsupported ({name}), but the task isn't ready any more")
    return "cancel is refused"


def _transactional(it: Scene, name: str, queue: str) -> str:
    async def call() -> object:
        return await it.broker.aenqueue_on(object(), [it.envelope(queue=queue)])

    _refused(name, "enqueue_on", lambda: it.broker.enqueue_on(object(), [it.envelope(queue=queue)]))
    _refused(name, "aenqueue_on", lambda: asyncio.run(call()))
    if it.drain(queue=queue):
        raise Nonconformance(f"enqueue_on raised Unsupported ({name}), but stored the envelope")
    return "enqueue_on and aenqueue_on are refused"


def _idempotent(it: Scene, name: str, queue: str) -> str:
    first = it.envelope(queue=queue)
    it.broker.enqueue([first])
    there = it.broker.enqueue([first])
    copies = len(it.drain(queue=queue))
    if there or copies != 2:
        raise Nonconformance(
            f"the second enqueue of an id returned {dict(there)!r} and {copies} of the 2 came out: the id was "
            f"recognised, though {name} isn't claimed. Claim it, or store each"
        )
    return "an id that comes again is one more task"


def _timed_lease(it: Scene, name: str, queue: str) -> str:
    it.put(queue=queue)
    deadline = it.take_one(queue=queue, lease_for=it.lease).deadline
    if deadline != math.inf:
        raise Nonconformance(
            f"a lease has the deadline {deadline:g}, though {name} isn't claimed: claim it, or give leases that "
            "only the end of their connection ends, with the deadline inf"
        )
    return "leases have no deadline"


def _shared(it: Scene, name: str, queue: str) -> str:
    other = it.adapter.open(it.url)
    it.at_end(other.close)
    it.put(queue=queue)
    if it.take(by=other, queue=queue):
        raise Nonconformance(
            f"a second broker object of the same URL acquired the task of the first, though {name} isn't claimed: "
            "claim it, or keep the two apart"
        )
    return "a second broker of this URL sees nothing of the first"


def _handoff(it: Scene, name: str, queue: str) -> str:
    it.put(queue=queue)
    lease = it.take_one(queue=queue)
    lost = it.broker.checkpoint([it.write(lease, seq=1)]) or it.broker.ack(
        [it.write(lease, seq=2)], keep_for=0
    )
    if lost:
        raise Nonconformance(
            f"a checkpoint has ended the lease, though {name} isn't claimed: claim it, or leave the task held"
        )
    return "a checkpoint leaves the task held"


def _atomic_move(it: Scene, name: str, queue: str) -> str:
    return "there is nothing to see: whether a move is one step shows in a crash only"


def _refused(name: str, what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except Unsupported:
        return
    except Exception as error:
        raise Nonconformance(
            f"{what} raised {type(error).__name__}: {error}; without {name} it has to raise Unsupported"
        ) from error
    raise Nonconformance(
        f"{what} was carried out, though {name} isn't claimed: claim it, or raise Unsupported"
    )


_CHECKS: Mapping[Capability, Callable[[Scene, str, str], str]] = {
    Capability.DELAY: _delay,
    Capability.PRIORITY: _priority,
    Capability.IDEMPOTENT: _idempotent,
    Capability.UNIQUE: _unique,
    Capability.RECORDS: _records,
    Capability.BROWSE: _browse,
    Capability.CANCEL: _cancel,
    Capability.TRANSACTIONAL: _transactional,
    Capability.ATOMIC_MOVE: _atomic_move,
    Capability.TIMED_LEASE: _timed_lease,
    Capability.SHARED: _shared,
    Capability.HANDOFF: _handoff,
}
