"""Rows: machine. Whatever is done, in whatever order, a broker answers as the model of the contract does."""

from __future__ import annotations

from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene

#: How many calls there are in one example, and a few more where one needs another first.
_STEPS = 50


@row("FSM-01", timeout=120)
def random_calls_are_answered_as_the_model_answers_them(it: Scene) -> None:
    """Given two clients that enqueue, acquire, extend, checkpoint, ack, release, move, put off, die, repeat old writes,
    purge, and look, at random, every answer is one that the contract allows after those before. In the end everything
    that should have come back has come back, and nothing is left.
    """
    from gotasks.conformance.kit.machine import run

    examples, crashes = it.times(quick=12, full=40), it.times(quick=11, full=30)
    it.figures["calls"] = examples * _STEPS
    run(it, [it.broker, it.client()], examples=examples, steps=_STEPS, crashes=crashes)


@row("FSM-02", timeout=180)
def random_calls_that_are_cut_leave_one_of_the_states_that_can_be(it: Scene) -> None:
    """Given clients whose connections break in the middle of calls, at a random byte, when they go on at random, every
    answer is one that the contract allows if the calls that were cut were carried out, or weren't.
    """
    from gotasks.conformance.kit.machine import run

    proxy, url = it.proxy()
    examples, steps = it.times(quick=6, full=20), _STEPS // 2
    it.figures["calls"] = examples * steps
    run(it, [it.client(url), it.client(url)], examples=examples, steps=steps, crashes=0, proxy=proxy)
