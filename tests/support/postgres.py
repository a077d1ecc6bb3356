"""A PostgreSQL of the test run: a fresh cluster in a temporary folder, on its own port, without fsync."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import psycopg

from .processes import end, free_port, run_as, run_folder, spawn
from .programs import find_folder
from .waiting import eventually_sync

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0

StopMode = Literal["smart", "fast", "immediate"]


class Databases:
    """Fresh databases on a running server. ``url`` is that of its maintenance database, without a driver."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self) -> str:
        """Create an empty database; returns its ``postgresql+asyncpg://`` URL."""
        name = f"jq_test_{secrets.token_hex(6)}"
        with self.session() as session:
            session.execute(f'CREATE DATABASE "{name}"')
        return urlunsplit(urlsplit(self.url)._replace(scheme="postgresql+asyncpg", path=f"/{name}"))

    def drop_database(self, url: str) -> None:
        """Drop the database of ``url``, even if there are connections to it."""
        with self.session() as session:
            session.execute(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def drop_connections(self, url: str | None = None) -> int:
        """End all connections (``url``: those to that database) from the server's side; returns how many."""
        name = None if url is None else urlsplit(url).path[1:]
        with self.session() as session:
            rows = session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND (%(name)s::text IS NULL OR datname = %(name)s)",
                {"name": name},
            )
            return len(rows.fetchall())

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection of the tests' own, in autocommit: to look at tables, hold locks, drop things."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            yield connection


class PrivatePostgres(Databases):
    """One cluster; not started until `start`. Port and data survive `stop`.

    ``durable``: its commits wait for the disk, as those of a server in use do.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._settings = ("fsync=on", "synchronous_commit=on", "full_page_writes=on") if durable else ()
        self._programs = find_folder(_FOLDERS, "initdb", "postgresql")
        self._user = _user_instead_of_root()
        self.folder = run_folder("pg")
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int:
        """The pid of its first process, the parent of all others."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Start the server, with a new cluster the first time, and wait until it answers a query."""
        assert not self.running
        data = self.folder / "data"
        if not data.exists():
            initdb = [str(self._programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
            run_as(self._user, [*initdb, "-E", "UTF8", "--no-sync"], env=self._env, timeout=START_TIMEOUT)
        settings = [f"port={self.port}", f"unix_socket_directories={self.folder}", *_SETTINGS, *self._settings]
        command = [str(self._programs / "postgres"), "-D", str(data), *(f"--{line}" for line in settings)]
        self._server = spawn(command, env=self._env, output=self.folder / "output", user=self._user)
        eventually_sync(self._answers, START_TIMEOUT, "the private PostgreSQL to answer")

    def stop(self, mode: StopMode = "immediate") -> None:
        """Stop the server. ``immediate`` is a crash: connections are cut, and the next start recovers."""
        if self._server is not None:
            end(self._server, _SIGNALS[mode], STOP_TIMEOUT)
            self._server = None

    def restart(self) -> None:
        """Crash and recover."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder. May be called at any time, and more than once."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        if not self.running:
            output = (self.folder / "output").read_text(errors="replace")
            raise RuntimeError(f"The private PostgreSQL ended while starting:\n{output[-4000:]}")
        try:
            with self.session() as session:
                session.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class GivenPostgres(Databases):
    """The server of ``JQ_TEST_DATABASE_URL``: tests create databases in it, but must not break it."""

    def __init__(self, url: str) -> None:
        super().__init__(urlunsplit(urlsplit(url)._replace(scheme="postgresql")))

    def start(self) -> None:
        """Check that the server answers."""
        with self.session() as session:
            session.execute("SELECT 1")

    def close(self) -> None:
        """Do nothing: the server is not ours to stop."""


_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/bin",
    "/usr/bin",
)

_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "log_min_messages=fatal",
)

_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


def _user_instead_of_root() -> str | None:
    # PostgreSQL refuses to run as root; its package has made this user.
    return "postgres" if os.geteuid() == 0 else None
