"""Rows: forks. A client that was opened before a fork serves both processes, and the parent's leases are its own."""

from __future__ import annotations

import os

from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.elsewhere import Elsewhere
from gotasks.conformance.kit.forks import fork_amid_calls, fork_with_leases
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene


@row("FRK-01", title="a child of a fork works and has none of its parent's leases")
def a_child_of_a_fork_works_and_has_none_of_its_parents_leases(it: Scene) -> None:
    """Given a process that has a client and holds leases, when it forks, both processes work on with the client, at the
    same time. What the child writes under its parent's leases is lost and changes nothing.
    """
    there = _process(it)
    rounds = it.times(quick=20, full=200)
    seen = there.call(fork_with_leases, it.queue, it.name("parent"), it.name("child"), rounds)
    worked = {"the parent": seen["parent"], "the child": seen["child"]}
    expect_equal(worked, dict.fromkeys(worked, "works"), "what became of calls at the same time after a fork")
    expect_equal(seen["held"], [], "writes of the child under its parent's leases that were not lost")
    expect(
        seen["found"],
        f"what the child wrote under its parent's leases has changed something: {seen['lost']} of 3 releases of the "
        "parent were lost, and the tasks weren't found again with the parent's body",
    )


@row("FRK-02")
def a_fork_amid_calls_leaves_a_child_that_works(it: Scene) -> None:
    """Given a process whose threads are inside calls of one client, when it forks, the child isn't stuck on what they
    held: its calls work, and those of the parent's threads go on.
    """
    there = _process(it)
    forks = it.times(quick=8, full=40)
    names = (
        [it.name(word) for word in ("empty", "a", "b", "c", "d")],
        [it.name(f"child{n}") for n in range(forks)],
    )
    seen = there.call(fork_amid_calls, it.queue, *names)
    it.figures["forks"] = forks
    expect_equal(seen["children"], {"works": forks}, "what became of the calls of forked children")
    expect_equal(seen["problems"], [], "errors of the parent's threads while it forked")


def _process(it: Scene) -> Elsewhere:
    """A process that may fork: this one must not, since rows run in its threads."""
    if not hasattr(os, "fork"):
        raise NotApplicable("this system can't fork")
    return it.elsewhere()
