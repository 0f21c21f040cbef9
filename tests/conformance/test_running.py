"""Running rows: what an adapter or a broker does on the way never passes for a pass, and shows no secret."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

import pytest

from gotasks.broker import Broker, BrokerURL, Lease, QueueStats
from gotasks.conformance.adapter import Adapter, MemoryAdapter, NotApplicable
from gotasks.conformance.checking import check
from gotasks.conformance.outcome import Result
from gotasks.conformance.redact import redact
from gotasks.conformance.report import Report
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks.memory import MemoryBroker

ROW = "CKP-01"


def result(report: Report, row_id: str = ROW) -> tuple[Result, str]:
    (row,) = [row for row in report.rows if row.id == row_id]
    return row.result, row.reason


class Nowhere(MemoryAdapter):
    """Says of the place itself that there is none."""

    def url(self, namespace: str) -> str:
        raise NotApplicable("no time for that")


class Leaves(MemoryBroker):
    """Ends the process."""

    def checkpoint(self, writes: object) -> frozenset[str]:
        os._exit(0)


class LeavesAdapter(MemoryAdapter):
    broker_class: type[Broker] | None = Leaves


class Talks(MemoryBroker):
    """Puts the password into an error."""

    def checkpoint(self, writes: object) -> frozenset[str]:
        raise RuntimeError("can't log in to talks://me:hunter2@host with 'hunter2' \x1b[31m \udcff")

    @classmethod
    def from_url(cls, url: BrokerURL) -> Talks:
        return cls()


class TalksAdapter(MemoryAdapter):
    broker_class: type[Broker] | None = Talks


class ClaimsWords(MemoryBroker):
    """Has capabilities of another kind."""

    @classmethod
    def from_url(cls, url: BrokerURL) -> ClaimsWords:
        broker = cls()
        broker.capabilities = {"DELAY"}  # type: ignore[assignment]
        return broker


class Begun(MemoryBroker):
    """Its author has only begun."""

    def stats(self, queue: str) -> QueueStats:
        raise NotImplementedError("stats: count what is ready")

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        raise NotImplementedError("acquire: hand out what is ready")


class Exits(MemoryBroker):
    """Ends the program when it is opened."""

    @classmethod
    def from_url(cls, url: BrokerURL) -> Exits:
        raise SystemExit(0)


def adapter(broker: type[Broker], url: str = "memory://") -> Adapter:
    made = MemoryAdapter(url)
    made.broker_class = broker
    return made


def test_a_place_can_not_be_inapplicable() -> None:
    found = result(check(Nowhere("memory://"), only=[ROW]))

    assert found == (Result.FAIL, "the adapter's url or open raised NotApplicable: no time for that")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_row_that_ends_its_process_has_failed_and_only_that_row(jobs: int) -> None:
    report = check(LeavesAdapter("memory://"), only=["DLV-01", ROW, "DLV-05"], quick=True, jobs=jobs)

    assert result(report) == (Result.FAIL, "it ended the process that ran it")
    assert result(report, "DLV-01")[0] is result(report, "DLV-05")[0] is Result.PASS


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_password_is_in_no_report(jobs: int | None) -> None:
    report = check(TalksAdapter("talks://me:hunter2@host"), only=[ROW], jobs=jobs)

    assert result(report)[0] is Result.FAIL
    assert b"hunter2" not in report.to_json()
    assert "can't log in to talks://me:***@host with '***' \\x1b[31m" in result(report)[1]


def test_redact_hides_every_secret_of_a_url() -> None:
    url = "acme://me:p%40ss@host/x?token=abc123&name=me"

    assert redact("p@ss p%40ss abc123 me host", url) == "*** *** *** me host"


def test_redact_hides_the_secrets_of_a_url_in_a_url() -> None:
    inner = "redis://me:p%40ss@host/0?token=abc123"
    url = f"acme://me:outer@host/x?records={quote(inner, safe='')}"

    assert redact("p@ss p%40ss p%2540ss abc123 outer me", url) == "*** *** *** *** *** me"
    assert redact(f"{url} {inner}", url) == f"{BrokerURL(url)} redis://me:***@host/0?token=***"


def test_an_adapter_that_can_not_be_pickled(tmp_path: Path) -> None:
    class Local(MemoryAdapter):
        pass

    with pytest.raises(ConfigurationError, match="can't be handed to another process"):
        check(Local("memory://"), only=[ROW], jobs=2)


@pytest.mark.parametrize(
    "broker,says",
    [
        (ClaimsWords, "capabilities has to be of gotasks.broker.Capability"),
        (Exits, "can't be opened: SystemExit"),
    ],
)
def test_what_is_no_broker(broker: type[Broker], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check(adapter(broker), only=[ROW])


def test_of_a_broker_that_is_being_written_each_row_says_what_is_missing() -> None:
    (row,) = (each for each in check(adapter(Begun), only=[ROW]).rows if each.result is not Result.NOT_RUN)

    assert row.result is Result.FAIL
    assert "acquire: hand out what is ready" in row.reason


def test_a_server_that_is_not_there_is_no_list_of_failures() -> None:
    with pytest.raises(BrokerUnavailable):
        check("redis://127.0.0.1:1/0", only=[ROW])


@pytest.mark.parametrize("only", [["CKP-01", "ZZZ"], [""], [" "]])
def test_every_word_of_only_names_a_row(only: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="no row is named"):
        check("memory://", only=only)


def test_only_may_be_written_small() -> None:
    assert result(check("memory://", only=["ckp-01"]))[0] is Result.PASS


@pytest.mark.parametrize("waivers", [{"CKP-O1": "https://example.org/7"}, {"CKP-01": ""}])
def test_a_waiver_names_a_row_and_has_a_link(waivers: dict[str, str]) -> None:
    made = MemoryAdapter("memory://")
    made.waivers = waivers

    with pytest.raises(ConfigurationError, match="a waiver is for a row"):
        check(made, only=[ROW])
