"""Where a sweep cuts."""

from __future__ import annotations

import pytest

from gotasks.conformance.kit.sweep import places


@pytest.mark.parametrize("total", [0, 1, 23, 24])
def test_what_is_short_is_cut_everywhere(total: int) -> None:
    assert places(total, 25) == list(range(total + 1))


@pytest.mark.parametrize("total", [25, 26, 100, 5000])
@pytest.mark.parametrize("most", [1, 4, 25])
def test_of_what_is_long_the_first_and_the_last_bytes_are_never_left_out(total: int, most: int) -> None:
    found = places(total, most)
    ends = max(most // 4, 1)
    assert found[:ends] == list(range(ends))
    assert found[-ends:] == list(range(total + 1 - ends, total + 1))
    assert len(found) <= max(most, 2)
    assert found == sorted(set(found))
