"""Rows: capabilities, limits, URLs. A broker is what it says, and refuses what it isn't."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit, urlunsplit

from gotasks.broker import BROKER_API, BrokerURL, Capability
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import Nonconformance, expect, expect_equal
from gotasks.conformance.refusals import refuse
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of
from gotasks.errors import InvalidURL

#: A parameter that no broker has, and a password that nobody uses.
UNKNOWN, SECRET = "gotasks_no_such_parameter", "pw-4e1c9d70"

#: So many items at the most are put into one call: `limits.max_batch` may be as large as it likes.
MANY = 20_000


@row("CAP-01")
def what_is_not_claimed_is_refused(it: Scene) -> None:
    """Given the capabilities that a broker doesn't claim, when they are asked for, it raises Unsupported and
    has stored and changed nothing. What can't be asked for (leases with a time, queues that others share) isn't
    there either.
    """
    missing = [each for each in Capability if not it.claims(each)]
    for each in missing:
        refuse(it, each)
    it.figures["unclaimed"] = ", ".join(str(each.name) for each in missing)


@row("CAP-03")
def limits_and_capabilities_are_the_same_for_each_broker_of_a_url(it: Scene) -> None:
    """Given two brokers of one URL, they claim the same capabilities and state the same limits. One call takes
    `limits.max_batch` items, and an `acquire` with a higher limit than that gives no more than were asked for.
    """
    other = it.client(it.url)
    expect_equal(other.capabilities, it.capabilities, "capabilities of a second broker of the URL")
    expect_equal(other.limits, it.limits, "limits of a second broker of the URL")
    most = min(it.limits.max_batch, MANY)
    sent = [it.envelope() for _ in range(most)]
    it.broker.enqueue(sent)
    leases = it.take(most)
    lost = it.broker.extend(leases, lease_for=it.long) | it.broker.release(
        [it.write(each) for each in leases]
    )
    leases = it.take(most + 1)
    lost |= it.broker.ack([it.write(each, seq=2) for each in leases], keep_for=0)
    expect_equal(
        (len(leases), len(lost)), (most, 0), "tasks that came, and that were lost, of a call of max_batch"
    )


@row("CAP-04")
def a_url_that_is_not_understood_is_refused(it: Scene) -> None:
    """Given a URL with a parameter that the broker doesn't have, `from_url` raises InvalidURL, so that no typo
    is without effect. The class states the version of the contract that it was written for.
    """
    sign = "&" if urlsplit(it.url).query else "?"
    try:
        it.adapter.open(f"{it.url}{sign}{UNKNOWN}=1").close()
        refused = False
    except InvalidURL:
        refused = True
    expect(refused, f"from_url took a URL with ?{UNKNOWN}=1; it has to raise InvalidURL (call url.only(…))")
    expect_equal(type(it.broker).api, BROKER_API, "the contract version that the class states (`api`)")


@row("CAP-05")
def from_url_does_not_connect(it: Scene) -> None:
    """Given a URL, `from_url` opens no connection, so that a program may make its broker where there is no
    server.
    """
    proxy, url = it.proxy()
    broker = it.client(url)
    threading.Event().wait(0.05)  # what it might have opened is accepted by then
    opened = proxy.open
    broker.stats(it.queue)  # else nobody knows that its connections come by here
    if not proxy.open:
        raise Nonconformance(
            "no connection came by the proxy: the adapter's through(url, port) leads past it"
        )
    expect_equal(opened, 0, "connections that from_url opened")


@row("CAP-06")
def a_broker_does_not_show_its_password(it: Scene) -> None:
    """Given a URL with a password, then neither the broker's `repr` and `str` nor the error for a URL that
    isn't understood contains it.
    """
    parts = urlsplit(it.url)
    if not BrokerURL(it.url).hosts:
        raise NotApplicable("its URL has no host, so no password either")
    host = parts.netloc.rpartition("@")[2]
    secret = urlunsplit(parts._replace(netloc=f"user:{SECRET}@{host}"))
    shown = ""
    try:
        broker = it.adapter.open(secret)
        shown = f"{broker!r} {broker}"
        broker.close()
        it.adapter.open(f"{secret}{'&' if parts.query else '?'}{UNKNOWN}=1").close()
    except InvalidURL as error:
        shown += f" {error!r} {error} {error.__cause__!r}"
    expect(SECRET not in shown, f"the password of a URL is shown: {shown}")


@row("CAP-07", needs=Capability.SHARED)
def every_broker_of_a_url_sees_the_same_queues(it: Scene) -> None:
    """Given two brokers of one URL, what one enqueues the other acquires, and while it holds that, the first
    one doesn't.
    """
    sent = it.put(3)
    other = it.client()
    came = ids_of(it.take_all(2, by=other))
    rest = ids_of(it.take_all(3))
    seen, right = (len(came), sorted([*came, *rest])), (2, sorted(sent))
    expect_equal(seen, right, "how many of three a second broker acquired, and the ids that both acquired")
