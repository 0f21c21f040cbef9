"""Rows: recovery. What dead holders leave behind comes back: all of it, each task to one, and whoever else has died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, PATIENCE, Scene, ids_of


@row("LSE-04")
def of_many_who_take_over_only_one_gets_the_task(it: Scene) -> None:
    """Given tasks whose leases are over, when many clients acquire at the same time, each task goes to exactly one."""
    count = it.times(quick=60, full=600)
    sent = it.put(count)
    holder = it.client()
    length = it.lease + count / 1000
    it.abandon(it.take_all(count, by=holder, lease_for=length), by=holder)
    taken = _race(it, count, clients=6, deadline=it.grace + PATIENCE)
    twice, missing = len(taken) - len(set(ids_of(taken))), len(set(sent) - set(ids_of(taken)))
    it.figures["races"] = count
    expect_equal((twice, missing), (0, 0), "tasks that two got, and tasks that nobody got")


@row("LSE-05")
def however_many_leases_are_over_all_tasks_come_back(it: Scene) -> None:
    """Given many tasks whose holder died, and many more that came before them and are held, when others acquire, all
    of the dead one's come back in time, whatever part of the leases a server looks at in one go.
    """
    held, left = it.times(quick=150, full=1000), it.times(quick=250, full=3000)
    left = min(left, it.limits.max_leases or left)
    keeper, holder, other = it.client(), it.client(), it.client()
    it.put(held)
    it.take_all(held, by=keeper)
    it.put(left)
    it.abandon(it.take_all(left, by=holder, lease_for=it.lease + left / 1000), by=holder)
    back = it.take_all(left, by=other, wait=it.grace)
    expect_equal(len(set(ids_of(back))), left, f"tasks that came back, of {left} whose leases were over")


@row("LSE-06", processes=True, title="a client that is killed in an acquire is in nobody's way")
def a_client_that_is_killed_in_an_acquire_is_in_nobodys_way(it: Scene) -> None:
    """Given a client in another process that takes over tasks again and again, when it is killed at any moment, others
    get all of them in time: it holds nothing that others need to recover tasks.
    """
    count, kills = 20, it.times(quick=2, full=8)
    it.put(count)
    for _ in range(kills):
        other = it.elsewhere()
        other.stats(it.queue)  # it's there
        other.start(take_over_for_ever, it.queue, count, it.lease / 10)
        threading.Event().wait(it.random.uniform(0.05, 0.15))
        other.kill()
    it.figures["kills"] = kills
    back = it.take_all(count, by=it.client(), wait=it.lease + it.grace)
    expect_equal(
        len(set(ids_of(back))), count, f"tasks that came back, of {count} that killed clients had held"
    )


def take_over_for_ever(broker: Broker, queue: str, limit: int, lease_for: float) -> None:
    """What the client does that is killed."""
    while True:
        broker.acquire(queue, limit=limit, wait=0.01, lease_for=lease_for)


@row("LSE-07", title="a record that is gone is in no other task's way")
def a_record_that_is_gone_is_in_no_other_tasks_way(it: Scene) -> None:
    """Given three ready tasks, when the server loses the record of the second one, `acquire` gives the others as ever,
    each once. It may give what is left of the lost one, under its id; nothing raises, and nothing remains.
    """
    first, second, third = it.put(3)
    it.adapter.evict(it.url, second)
    came = ids_of(it.drain())
    expect_equal(
        sorted(each for each in came if each != second),
        sorted([first, third]),
        "what is offered of a queue in which one record is gone, besides that one",
    )
    expect_equal(
        it.broker.stats(it.queue),
        it.at_rest(),
        "what is counted in the queue when nothing is offered any more",
    )


@row("LSE-08")
def a_fresh_lease_is_never_taken_for_one_that_is_over(it: Scene) -> None:
    """Given many clients that acquire at the same time while tasks come in, and hold what they get, each task is given
    once, and without a death: no client takes what another one is just being given.
    """
    count = it.times(quick=200, full=1000)
    feeder = threading.Thread(target=_feed, args=(it, count), daemon=True)
    feeder.start()
    taken = _race(it, count, clients=4, deadline=PATIENCE)
    feeder.join(PATIENCE)
    seen = (len(set(ids_of(taken))), len(taken), sum(lease.deaths for lease in taken))
    expect_equal(
        seen, (count, count, 0), "tasks that were given, how often, and how many deaths their leases tell of"
    )


@row("LSE-09")
def a_former_holder_is_a_holder_like_any_other(it: Scene) -> None:
    """Given a lease that is over, when the client that had it acquires again (a new one of the same process, if leases
    end with the connection), it gets the task, and the receipt that it had before doesn't hold.
    """
    it.put()
    holder = it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    it.abandon([lease], by=holder)
    again = holder if it.claims(Capability.TIMED_LEASE) else it.client()
    leases = it.take(by=again, wait=it.grace)
    expect(leases, "the client whose lease is over isn't offered the task again")
    lost = again.checkpoint([it.write(lease)])
    expect_equal(
        lost, {lease.receipt}, "receipts lost by a checkpoint under the former lease of the same client"
    )


@row("LSE-10", needs=Capability.SHARED)
def what_is_held_outlives_all_clients(it: Scene) -> None:
    """Given a held task, when all clients are closed in an orderly way, a client that comes later gets it when the
    lease is over, and that counts as a death: `close` settles nothing, and nothing is forgotten with it.
    """
    (sent,) = it.put(body=b"as it was")
    holder = it.client()
    it.take_one(by=holder, lease_for=it.lease)
    holder.close()
    it.broker.close()
    leases = it.take(by=it.client(), wait=it.lease + it.grace)
    expect_equal(
        [(lease.envelope.id, lease.envelope.body, lease.deaths) for lease in leases],
        [(sent, b"as it was", 1)],
        "id, body and deaths of what comes back after all clients were closed",
    )


@row("LSE-12", needs=Capability.TIMED_LEASE)
def no_task_is_lost_at_the_moment_when_its_lease_ends(it: Scene) -> None:
    """Given leases that end one shortly after the other, when clients acquire without a pause all the while, each task
    comes back, and once.
    """
    count = it.times(quick=60, full=400)
    it.put(count)
    holder, other = it.client(), it.client()
    # Those that were taken first end last, so none ends before all are taken.
    lengths = [it.lease + count / 100 - number / 200 for number in range(count)]
    leases = [it.take_one(by=holder, lease_for=each) for each in lengths]
    last = max(lease.deadline for lease in leases) + it.grace
    back: list[Lease] = []
    while time.monotonic() < last and len(back) < count:
        back += it.take(min(count, it.limits.max_batch), by=other)
    expect_equal(
        (len(back), len(set(ids_of(back)))),
        (count, count),
        f"takeovers of {count} tasks, and how many tasks they were of",
    )


@row("LSE-13")
def recovery_needs_nobody_new(it: Scene) -> None:
    """Given a client that has found nothing before, when the lease of another client's task is over, that client gets
    it by asking without a wait: no process has to start and no `acquire` has to be waiting for a task to come back.
    """
    holder, other = it.client(), it.client()
    it.take(by=other)
    it.put()
    it.abandon([it.take_one(by=holder, lease_for=it.lease)], by=holder)
    it.eventually(
        lambda: it.take(by=other),
        f"a client that asks with wait=0 is offered a task whose lease has been over for {it.grace:g} s",
        within=it.grace,
    )


def _feed(it: Scene, count: int) -> None:
    by = it.client()
    for _ in range(count // 5):
        it.put(5, by=by)


def _race(it: Scene, count: int, *, clients: int, deadline: float) -> list[Lease]:
    """Have several clients acquire and hold until that many leases were given, in all."""
    taken: list[Lease] = []
    end = time.monotonic() + deadline

    def taker(client: Broker) -> Callable[[], None]:
        def take() -> None:
            while len(taken) < count and time.monotonic() < end:
                taken.extend(it.take(2, by=client, wait=0.02, lease_for=LONG))

        return take

    it.in_threads(*(taker(it.client()) for _ in range(clients)), timeout=deadline + 10)
    # Whatever is doubled may still be there.
    taken.extend(it.take(2))
    return taken
