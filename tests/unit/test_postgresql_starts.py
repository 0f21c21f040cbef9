"""Starts that several threads keep at once."""

from __future__ import annotations

from gotasks_sql.dialects.postgresql_starts import FIRST, Start, Starts


def test_who_looked_from_the_start_meanwhile_is_right() -> None:
    starts = Starts()
    starts.went_on("orders", FIRST, Start(0, 100, 1))
    begun = starts.of("orders")
    # Another thread, which may have left some behind its last.
    starts.went_on("orders", FIRST, Start(0, 5, 2))
    starts.went_on("orders", begun, Start(0, 110, 3))

    assert starts.of("orders") == Start(0, 5, 2)


def test_a_start_that_was_forgotten_meanwhile_stays_so() -> None:
    starts = Starts()
    starts.went_on("orders", FIRST, Start(0, 100, 1))
    begun = starts.of("orders")
    starts.forget("orders")
    starts.went_on("orders", begun, Start(0, 110, 2))

    assert starts.of("orders") is FIRST
