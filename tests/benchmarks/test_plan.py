"""What would be measured, in which order, of which versions."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from benchmarks.catalogue import CHECKOUT, CLIENTS, PEERS, SERVERS, chosen
from benchmarks.plan import plan, workloads
from benchmarks.protocol import ROOT


def test_peers_take_turns_and_every_round_has_the_ceilings() -> None:
    peers = chosen(["postgres"], ["gotasks", "procrastinate"])
    steps = [str(step) for step in plan(peers, workloads(["drain", "chains"]), 2, ceilings=True)]
    one_round = [
        "postgres: ceilings",
        "postgres: gotasks drain",
        "postgres: procrastinate drain",
        "postgres: gotasks chains",
        "postgres: procrastinate chains",
    ]
    assert steps == [f"round {number}, {step}" for number in (1, 2) for step in one_round]


def test_what_would_be_measured_is_listed_once() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list", "--servers", "rabbitmq", "--workloads", "drain"]
    lines = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    assert lines == [
        "rabbitmq: ceilings",
        *(f"rabbitmq: {peer.name} drain" for peer in PEERS if peer.server == "rabbitmq"),
    ]


def test_a_server_is_measured_with_its_own_peers() -> None:
    steps = list(plan(chosen(list(SERVERS), []), workloads([]), 1, ceilings=False))
    assert all(step.peer is not None and step.peer.server == step.server for step in steps)
    assert list(dict.fromkeys(step.server for step in steps)) == list(SERVERS)


def test_the_ceilings_can_be_left_out() -> None:
    assert all(step.peer for step in plan(chosen(["redis"], []), workloads([]), 1, ceilings=False))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no peer 'gotask': gotasks, "):
        chosen(["redis"], ["gotask"])
    with pytest.raises(ValueError, match="no workload 'drian': enqueue, "):
        workloads(["drian"])


def test_every_server_has_its_scripts_and_is_compared_with_somebody() -> None:
    for server in SERVERS:
        assert importlib.util.find_spec(f"benchmarks.places.{server}")
        assert importlib.util.find_spec(f"benchmarks.ceilings.{server}")
        assert {CHECKOUT} < {peer.name for peer in PEERS if peer.server == server}


def test_every_peer_has_its_script_and_a_name_of_its_own() -> None:
    for peer in PEERS:
        assert importlib.util.find_spec(f"benchmarks.peers.{peer.script}")
    assert len({peer.key for peer in PEERS}) == len(PEERS)


def test_who_shares_a_server_says_what_he_leaves_there() -> None:
    """Queues of RabbitMQ have no place that could be removed as a whole: the next measurement would run their tasks."""
    assert [peer.name for peer in PEERS if peer.server == "rabbitmq" and not peer.leaves.get("queues")] == []


def test_all_versions_are_pinned() -> None:
    packages = {package for peer in PEERS for package in peer.packages} | set(CLIENTS)
    assert all("==" in package for package in packages - {CHECKOUT})


def test_a_label_says_the_version_and_who_loses_tasks() -> None:
    labels = {peer.key: peer.label for peer in PEERS}
    assert labels["redis", "dramatiq"] == "dramatiq 2.2.1"
    assert labels["sqlite", "huey"] == "huey 3.5.4 (amo)"
    assert labels["redis", "gotasks"] == "gotasks"


def test_slow_peers_get_fewer_tasks_but_enough() -> None:
    (drain,) = workloads(["drain"])
    assert drain.tasks(20_000, 1.0) == 20_000
    assert drain.tasks(20_000, 0.1) == 2_000
    assert drain.tasks(100, 0.1) == 50
