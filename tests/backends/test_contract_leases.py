"""The broker contract: leases, deaths, and how long a receipt holds."""

from __future__ import annotations

import time

import pytest

from gotasks.broker import Broker, Capability, Lease, State
from tests.backends.contract import (
    LONG,
    QUEUE,
    WRITES,
    let_end,
    put,
    stats,
    take,
    take_one,
    write,
)

each_write = pytest.mark.parametrize("name", list(WRITES))


# -- ends and deaths ----------------------------------------------------------------------------


def test_a_lease_ends_by_time_and_its_task_comes_back(broker: Broker, short: float) -> None:
    assert Capability.TIMED_LEASE in broker.capabilities
    (sent,) = put(broker)
    began = time.monotonic()
    first = take_one(broker, lease_for=short)
    assert began + short <= first.deadline <= time.monotonic() + short

    assert take(broker) == []  # not before its end
    again = take_one(broker, wait=10, lease_for=short)

    assert short * 0.99 <= time.monotonic() - began < short + broker.limits.recovery + 0.7
    assert (again.envelope, again.deaths) == (first.envelope, 1)
    assert again.envelope.id == sent
    assert again.receipt != first.receipt


def test_deaths_are_exact_over_several_leases_that_nobody_settled(broker: Broker, short: float) -> None:
    # Whether a reply was lost or a worker killed is the same to a broker: it leased, and nobody wrote.
    put(broker, 3)
    for deaths in range(4):
        leases: list[Lease] = []
        while len(leases) < 3:
            leases += take(broker, 3 - len(leases), wait=10, lease_for=short)
        assert [lease.deaths for lease in leases] == [deaths] * 3
        let_end(leases)


def test_deaths_are_counted_for_one_task_not_for_its_neighbours(broker: Broker, short: float) -> None:
    put(broker, 2)
    take_one(broker, lease_for=short)
    fresh = take_one(broker)
    died = take_one(broker, wait=10)
    assert (fresh.deaths, died.deaths) == (0, 1)


@pytest.mark.parametrize("how", ["checkpoint", "release", "move", "delay"])
def test_a_new_body_starts_with_no_deaths(broker: Broker, short: float, how: str) -> None:
    put(broker)
    take_one(broker, lease_for=short)
    died = take_one(broker, wait=10, lease_for=short)
    assert died.deaths == 1

    queue = "other" if how == "move" else QUEUE
    if how == "checkpoint":
        assert broker.checkpoint([write(died)]) == frozenset()
        expected = 1  # the lease goes on, and its end is one death of the new body
    else:
        delay = short if how == "delay" else 0.0
        assert broker.release([write(died, queue=queue, delay=delay)]) == frozenset()
        expected = 0

    assert take_one(broker, queue=queue, wait=10).deaths == expected


def test_a_repeated_checkpoint_takes_no_death_away(broker: Broker, short: float) -> None:
    """Else a task whose worker dies after every delayed repeat would never reach the poison breaker."""
    put(broker)
    lease = take_one(broker, lease_for=short)
    broker.checkpoint([write(lease, seq=1)])
    died = take_one(broker, wait=10, lease_for=short)
    assert died.deaths == 1
    assert broker.checkpoint([write(lease, seq=1)]) == {lease.receipt}
    assert take_one(broker, wait=10).deaths == 2


def test_an_extend_keeps_the_deaths(broker: Broker, short: float) -> None:
    put(broker)
    take_one(broker, lease_for=short)
    died = take_one(broker, wait=10)
    broker.extend([died], lease_for=short)
    assert take_one(broker, wait=10).deaths == 2


def test_acquire_by_id_counts_deaths_too(broker: Broker, short: float) -> None:
    (sent,) = put(broker)
    let_end([take_one(broker, lease_for=short, task_id=sent)])
    assert take_one(broker, task_id=sent).deaths == 1


# -- extend -------------------------------------------------------------------------------------


def test_extend_makes_a_lease_last_from_now(broker: Broker, short: float) -> None:
    put(broker)
    lease = take_one(broker, lease_for=short)
    assert broker.extend([lease], lease_for=3 * short) == frozenset()
    extended = time.monotonic()
    assert take_one(broker, wait=10).deaths == 1
    assert 3 * short * 0.98 <= time.monotonic() - extended < 3 * short + broker.limits.recovery + 0.7


def test_extend_can_shorten_a_lease(broker: Broker, short: float) -> None:
    put(broker)
    lease = take_one(broker, lease_for=LONG)
    assert broker.extend([lease], lease_for=short) == frozenset()
    assert take_one(broker, wait=10).deaths == 1


def test_extends_hold_a_lease_for_as_long_as_they_come(broker: Broker, short: float) -> None:
    put(broker)
    lease = take_one(broker, lease_for=short * 2)
    end = time.monotonic() + short * 3.5
    while time.monotonic() < end:
        assert broker.extend([lease], lease_for=short * 2) == frozenset()
        assert take(broker, wait=short / 2) == []
    assert broker.ack([write(lease)], keep_for=0) == frozenset()


def test_extend_names_the_receipts_that_no_longer_hold(broker: Broker) -> None:
    put(broker, 2)
    leases = take(broker, 2)
    broker.ack([write(leases[0])], keep_for=0)
    assert broker.extend(leases, lease_for=LONG) <= {leases[0].receipt}  # it may be incomplete
    assert broker.stats(QUEUE) == stats(leased=1)


# -- receipts -----------------------------------------------------------------------------------


def test_a_receipt_is_never_used_twice(broker: Broker, short: float) -> None:
    put(broker, 20)
    receipts: list[str] = []
    for _ in range(5):
        leases = take(broker, 20)
        receipts += [lease.receipt for lease in leases]
        broker.release([write(lease) for lease in leases])
    put(broker)
    receipts += [take_one(broker, wait=10, lease_for=short).receipt for _ in range(1)]
    assert len(set(receipts)) == len(receipts) == 101


def test_a_late_write_that_comes_before_the_takeover_is_accepted(broker: Broker, short: float) -> None:
    put(broker, len(WRITES))
    leases = dict(zip(WRITES, take(broker, len(WRITES), lease_for=short), strict=True))
    let_end(leases.values())
    for name, lease in leases.items():
        assert WRITES[name](broker, lease, 1) == frozenset(), name

        record = broker.get([lease.envelope.id])[lease.envelope.id]
        state = {"release": State.READY, "ack": State.DONE}.get(name, State.LEASED)
        assert (record.state, record.body) == (state, b"body" if name == "extend" else b"written"), name


def test_a_write_after_the_takeover_is_refused_and_changes_nothing(broker: Broker, short: float) -> None:
    count = len(WRITES)
    put(broker, count)
    old = take(broker, count, lease_for=short)
    let_end(old)
    new = {lease.envelope.id: lease for lease in take(broker, count)}
    before = broker.get(list(new))
    for name, lease in zip(WRITES, old, strict=True):
        assert WRITES[name](broker, lease, 1) == {lease.receipt}, name
        assert broker.get(list(new)) == before, name
        assert broker.stats(QUEUE) == stats(leased=count), name
    for name, lease in zip(WRITES, old, strict=True):
        assert WRITES[name](broker, new[lease.envelope.id], 1) == frozenset(), name


def test_the_old_holders_extend_doesnt_lengthen_the_new_holders_lease(broker: Broker, short: float) -> None:
    put(broker)
    old = take_one(broker, lease_for=short)
    take_one(broker, wait=10, lease_for=short)
    broker.extend([old], lease_for=LONG)
    assert take_one(broker, wait=10).deaths == 2


@each_write
@pytest.mark.parametrize("forgery", ["receipt", "id", "empty"])
def test_a_forged_receipt_is_refused(broker: Broker, name: str, forgery: str) -> None:
    sent, other = put(broker, 2)
    lease, another = take(broker, 2)
    forged = {
        "receipt": Lease(
            envelope=lease.envelope, receipt=f"{lease.receipt}1", deaths=0, deadline=lease.deadline
        ),
        "id": Lease(envelope=lease.envelope, receipt=another.receipt, deaths=0, deadline=lease.deadline),
        "empty": Lease(envelope=lease.envelope, receipt="", deaths=0, deadline=lease.deadline),
    }[forgery]
    before = broker.get([sent, other])

    assert WRITES[name](broker, forged, 1) == {forged.receipt}

    assert broker.get([sent, other]) == before
    assert broker.stats(QUEUE) == stats(leased=2)


@each_write
def test_an_empty_receipt_opens_no_task_that_nobody_holds(broker: Broker, name: str) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    broker.release([write(lease)])
    forged = Lease(envelope=lease.envelope, receipt="", deaths=0, deadline=lease.deadline)
    assert WRITES[name](broker, forged, 1) == {""}
    assert broker.get([sent])[sent].state is State.READY


@each_write
@pytest.mark.parametrize("end", ["release", "delay", "move", "ack", "ack and keep", "cancel"])
def test_a_receipt_ends_with_its_lease(broker: Broker, name: str, end: str) -> None:
    if end == "cancel" and Capability.CANCEL not in broker.capabilities:
        pytest.skip(f"{type(broker).__name__} doesn't claim CANCEL")
    (sent,) = put(broker)
    lease = take_one(broker)
    if end == "cancel":
        assert list(broker.cancel([sent], keep_for=LONG)) == [sent]
    elif end.startswith("ack"):
        broker.ack([write(lease)], keep_for=LONG if "keep" in end else 0)
    else:
        delay, queue = (LONG if end == "delay" else 0.0), ("other" if end == "move" else None)
        broker.release([write(lease, delay=delay, queue=queue)])
    before = broker.get([sent]), broker.stats(QUEUE), broker.stats("other")

    assert WRITES[name](broker, lease, 2) == {lease.receipt}

    assert (broker.get([sent]), broker.stats(QUEUE), broker.stats("other")) == before


def test_leases_are_equal_by_their_receipt(broker: Broker) -> None:
    put(broker, 2)
    first, second = take(broker, 2)
    copy = Lease(envelope=second.envelope, receipt=first.receipt, deaths=7, deadline=0.0)
    assert first == copy
    assert first != second
    assert len({first, copy, second}) == 2


def test_a_lease_that_is_over_counts_as_leased_until_it_is_taken_over(broker: Broker, short: float) -> None:
    put(broker)
    let_end([take_one(broker, lease_for=short)])
    assert broker.stats(QUEUE) == stats(leased=1)
    take_one(broker)
    assert broker.stats(QUEUE) == stats(leased=1)
