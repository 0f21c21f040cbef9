"""Dialect: the operations and lookups, and the connections of one kind of database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from gotasks.broker import Limits
from gotasks_sql.address import Address
from gotasks_sql.lookups import Lookups
from gotasks_sql.operations import Operations
from gotasks_sql.schema import Schema
from gotasks_sql.wakeups import Wakeups

#: What to do where the server lets nobody in, and where it has no such database.
CHECK_LOGIN = "check the user and the password, and what the server lets them do"
MAKE_DATABASE = "make the database first, or name another"


class Dialect(Operations, Lookups):
    """What is done on a kind of database, how it is connected to, and what its errors mean."""

    limits = Limits(
        max_payload=64 * 1024 * 1024,
        max_batch=1000,
        max_delay=10 * 365 * 86_400.0,
        max_lease=10 * 365 * 86_400.0,
        recovery=1.0,
        fifo=True,
        returned="front",
        durability="kill",
        server_crash_duplicates="none",
    )

    #: Whether a transaction that has written keeps all others from writing, so that what has to be made first, is
    #: made in it.
    excludes = False

    #: The name that SQLAlchemy has for it, which a caller's own connection must have too.
    names: frozenset[str]

    def __init__(self, address: Address) -> None:
        super().__init__(Schema(address.prefix, address.schema, address.dialect))
        self.address = address

    def pool(self) -> dict[str, Any]:
        """What every engine is told of its connections."""
        return {
            "hide_parameters": True,
            "pool_size": self.address.pool_size,
            "max_overflow": -1,
            "pool_reset_on_return": None,  # every use ends its transaction itself
        }

    def check_place(self, *, making: bool) -> None:
        """Raise ConfigurationError, before anything connects, if there is no place for the database.

        `making`: what isn't there yet may be made.
        """
        return

    @abstractmethod
    def create_engine(self, *, patient: bool = False) -> sa.Engine:
        """An engine whose connections are set up as the operations need them. `patient`: no call has a time limit."""

    @abstractmethod
    def transaction(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction of its own, committed at the end of the block."""

    def reading(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection for what only reads."""
        return self.transaction(engine)

    def at_once(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection for what is asked often: enqueue, claim, extend, checkpoint, ack, release.

        Where each is one statement, it needs no transaction around it.
        """
        return self.transaction(engine)

    @abstractmethod
    def migrating(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction, with a lock that one migration has at a time."""

    @abstractmethod
    def is_repeatable(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Whether the database rolled the transaction back to let another one through."""

    @abstractmethod
    def is_full(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Whether it has no room for what was to be stored."""

    @abstractmethod
    def advice(self, error: sa.exc.SQLAlchemyError) -> str | None:
        """What a person has to change where the URL leads to no database, or not into it; None for all other errors."""

    @abstractmethod
    def is_forbidden(self, error: BaseException | None) -> bool:
        """Whether the role may not do that."""

    def wakeups(self, engine: Callable[[], sa.Engine]) -> Wakeups:
        """How a waiting worker hears of what others enqueue; by looking again, unless there is something better."""
        return Wakeups()

    def after_fork(self) -> None:
        """In the child: let go of locks that another thread of the parent may have held."""
        return

    def warnings(self, connection: sa.Connection) -> Sequence[str]:
        """Sentences about settings with which less is kept than the limits say."""
        return ()
