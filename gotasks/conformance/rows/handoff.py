"""Rows: handoff. A checkpoint that ends the lease: the task goes on at once, with whoever comes."""

from __future__ import annotations

from collections import Counter

from gotasks.broker import Broker, Capability
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, WRITES, Scene


@row("HND-01", needs=Capability.HANDOFF)
def a_checkpoint_ends_the_lease_and_offers_the_new_body(it: Scene) -> None:
    """Given a held task, when it is checkpointed, then it is offered at once, to one, with the new body and no
    deaths. The receipt holds no longer: what is written under it is lost, the same checkpoint sent again
    included.
    """
    it.put()
    lease = it.take_one()
    write = it.write(lease, b"new")
    it.broker.checkpoint([write])
    leases = it.take(9, wait=5.0)
    seen = [(each.envelope.body, each.deaths) for each in leases]
    expect_equal(seen, [(b"new", 0)], "bodies and deaths of what is offered after a checkpoint")
    answers = {name: call(it, it.broker, lease, 2) for name, call in WRITES.items() if name != "extend"}
    answers["the same checkpoint"] = it.broker.checkpoint([write])
    held = [name for name, lost in answers.items() if lost != {lease.receipt}]
    expect_equal(held, [], "writes that weren't lost, under a receipt that a checkpoint has ended")


@row("HND-02", needs=Capability.HANDOFF)
def a_chain_that_is_handed_on_stays_one(it: Scene) -> None:
    """Given tasks that several workers take, checkpoint and so hand on, step by step, then each has done every
    step once when all are at their end, and there is one of each.
    """
    steps, count = 5, it.times(quick=20, full=300)
    for _ in range(count):
        it.put(body=b"0")
    done: list[str] = []
    met: Counter[tuple[str, bytes]] = Counter()

    def work(client: Broker) -> None:
        while leases := it.take(3, by=client, wait=0.2, lease_for=LONG):
            for lease in leases:
                met[lease.envelope.id, lease.envelope.body] += 1
                step = int(lease.envelope.body) + 1
                if step > steps:
                    client.ack([it.write(lease)], keep_for=0)
                    done.append(lease.envelope.id)
                else:
                    client.checkpoint([it.write(lease, str(step).encode())])

    clients = [it.client() for _ in range(4)]
    it.in_threads(*[lambda client=client: work(client) for client in clients])
    twice = sorted(each for each, times in met.items() if times > 1)
    expect_equal(twice, [], "tasks and steps that were met twice")
    expect_equal(
        (len(done), len(met)), (count, count * (steps + 1)), "tasks that came to their end, and steps met"
    )
