"""contrib/grafana: every metric and label that the dashboard and the alerts ask for is one that a worker exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gotasks import App, ArgsMap, context, metrics, reentrant
from gotasks.errors import TaskFailed
from gotasks.events import BrokerDown, Event, LeaseLost, QueueMeasured, TaskReleased
from tests.docs.pages import ROOT, text

FOLDER = ROOT / "contrib" / "grafana"
DASHBOARD = (FOLDER / "dashboard.json").read_text(encoding="utf-8")
ALERTS = (FOLDER / "alerts.yml").read_text(encoding="utf-8")

#: A metric's name, and the labels in braces behind it.
SELECTOR = re.compile(r"\b((?:gotasks|task)_\w+)(?:\{([^}]*)\})?")


def asked() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Each query, with a metric in it and the labels that it needs."""
    dashboard = json.loads(DASHBOARD)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    queries += [
        " ".join(each.split())
        for each in re.findall(r"expr: (?:>-\n)?(.+?)\n +(?:for|labels):", ALERTS, re.DOTALL)
    ]
    for query in queries:
        wanted = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
        wanted |= set(re.findall(r"label_values\(\w+, (\w+)\)", query))
        for name, braces in SELECTOR.findall(re.sub(r"by \([^)]*\)", "by", query)):
            yield query, name, frozenset(wanted | set(re.findall(r"(\w+)(?:=|!)", braces)))


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each sample that a worker shows, after it did all that there is to be counted."""
    app = App("memory://")
    release = threading.Event()
    running = threading.Event()

    def charge(args: ArgsMap) -> None:
        if "fail" in args:
            raise ValueError("declined")
        if "hang" in args:
            running.set()
            release.wait(10)

    app.register("checkout", charge, reentrant(receipt, max_times=1, sleepy_ms=1))
    app.register("later", reentrant(fails, max_times=1, sleepy_ms=60_000))
    app.register("safe", reentrant(receipt))
    orders = app.queue("orders", monitor_interval=0.05)
    crashed = orders.enqueue("safe", {})
    (lease,) = app.dispatch.broker.acquire("orders", limit=1, wait=0, lease_for=0.001)
    assert lease.envelope.id == crashed.id  # held by nobody who lives
    happened: dict[type[Event], threading.Event] = {
        kind: threading.Event() for kind in (QueueMeasured, LeaseLost, TaskReleased)
    }
    with metrics.run_server(
        app, ":0"
    ) as server:  # what it counts, it hears of before the listener that follows
        app.events.listen(lambda event: happened[type(event)].set() if type(event) in happened else None)
        with app.worker("orders"):
            crashed.wait(timeout=20)
            orders.enqueue("checkout", {"retry": True}).wait(timeout=20)
            with pytest.raises(TaskFailed):
                orders.enqueue("checkout", {"fail": True}).wait(timeout=20)
            orders.enqueue("later", {})
            hanging = orders.enqueue("checkout", {"hang": True})
            assert running.wait(20)
            assert hanging.cancel()
            release.set()
            app.events.emit(BrokerDown("acquire", "no server", 1))
            assert all(event.wait(20) for event in happened.values())
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=10) as reply:
                shown = reply.read().decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def receipt(args: ArgsMap) -> ArgsMap:
    """Fails at the first try, where it is asked to."""
    if "retry" in args and context.current().tries == 0:
        raise OSError("no mail server")
    return args


def fails(args: ArgsMap) -> None:
    """To be tried again in a minute, so that the task is given back."""
    raise OSError("not now")


@pytest.mark.parametrize("query, name, labels", list(asked()))
def test_it_is_exported(query: str, name: str, labels: frozenset[str], exported: dict[str, set[str]]) -> None:
    assert name in exported, query
    assert labels <= exported[name], query


def test_every_metric_is_in_the_dashboard_and_in_the_page(exported: dict[str, set[str]]) -> None:
    page = text("docs/operations.md")
    for name in {re.sub(r"_(bucket|count|sum|created)$", "", each) for each in exported}:
        assert name in DASHBOARD, name
        row = re.search(rf"^\| `{name}` \|([^|]*)\|", page, re.MULTILINE)
        assert row is not None, name
        labels = set().union(*(exported[each] for each in exported if each.startswith(name))) - {"le"}
        assert set(re.findall(r"\w+", row[1])) == labels, name


def test_the_first_one_counts() -> None:
    """A counter isn't there before its first one, so `increase` alone doesn't see that."""
    queries = {query for query, _, _ in asked()}
    found = [
        (query, *each)
        for query in queries
        for each in re.findall(r"increase\((\w+_total(?:\{[^}]*\})?)\[([^]]+)\]\)", query)
    ]

    assert len(found) > 8
    for query, counter, time in found:
        name = counter.partition("{")[0]
        before = rf"{re.escape(counter)} unless {name}(\{{[^}}]*\}})? offset {re.escape(time)}\)"
        assert re.search(before, query), query


def test_the_alerts_say_what_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool isn't installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", str(FOLDER / "alerts.test.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_in_the_page() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS)

    assert len(alerts) > 8
    assert re.findall(r"^\| `(Gotasks\w+)` \|", text("docs/operations.md"), re.MULTILINE) == alerts
