"""Migrations: from an empty place, or from any older version of the schema, to the version of this code.

A version of the schema says from which version of the code on it can be worked with (`readable_from`): a change
that only adds leaves the workers of the version before at work, so a deployment migrates first, then restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from gotasks.errors import ConfigurationError
from gotasks_sql.schema import Schema


class Migration(NamedTuple):
    """One step from the version before."""

    version: int
    readable_from: int  #: the oldest version of the code that can work with what this leaves
    what: str
    run: Callable[[sa.Connection, Schema], None]


#: A row that is no task. InnoDB locks the gap before a unique key that is stored, until the transaction ends; all tasks
#: without a key would come into that gap, so that one caller's transaction kept everybody from enqueueing.
_DIVIDER = {"id": "", "queue": "", "state": 9, "rank": 0, "place": 0, "unique_hash": bytes(32), "body": b""}


def _create(connection: sa.Connection, schema: Schema) -> None:
    schema.metadata.create_all(connection)
    # MySQL commits each step: one that was killed here has left its table only.
    for index in schema.tasks.indexes:
        index.create(connection, checkfirst=True)
    if connection.dialect.name in ("mysql", "mariadb"):
        connection.execute(sa.insert(schema.tasks).prefix_with("IGNORE").values(**_DIVIDER))


MIGRATIONS: Sequence[Migration] = (Migration(1, 1, "make the tables", _create),)

#: The version that this code works with.
CURRENT = MIGRATIONS[-1].version


def version_of(connection: sa.Connection, schema: Schema) -> tuple[int, int] | None:
    """The version of the schema there and the oldest code it is for; None if there is none."""
    if not sa.inspect(connection).has_table(schema.version.name, schema=schema.version.schema):
        return None
    row = connection.execute(sa.select(schema.version.c.version, schema.version.c.readable_from)).first()
    return None if row is None else (row.version, row.readable_from)


def check(found: tuple[int, int] | None, where: str) -> None:
    """Raise ConfigurationError, with what to do, unless this code can work with the version that was found."""
    if found is None:
        raise ConfigurationError(
            f"{where} has no gotasks tables: run `gotasks migrate URL` with a role that may create them"
        )
    version, readable_from = found
    if version < CURRENT:
        raise ConfigurationError(
            f"{where} has version {version} of the gotasks tables, and this gotasks needs {CURRENT}: "
            "run `gotasks migrate URL`; workers of the version before go on meanwhile"
        )
    if readable_from > CURRENT:
        raise ConfigurationError(
            f"{where} has version {version} of the gotasks tables, which needs a newer gotasks: upgrade this one"
        )


def migrate(connection: sa.Connection, schema: Schema, where: str) -> list[str]:
    """Run what is missing, in the transaction of `connection`, whose lock the caller holds. Returns what was done.

    Raises ConfigurationError if what is there needs a newer gotasks; `where` is for that.
    """
    found = version_of(connection, schema)
    version = found[0] if found else 0
    done = []
    for step in MIGRATIONS:
        if step.version > version:
            step.run(connection, schema)
            done.append(f"version {step.version}: {step.what}")
            if found is None and version == 0:
                connection.execute(sa.insert(schema.version).values(version=0, readable_from=0))
            connection.execute(
                sa.update(schema.version).values(version=step.version, readable_from=step.readable_from)
            )
            version = step.version
    check(version_of(connection, schema), where)
    return done
