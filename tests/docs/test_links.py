"""Links between pages lead to a file, and to a heading of it."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            name = target.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors(name), f"{page}: {link}: {name} has {sorted(anchors(name))}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_links_stay_in_the_site(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if not re.match(r"https?://|#", link):
            target = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            assert target.is_relative_to(ROOT / "docs"), f"{page}: {link}"
