"""What the conformance suite has to know of these backends beyond their URLs."""

from gotasks_sql.conformance.servers import MySQLAdapter, PostgreSQLAdapter
from gotasks_sql.conformance.sqlite import SQLiteAdapter

__all__ = ["MySQLAdapter", "PostgreSQLAdapter", "SQLiteAdapter"]
