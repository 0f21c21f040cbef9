"""A program with an app, and a table of its own in the same database."""

from __future__ import annotations

import sqlalchemy as sa

from gotasks import App, ArgsMap
from gotasks.broker import BrokerURL
from gotasks_sql.address import Address
from gotasks_sql.conformance.tables import connected
from gotasks_sql.conformance.transactions import notes_of
from tests.backends.contract import QUEUE, stats


class Shop:
    """A program with an app, and a table of its own in the same database."""

    def __init__(self, url: str) -> None:
        self.done: list[int] = []
        self.url = url
        self.address = Address.of(BrokerURL(url)).url
        self.notes = notes_of(url)
        with connected(url) as connection:
            self.notes.create(connection)
        self._reader = sa.create_engine(self.address)
        self.app = App(url)
        self.app.dispatch.broker.migrate()
        self.app.register("add", self.add)
        self.orders = self.app.queue(QUEUE)
        self.note = sa.insert(self.notes).values(text="an order")

    def add(self, args: ArgsMap) -> None:
        self.done.append(args["n"])

    def holds(self, count: int) -> bool:
        """Whether so many transactions have happened, each a note and a task."""
        with self._reader.connect() as connection:
            notes = connection.execute(sa.select(sa.func.count()).select_from(self.notes)).scalar_one()
        assert (notes, self.app.stats(QUEUE)) in [(n, stats(ready=n)) for n in range(9)]
        return bool(notes == count)

    def close(self) -> None:
        self.app.close()
        self._reader.dispose()
