"""The private PostgreSQL does what fault tests rely on."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.postgres import GivenPostgres, PrivatePostgres

pytestmark = pytest.mark.database


def _own(url: str) -> str:
    return urlsplit(url)._replace(scheme="postgresql").geturl()


def test_what_was_committed_survives_a_restart(private_postgres: PrivatePostgres) -> None:
    url = _own(private_postgres.create_database())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    private_postgres.stop("fast")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    private_postgres.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


def test_only_the_connections_of_that_database_are_dropped(postgres: PrivatePostgres | GivenPostgres) -> None:
    ours, theirs = postgres.create_database(), postgres.create_database()
    with closing(psycopg.connect(_own(ours))) as our_end, closing(psycopg.connect(_own(theirs))) as their_end:
        assert postgres.drop_connections(ours) == 1
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            our_end.execute("SELECT 1")
        assert their_end.execute("SELECT 1").fetchone() == (1,)
        postgres.drop_database(theirs)  # in use, as after a failed test
    postgres.drop_database(ours)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(_own(ours))
