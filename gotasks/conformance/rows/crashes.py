"""Rows: crashes. Real worker processes are killed, stopped and frozen; their chains go on, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections import Counter

from gotasks.broker import Capability
from gotasks.conformance.expect import Nonconformance, expect, expect_equal
from gotasks.conformance.kit.crew import Crew
from gotasks.conformance.kit.process import Process
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene
from gotasks.settings import QueueOptions


@row("CRS-01", engine=True, processes=True)
def a_task_whose_worker_was_killed_in_a_reentrant_handler_is_done_once(it: Scene) -> None:
    """Given a worker process that is killed while it runs a reentrant handler, when its lease is over, another worker
    gets the task with the args that it had, and finishes it.
    """
    crew = Crew.of(it)
    task = crew.enqueue("errand-reentrant")
    crew.start(killpoint="in_step:1").killed()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after a kill in a reentrant handler")
    expect_equal(
        crew.starts(task), [0, 0], "the steps that were started, by the killed worker and by the other"
    )


@row("CRS-02", engine=True, processes=True)
def a_task_that_was_leased_to_a_worker_which_never_saw_it_is_not_lost(it: Scene) -> None:
    """Given an `acquire` that the server has carried out, when the worker is killed before it sees the reply, then the
    tasks are offered again as after a death: a reentrant one is done, another one may lie in the fatal queue in doubt.
    """
    crew = Crew.of(it)
    crew.enqueue_many("errand-reentrant", 3)
    crew.enqueue_many("errand", 3)
    crew.start(killpoint="acquired:1").killed()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after a kill between the server's lease and its arrival")


@row("CRS-03", engine=True, processes=True)
def a_chain_goes_on_after_its_last_confirmed_checkpoint(it: Scene) -> None:
    """Given a worker that is killed as soon as `checkpoint` has returned, when another one gets the task, it is at the
    next step with the args that the completed one made, and no completed step is run again.
    """
    crew = Crew.of(it)
    task = crew.enqueue("storm-reentrant")
    crew.start(killpoint="after_checkpoint:2", limit=1).killed()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after a kill right behind a checkpoint")
    expect_equal(crew.starts(task), [0, 1, 2], "the steps that were started")


@row("CRS-04", engine=True, processes=True)
def a_kill_around_the_ack_repeats_the_last_step_at_the_most(it: Scene) -> None:
    """Given workers that are killed right before the ack of a chain is sent, and right after it has returned, then the
    first chain's last step is run again and nothing else, and nothing at all of the second one.
    """
    before, after = it.name("before"), it.name("after")
    crew = Crew.of(it, before, after)
    tasks = {queue: crew.enqueue("storm-reentrant", queue=queue) for queue in crew.queues}
    victims = [crew.start(before, killpoint="before_ack:1"), crew.start(after, killpoint="after_ack:1")]
    for victim in victims:
        victim.killed()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after kills around an ack")
    expect_equal(
        {queue: crew.starts(task) for queue, task in tasks.items()},
        {before: [0, 1, 2, 2], after: [0, 1, 2]},
        "the steps that were started, of the chain killed before its ack and of the one killed after",
    )


#: Each place around the move of a failed task. Without ATOMIC_MOVE it takes two writes.
_BURY = ("before_release:1", "after_release:1", "before_release:2", "after_release:2")


@row("CRS-05", engine=True, processes=True)
def a_kill_around_a_bury_leaves_the_task_in_one_place(it: Scene) -> None:
    """Given workers that are killed right before and right after each write that moves a failed task to the fatal
    queue, when others go on, then each task lies in the fatal queue once, and nowhere else.
    """
    points = _BURY[:2] if it.claims(Capability.ATOMIC_MOVE) else _BURY
    queues = {it.name(point.replace(":", "-")): point for point in points}
    crew = Crew.of(it, *queues)
    tasks = [crew.enqueue("failing", queue=queue) for queue in queues]
    victims = [crew.start(queue, killpoint=point, limit=1) for queue, point in queues.items()]
    for victim in victims:
        victim.killed()
    crew.start(lease=LONG)
    crew.settled()
    found = crew.ends()
    expect_equal(
        {queue: (found[task].status, found[task].copies) for queue, task in zip(queues, tasks, strict=True)},
        dict.fromkeys(queues, ("fatal", 1)),
        "where the tasks are after a kill around their burial, and in how many places",
    )
    starts = Counter((each.task, each.step) for each in crew.history.find("start"))
    expect_equal(set(starts.values()), {1}, "how often each step was started, none of them after a death")


@row("CRS-06", engine=True, processes=True, timeout=150)
def a_storm_of_kills_loses_and_doubles_nothing(it: Scene) -> None:
    """Given workers that run chains of four steps, two of them reentrant, when one worker after the other is killed at
    any moment and replaced, then every task is done or lies in the fatal queue in doubt at the step that was running;
    no other step than a reentrant one was started twice, and none below a confirmed checkpoint.
    """
    workers, few = it.times(quick=2, full=4), it.times(quick=20, full=100)
    seconds, least = it.times(quick=2, full=35), it.times(quick=3, full=10)
    crew = Crew.of(it, max_crashes=1000)  # the kills are the row's, not the tasks'
    began = time.monotonic()
    crew.enqueue_many("four-steps", 2 * few)
    fleet = [crew.start() for _ in range(workers)]
    kills = hit = 0
    while kills < least or time.monotonic() - began < seconds:
        crew.until(lambda _: _all_work(crew, fleet, few), "every worker has started a handler")
        time.sleep(it.random.uniform(0, 0.5))
        victim = fleet.pop(it.random.randrange(len(fleet)))
        victim.kill()
        kills += 1
        hit += len(crew.history.update().running(victim.pid))
        fleet.append(crew.start())
    raged = time.monotonic() - began
    crew.settled(timeout=60)
    account = crew.account()
    in_doubt = sum(end.status == "fatal" for end in account.ends.values())
    starts = Counter((each.task, each.step) for each in crew.history.find("start"))
    it.figures.update(
        tasks=len(crew.expected),
        kills=kills,
        handlers_killed=hit,
        lost=len(account.lost()),
        doubled=len(account.doubled()) + len(account.duplicated()),
        unexpected=len(account.unexpected()),
        below_checkpoint=len(account.rewound()) + len(account.strayed()),
        in_doubt=in_doubt,
        reentrant_steps_again=sum(count - 1 for count in starts.values()),
        seconds_of_kills=round(raged, 1),
        seconds_until_calm=round(time.monotonic() - began, 1),
    )
    expect_equal(account.problems()[:10], [], f"what is wrong after {kills} kills")


def _all_work(crew: Crew, fleet: list[Process], few: int) -> bool:
    """Whether each of these has begun with a task. There are always some that nobody has."""
    crew.history.update()
    for each in fleet:
        if not each.alive:
            raise Nonconformance(f"a worker ended by itself; it said: {each.output[-1000:]}")
    if len(crew.expected) - len({each.task for each in crew.history.find("start")}) < few:
        crew.enqueue_many("four-steps", few)
    return all(crew.history.consumes(each.pid) for each in fleet)


@row("CRS-07", engine=True, processes=True)
def a_stop_gives_back_what_was_not_begun(it: Scene) -> None:
    """Given a worker to which tasks were leased that it hasn't begun, when it gets SIGTERM, it gives them back and
    ends; they are offered at once, all of them, and no death is counted.
    """
    crew = Crew.of(it)
    tasks = crew.enqueue_many("errand", 12)
    worker = crew.start(limit=8, lease=LONG, killpoint="acquired:1:hold")
    crew.until(lambda history: history.find("killpoint"), "tasks are leased to the worker")
    worker.signal(signal.SIGTERM)
    code = worker.wait()
    expect_equal(code, 0, "the exit code of a worker that was told to stop")
    leases = it.take_all(len(tasks), wait=1.0)
    expect_equal(
        {lease.envelope.id: lease.deaths for lease in leases},
        dict.fromkeys(tasks, 0),
        "the tasks that are offered after the stop, and their deaths",
    )


@row("CRS-08", engine=True, processes=True, title="a zombie's late writes are refused")
def a_zombies_late_writes_are_refused(it: Scene) -> None:
    """Given workers that stand still inside a handler, and right before a checkpoint, an ack and a release, until
    another worker has taken their tasks, when they go on, then what they write is lost, and they learn of it; the
    other worker finishes the tasks as if nothing had been.
    """
    jobs = {
        "in_step": "late-reentrant",
        "before_checkpoint": "late-reentrant",
        "before_ack": "late-reentrant-last",
        "before_release": "late-reentrant",
    }
    queues = {it.name(point): point for point in jobs}
    crew = Crew.of(it, *queues)
    gate = crew.gate()
    for queue, point in queues.items():
        crew.enqueue(jobs[point], queue=queue, gate=str(gate), fails=point == "before_release")
    zombies = start_zombies(it, crew, {queue: f"{point}:1:stop" for queue, point in queues.items()})
    other = crew.start(lease=LONG)
    crew.until(
        lambda history: len(history.find("start", pid=other.pid)) == len(jobs),
        "another worker has all the tasks",
    )
    for zombie in zombies:
        zombie.thaw()
    lost = answers_to(crew, zombies, "lost")
    expect_equal(
        lost, set(crew.expected), "the tasks of which their old holders have learnt that they are lost"
    )
    for zombie in zombies:
        zombie.signal(signal.SIGTERM)
    expect_equal(
        [zombie.wait() for zombie in zombies], [0] * 4, "the exit codes of the zombies after a SIGTERM"
    )
    gate.touch()
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after the late writes of zombies")
    by_zombies = [each.task for each in crew.history.find("done") if each.pid != other.pid]
    expect_equal(by_zombies, [], "the tasks that a zombie has ended")


def start_zombies(it: Scene, crew: Crew, points: dict[str, str]) -> list[Process]:
    """Workers, each for one queue, that stand still at their points; what they hold is offered again from now on."""
    # A process that stands still keeps its connections, and so leases that have no time.
    proxy, url = (None, None) if it.claims(Capability.TIMED_LEASE) else it.proxy()
    zombies = [crew.start(queue, killpoint=point, url=url) for queue, point in points.items()]
    for zombie in zombies:
        zombie.frozen()
    if proxy is not None:
        proxy.cut()
    return zombies


def answers_to(crew: Crew, zombies: list[Process], what: str) -> set[str]:
    """Wait until what each zombie does late is answered; the tasks of which it was told `what`."""
    pids = {zombie.pid for zombie in zombies}

    def answered(*kinds: str) -> set[str]:
        entries = crew.history.update().entries
        return {each.task for each in entries if each.pid in pids and each.what in kinds}

    crew.until(
        lambda _: answered(what, "confirmed", "done", "buried") == set(crew.expected),
        "each worker that stood still goes on, and what it does is answered",
    )
    return answered(what)


@row("CRS-09", engine=True, processes=True)
def a_task_that_kills_its_workers_ends_in_the_fatal_queue(it: Scene) -> None:
    """Given a task whose reentrant handler kills its worker, when it has done so `max_crashes` times, the next worker
    moves it to the fatal queue with that reason; the tasks beside it are done.
    """
    crew = Crew.of(it)
    # It takes its time, so that what is given back for its sake is back before the worker dies, on a busy machine too.
    poison = crew.enqueue("poison-reentrant", ms=400)
    errands = crew.enqueue_many("errand-reentrant", 5)
    most = QueueOptions().max_crashes
    deaths = 0
    worker = crew.start()
    while not crew.at_rest() and deaths <= most:
        if not worker.alive:
            deaths += 1
            worker = crew.start()
        time.sleep(0.02)  # between two looks at what other processes do
    it.figures["deaths"] = deaths
    expect_equal(deaths, most, "the workers that a task killed before it was moved to the fatal queue")
    found = crew.ends()
    expect_equal(
        (found[poison].status, found[poison].outcome, found[poison].step),
        ("fatal", "crashed", "poison"),
        "where the task is that kills its workers, why, and at which step",
    )
    expect_equal({found[task].status for task in errands}, {"done"}, "what became of the tasks beside it")


@row("CRS-10", engine=True, processes=True)
def a_worker_that_is_killed_while_it_stops_has_crashed(it: Scene) -> None:
    """Given workers that have got SIGTERM and wait for a running handler, when one gets a second signal and the other
    SIGKILL, then their tasks come back as after any crash: reentrant steps are run again, others are in doubt.
    """
    crew = Crew.of(it, it.name("signalled"), it.name("killed"))
    gate = crew.gate()
    for queue in crew.queues:
        crew.enqueue("gated-plain", queue=queue, gate=str(gate))
        crew.enqueue("gated-reentrant", queue=queue, gate=str(gate))
    signalled, killed = (crew.start(queue) for queue in crew.queues)
    crew.until(lambda history: sum(each.step == 1 for each in history.find("start")) >= 4, "the handlers run")
    for worker in (signalled, killed):
        worker.stop()
    signalled.signal(signal.SIGTERM)
    killed.kill()
    expect_equal(signalled.wait(), 128 + signal.SIGTERM, "the exit code of a worker after a second SIGTERM")
    gate.touch()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after workers were killed while they stopped")
    found = Counter(end.status for end in crew.ends().values())
    expect_equal(dict(found), {"done": 2, "fatal": 2}, "how the reentrant and the other tasks ended")


@row("CRS-11", engine=True, processes=True, title="a stopped worker's chain goes on elsewhere")
def a_stopped_workers_chain_goes_on_elsewhere(it: Scene) -> None:
    """Given a worker that gets SIGTERM in the middle of a chain, when its running handler has returned, the task is
    given back with that result in one write: another worker goes on with the next step, and no death is counted.
    """
    crew = Crew.of(it)
    gate = crew.gate()
    task = crew.enqueue("gated-plain", gate=str(gate))
    worker = crew.start(lease=LONG)
    crew.until(lambda history: history.steps(task) == [0, 1], "the second step runs")
    worker.stop()
    gate.touch()
    expect_equal(worker.wait(), 0, "the exit code of a worker that was told to stop")
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(crew.problems(), [], "what is wrong after a worker was stopped in the middle of a chain")
    deaths = [each.count for each in crew.history.find("crashed")]
    expect_equal(deaths, [], "the deaths that were counted after a clean stop")
    expect(
        crew.history.steps(task, pid=worker.pid) == [0, 1],
        f"the stopping worker started {crew.history.steps(task, pid=worker.pid)}: none may follow the signal",
    )
