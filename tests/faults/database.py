"""The tests' own connection to a database, which no fault touches, or which comes again by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg


def plain(url: str) -> str:
    """A database URL without SQLAlchemy's driver."""
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


class Lookout:
    """One connection in autocommit, made anew when its server was away."""

    def __init__(self, url: str) -> None:
        self._url = plain(url)
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query; ``%s`` stands for a value.

        Raises:
          psycopg.OperationalError: the server is away.
        """
        return self._cursor(query, values).fetchall()

    def execute(self, statement: str, *values: Any) -> None:
        """Change something."""
        self._cursor(statement, values)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cursor(self, query: str, values: Sequence[Any]) -> psycopg.Cursor[Any]:
        if self._connection is not None:
            try:
                return self._connection.execute(query.encode(), values or None)
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
        # Cut by a server that was stopped since: it may be there again.
        self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
        return self._connection.execute(query.encode(), values or None)
