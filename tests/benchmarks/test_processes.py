"""What Linux tells of other processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from benchmarks import processes

pytestmark = pytest.mark.skipif(not processes.measurable(), reason="other processes are only read on Linux")


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listeners(port) == {os.getpid()}
        with socket.create_connection(
            ("127.0.0.1", port)
        ) as client:  # which has a port, and doesn't listen there
            assert processes.listeners(client.getsockname()[1]) == set()
    assert processes.listeners(port) == set()


def test_a_tree_has_descendants_and_their_cpu_time_counts() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    parent = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        end = time.monotonic() + 30
        while len(found := processes.tree([parent.pid])) < 2 or not all(map(processes.cpu, found)):
            assert time.monotonic() < end
        assert parent.pid in found
        assert all(processes.memory(pid, "VmRSS") > 1 for pid in found)
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()


def test_a_process_that_is_gone_has_used_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert processes.cpu(process.pid) == 0
    assert processes.memory(process.pid, "VmRSS") == 0
