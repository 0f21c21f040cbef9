"""A database of its own on a PostgreSQL server: made anew before each measurement, dropped at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.protocol import reply

NAME = "gotasks_bench"


def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """`url`: of any database of the server, for a role that may make databases. Returns the URL of ours."""
    server, _, _ = command["url"].partition("?")
    base, _, database = server.rpartition("/")
    if conninfo_to_dict(server).get("dbname") != database or database == NAME:
        raise ValueError(f"the URL ends in the name of a database that exists, other than {NAME}")
    with psycopg.connect(command["url"], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        if command["do"] == "reset":
            connection.execute(f"CREATE DATABASE {NAME}")
        return {"url": f"{base}/{NAME}", "version": connection.info.parameter_status("server_version")}


if __name__ == "__main__":
    reply(answer)
