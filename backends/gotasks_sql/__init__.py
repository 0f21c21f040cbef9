"""The SQL broker: tasks in a table of SQLite, PostgreSQL, MySQL or MariaDB, through SQLAlchemy Core."""

from gotasks_sql.broker import SQLBroker

__all__ = ["SQLBroker"]
