"""What in docs/ is made of the code is current: `python -m docs.generate` renews it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gotasks
from docs.generate.brokers import BROKERS
from docs.generate.files import CONFIG, DOCS, made, renew, stale
from docs.generate.llms import pages
from gotasks import broker, conformance, errors, events, metrics
from gotasks.broker import Capability
from gotasks.discovery import installed
from tests.docs.pages import ROOT, text


def test_it_is_current() -> None:
    assert stale() == [], "python -m docs.generate"


def test_what_is_not_current_is_named(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    assert stale(tmp_path) == [*made()]

    renew(tmp_path)
    assert stale(tmp_path) == []

    (tmp_path / "llms.txt").write_text("# gotasks\n")
    assert stale(tmp_path) == ["llms.txt"]


def test_ci_renews_nothing_before_it_looks() -> None:
    said = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make docs.*", said, re.MULTILINE) == ["make docs ARGS=--check"]
    assert "docs.generate $(ARGS)\n" in (ROOT / "Makefile").read_text()


def test_every_broker_of_ours_and_every_capability_is_in_the_tables() -> None:
    ours = {entry.name for entry in installed() if entry.dist is None or entry.dist.name == "gotasks"}
    told = set(re.findall(r"`([a-z]+)(?:\+\w+)?://", text("docs/choosing.md")))

    assert ours <= told
    assert {url.partition(":")[0].partition("+")[0] for url in BROKERS.values()} <= told
    assert all(text("docs/choosing.md").count(f"\n| {each.name} | ") == 2 for each in Capability)


def test_every_page_has_its_place_and_is_in_llms_txt() -> None:
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    nav = pages(CONFIG.read_text(encoding="utf-8"))

    assert sorted(nav) == sorted(there)
    assert [page for page in nav if f"]({page}): " not in text("docs/llms.txt")] == []


@pytest.mark.parametrize(
    "page, names",
    [
        ("gotasks", {*gotasks.__all__} - {"Broker", "Capability", "GotasksError", "metrics"}),
        ("broker", {*broker.__all__}),
        ("conformance", {*conformance.__all__}),
        (
            "metrics",
            {name for name in vars(metrics) if name.startswith(("run_", "wsgi", "asgi", "publish"))}
            - {"published"},
        ),
    ],
)
def test_the_reference_has_every_public_name(page: str, names: set[str]) -> None:
    told = text(f"docs/reference/{page}.md")

    assert {name for name in names if not re.search(rf"\b{name}\b", told)} == set()


def test_whole_modules_are_in_the_reference() -> None:
    assert f"::: {errors.__name__}\n" in text("docs/reference/errors.md")
    assert f"::: {events.__name__}\n" in text("docs/reference/logs.md")
