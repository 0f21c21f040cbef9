"""Tasks that are enqueued in a transaction of an asynchronous program, on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext import asyncio as sa_asyncio

from gotasks import Status
from gotasks.errors import ConfigurationError, TaskNotFound
from tests.backends.sql_shop import Shop

#: SQLAlchemy's name of an asynchronous driver, where one is among those that development needs.
ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


@pytest.fixture
def shop(sql_url: str) -> Iterator[Shop]:
    shop = Shop(sql_url)
    yield shop
    shop.close()


@asynccontextmanager
async def async_program(shop: Shop, kind: str) -> AsyncIterator[Any]:
    """An AsyncConnection or AsyncSession as programs make it."""
    driver = ASYNC_DRIVERS[shop.address.get_backend_name()]
    engine = sa_asyncio.create_async_engine(shop.address.set(drivername=driver))
    made: Any = engine.connect() if kind == "AsyncConnection" else sa_asyncio.AsyncSession(engine)
    try:
        async with made as opened:
            yield opened
    finally:
        await engine.dispose()


with_async_driver = pytest.mark.parametrize("sql_url", list(ASYNC_DRIVERS), indirect=True)
of_both_kinds = pytest.mark.parametrize("kind", ["AsyncConnection", "AsyncSession"])


@with_async_driver
@of_both_kinds
@pytest.mark.parametrize("end, count", [("commit", 1), ("rollback", 0)])
def test_an_asynchronous_transaction(shop: Shop, kind: str, end: str, count: int) -> None:
    async def produce() -> None:
        async with async_program(shop, kind) as program:
            await program.execute(shop.note)
            task = await shop.orders.aenqueue("add", {"n": 1}, connection=program)
            with pytest.raises(TaskNotFound):
                await task.astatus()
            await (program.commit() if end == "commit" else program.rollback())
            if count:
                assert await task.astatus() is Status.READY

    asyncio.run(produce())
    assert shop.holds(count)


@with_async_driver
@of_both_kinds
@pytest.mark.parametrize("rolls_back", [True, False])
def test_an_asynchronous_savepoint(shop: Shop, kind: str, rolls_back: bool) -> None:
    async def produce() -> None:
        async with async_program(shop, kind) as program:
            await program.execute(shop.note)
            await shop.orders.aenqueue("add", {"n": 1}, connection=program)
            inner = await program.begin_nested()
            await program.execute(shop.note)
            await shop.orders.aenqueue_many("add", [{"n": 2}], connection=program)
            await (inner.rollback() if rolls_back else inner.commit())
            await program.commit()

    asyncio.run(produce())
    assert shop.holds(1 if rolls_back else 2)


@with_async_driver
def test_an_asynchronous_scoped_session(shop: Shop) -> None:
    async def produce() -> None:
        driver = ASYNC_DRIVERS[shop.address.get_backend_name()]
        engine = sa_asyncio.create_async_engine(shop.address.set(drivername=driver))
        make = sa_asyncio.async_sessionmaker(engine)
        scoped = sa_asyncio.async_scoped_session(make, scopefunc=asyncio.current_task)
        try:
            await scoped.execute(shop.note)
            await shop.orders.aenqueue("add", {"n": 1}, connection=scoped)
            await scoped.commit()
        finally:
            await scoped.remove()
            await engine.dispose()

    asyncio.run(produce())
    assert shop.holds(1)


@with_async_driver
@of_both_kinds
def test_an_asynchronous_connection_is_refused_by_the_plain_enqueue(shop: Shop, kind: str) -> None:
    async def produce() -> None:
        async with async_program(shop, kind) as program:
            with pytest.raises(ConfigurationError, match="with aenqueue their asynchronous kinds"):
                shop.orders.enqueue("add", {}, connection=program)

    asyncio.run(produce())
