"""Rows: durability. What a broker has confirmed outlives a restart, or even a kill, of what stores it."""

from __future__ import annotations

import secrets
import time

from gotasks.broker import Capability, State
from gotasks.conformance.adapter import EmbeddedServer, Server
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.crew import Crew
from gotasks.conformance.kit.elsewhere import Elsewhere
from gotasks.conformance.kit.storm import Storm
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene, ids_of


@row("SRV-01", durability="restart", timeout=150)
def all_that_a_queue_holds_outlives_a_restart(it: Scene) -> None:
    """Given tasks that are ready, scheduled, held, in the fatal queue and done, and one that was checkpointed and
    whose holders then died, when the server is stopped in an orderly way and started again, then all are where they
    were: in their order, under the same receipts where leases have a time, with their bodies and their deaths.
    """
    server = it.server()
    client = it.client_of(server)
    ready, held, dying, scheduled = (it.name(word) for word in ("ready", "held", "dying", "scheduled"))
    # A receipt outlives the restart if neither a connection nor an embedded broker's process has to.
    keeps_leases = it.claims(Capability.TIMED_LEASE) and not isinstance(server, EmbeddedServer)
    waiting = it.put(3, by=client, queue=ready)
    deaths = _die(it, server, client, dying)
    if it.claims(Capability.DELAY):
        it.put(by=client, queue=scheduled, delay=it.later)
    it.put(by=client)
    it_failed = it.write(it.take_one(by=client), b"failed", queue=it.fatal)
    client.release([it_failed])
    (done,) = it.put(by=client)
    client.ack(
        [it.write(it.take_one(by=client), b"done")], keep_for=LONG if it.claims(Capability.RECORDS) else 0
    )
    it.put(by=client, queue=held)
    lease = it.take_one(by=client, queue=held, lease_for=LONG if keeps_leases else it.lease)

    server.stop()
    server.start()
    client = it.again(server, client)

    if keeps_leases:
        lost = client.ack([it.write(lease)], keep_for=0)
        expect(not lost, "an ack after the restart is lost: the receipts of held tasks were forgotten")
    else:
        again = it.take_one(by=client, queue=held, wait=it.lease + it.grace)
        expect_equal(again.deaths, 1, "deaths of a task whose holder ended with the restart")
    found = ids_of(it.drain(by=client, queue=ready))
    if not it.limits.fifo:
        found.sort(), waiting.sort()
    expect_equal(found, waiting, "ready tasks after the restart")
    expect_equal(
        [each.envelope.body for each in it.take(by=client, queue=it.fatal)], [b"failed"], "the fatal queue"
    )
    survivor = it.take_one(by=client, queue=dying, wait=it.grace)
    expect_equal(
        survivor.envelope.body, b"reached", "the body of a task that was checkpointed before the restart"
    )
    expect_equal(survivor.deaths, deaths, "the deaths of a task whose holders died before the restart")
    if it.claims(Capability.DELAY):
        expect(
            client.stats(scheduled).scheduled in (1, None), "a scheduled task isn't there after the restart"
        )
    if it.claims(Capability.RECORDS):
        record = client.get([done]).get(done)
        expect(
            record is not None and (record.state, record.body) == (State.DONE, b"done"),
            f"the record of a done task is {record} after the restart",
        )


def _die(it: Scene, server: Server, client: Elsewhere, queue: str) -> int:
    """One task that is checkpointed, and whose holders then die; how often that counts."""
    it.put(by=client, queue=queue, body=b"old")
    deaths = 0
    for number in range(2):
        holder = client if it.claims(Capability.TIMED_LEASE) else it.client_of(server)
        lease = it.take_one(by=holder, queue=queue, lease_for=it.lease, wait=it.grace)
        if number == 0:
            holder.checkpoint([it.write(lease, b"reached")])
        if number > 0 or not it.claims(Capability.HANDOFF):
            it.abandon([lease], by=holder)
            deaths += 1
    return deaths


@row("SRV-02", durability="kill", timeout=150)
def what_was_confirmed_outlives_kills_under_load(it: Scene) -> None:
    """Given several clients that enqueue, acquire, checkpoint, release and ack, when the server gets SIGKILL in the
    midst of that and is started again, several times, then the clients go on by themselves, and at the end no
    confirmed task is missing, and none has another body than one that was written. A task whose ack was confirmed
    isn't offered again, nor an older body than the last confirmed one, nor a second copy; with
    `server_crash_duplicates="bounded"` each kill may leave that of as many as were being written.
    """
    storm = Storm(it, clients=3 if it.claims(Capability.SHARED) else 1)
    kills = it.times(quick=3, full=10)
    for _ in range(kills):
        storm.work(it.random.randint(20, 120))
        storm.kill()
    storm.work(20)
    accounts = storm.end()
    confirmed = sum(each.confirmed for each in accounts)
    missing = [sentence for each in accounts for sentence in each.missing]
    torn = [sentence for each in accounts for sentence in each.torn]
    old = [sentence for each in accounts for sentence in [*each.back, *each.older]]
    copies = sum(each.copies for each in accounts)
    it.figures |= {
        "kills": kills,
        "confirmed": confirmed,
        "missing": len(missing),
        "old": len(old),
        "copies": copies,
    }
    expect(
        not missing, f"{len(missing)} confirmed tasks are gone after {kills} kills: {', '.join(missing[:3])}"
    )
    expect(
        not torn,
        f"{len(torn)} tasks have a body that nobody wrote after {kills} kills: {', '.join(torn[:3])}",
    )
    allowed = 0 if it.limits.server_crash_duplicates == "none" else 2 * len(accounts) * kills
    expect(
        len(old) + copies <= allowed,
        f"after {kills} kills {len(old)} tasks are offered as they were before a confirmed write, and {copies} are"
        f" there twice; {allowed} may be: {', '.join(old[:3])}",
    )


@row("CKP-08", durability="kill", timeout=150)
def a_checkpoint_outlives_a_kill_that_follows_it_at_once(it: Scene) -> None:
    """Given a held task, when a checkpoint of it has returned and the server gets SIGKILL right then, then after a
    new start the task is there with the new body; with small bodies and with some that fill several blocks.
    """
    server = it.server()
    client = it.client_of(server)
    expected: dict[str, bytes] = {}
    for number in range(it.times(quick=2, full=20)):
        for size in (300, 20_000):
            queue = it.name(f"kill-{number}-{size}")
            it.put(by=client, queue=queue, body=b"old")
            lease = it.take_one(by=client, queue=queue, lease_for=it.lease)
            expected[queue] = secrets.token_bytes(min(size, it.limits.max_payload or size))
            client.checkpoint([it.write(lease, expected[queue])])
            server.kill()
            server.start()
            client = it.again(server, client)
    wrong = []
    over = time.monotonic() + it.lease + it.grace
    for queue, body in expected.items():
        found = it.take(by=client, queue=queue, wait=max(0.0, over - time.monotonic()))
        if [each.envelope.body for each in found] != [body]:
            wrong.append("an older one" if found else "gone")
    it.figures |= {"kills": len(expected), "lost": len(wrong)}
    expect(
        not wrong,
        f"of {len(expected)} tasks whose checkpoint had returned before a kill, {wrong.count('gone')} are gone and"
        f" {wrong.count('an older one')} have another body",
    )


@row("DLY-04", needs=Capability.DELAY, durability="restart", timeout=150)
def a_delay_goes_on_over_a_restart(it: Scene) -> None:
    """Given a task with a delay of which half is over, when the server is restarted, then it is offered when its
    delay is over: not before, and not a second later.
    """
    server = it.server()
    delay = 2.4
    while True:
        client = it.client_of(server)  # a new one each time: what another call would use was cut, too
        asked = time.monotonic()
        (task,) = it.put(by=client, delay=delay)
        put = time.monotonic()
        # Nothing but the clock can tell when half of it is over.
        time.sleep(delay / 2)
        server.stop()
        server.start()
        client = it.again(server, client)
        back = time.monotonic()
        leases = it.take(by=client, wait=delay + it.grace)
        came = time.monotonic()
        if back < asked + delay or delay > 2.4:
            break
        delay *= 4  # this restart took so long that nothing could be seen
    expect_equal(ids_of(leases), [task], "the delayed task after the restart")
    expect(
        came >= asked + delay, f"it came {came - asked:.2f} s after its enqueue, whose delay was {delay:g} s"
    )
    late = came - max(put + delay, back)
    it.figures["late"] = round(late, 3)
    expect(late <= 1.0, f"it came {late:.2f} s after its delay was over, as if that had begun anew")


@row("NRE-07", durability="kill", processes=True, timeout=150)
def no_plain_step_starts_twice_though_the_server_is_killed(it: Scene) -> None:
    """Given worker processes that run chains, when their server gets SIGKILL again and again and is started anew, then
    the workers go on by themselves, every task is done or in doubt in the fatal queue, and no step that isn't
    reentrant is started twice. With `server_crash_duplicates="bounded"` the row says how many were.
    """
    server = it.server()
    crew: Crew = it.enter(
        Crew(
            it.directory,
            server.url,
            [it.queue],
            fatal=it.fatal,
            broker_class=it.adapter.broker_class,
            lease=max(2 * it.lease, 1.0),
            max_crashes=100,  # the kills are the row's, not the tasks'
        )
    )
    kills, workers = it.times(quick=2, full=10), 2
    crew.enqueue_many("storm-plain", 25 * (kills + 1), ms=20)
    for kill in range(kills + 1):
        if kill == 0 or isinstance(server, EmbeddedServer):
            begun = [crew.start() for _ in range(workers)]
            if isinstance(server, EmbeddedServer):
                server.clients += begun
        goal = len(crew.history.update().find("end")) + it.random.randint(15, 45)
        crew.until(lambda history: len(history.find("end")) >= goal, "workers that go on")  # noqa: B023
        if kill < kills:
            server.kill()
            server.start()
    crew.settled(timeout=60)
    account = crew.account()
    doubled, doubts = account.doubled(), [end for end in account.ends.values() if end.status == "fatal"]
    it.figures |= {
        "kills": kills,
        "tasks": len(crew.expected),
        "twice": len(doubled),
        "in doubt": len(doubts),
    }
    problems = account.problems() if it.limits.server_crash_duplicates == "none" else account.lost()
    expect(not problems, f"after {kills} kills of the server: {'; '.join(problems[:5])}")
