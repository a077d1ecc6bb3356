"""Persistence: every job has a row, and the row is the truth about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.urls import mask_url
from jq_actors.store.port import JobStore
from jq_actors.store.records import Leases, Retention

from .options import duration, one_of, size, switch, whole_number

if TYPE_CHECKING:
    from jq_actors.chain.middleware import Process

DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg")
"""The databases and drivers that the store is tested with."""

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_SECOND = timedelta(seconds=1)


class Persistence(JobMiddleware):
    """Keeps jobs, attempts and workers in a database, so that no accepted job is lost and every job can be looked up.

    It does nothing in the chain itself: it provides the store, which the core uses. Durations are text such as ``30s``,
    ``5m``, ``1h``, ``1d``, an int in milliseconds, or a timedelta.

    Parameters:
      url: SQLAlchemy's URL of the database, with one of the drivers in `DRIVERS`.
      jobs_table: name of the jobs table; the names of the other tables begin with it. 1 to 40 of a-z, 0-9, _.
      retention: how long final rows are kept, by state: ``succeeded`` (1 day), ``failed`` (30 days), ``cancelled`` and
        ``superseded`` (7 days); ``None``: for ever. A state that is not given keeps its default.
      auto_migrate: create and migrate the tables at the start. If false, only ``jq-actors db upgrade`` does.
      relay_interval: how often a worker's relay looks for rows to publish. At least 50 ms. Rows that its own process
        stores, and delays that the relay knows of, do not wait for that.
      publish_lease: how long a row is reserved for the process that publishes it. At least 1 s. Must be longer than
        ``broker.confirm_timeout``, or a slow broker gets second copies (claims refuse them, at a cost).
      max_crashes: after how many lost workers a job fails.
      on_broker_down: ``store``: a send succeeds as soon as its row is stored; ``raise``: it raises
        `StoredNotSentError` if the broker has not taken the job yet. The relay sends the job either way.
      pool_size: connections to the database in each process. PostgreSQL gets as many again, for statements that are
        their own transactions. A worker has one more, for its lease.
      max_result_size: how large a job's result may be as JSON, in bytes: from 1K to 64M. A job that returns more fails.

    Raises:
      ValueError: an option is out of range.
    """

    brings_store: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str,
        jobs_table: str = "orm_jobs",
        retention: Mapping[str, str | int | timedelta | None] | None = None,
        auto_migrate: bool = True,
        relay_interval: str | int | timedelta = "1s",
        publish_lease: str | int | timedelta = "30s",
        max_crashes: int = 3,
        on_broker_down: str = "store",
        pool_size: int = 2,
        max_result_size: str | int = "1MiB",
    ) -> None:
        self.url = _checked_url(url)
        self.jobs_table = _checked_table(jobs_table)
        self.auto_migrate = switch("auto_migrate", auto_migrate)
        self.relay_interval = duration("relay_interval", relay_interval, at_least=timedelta(milliseconds=50))
        self.on_broker_down = one_of("on_broker_down", on_broker_down, ("store", "raise"))
        self.pool_size = whole_number("pool_size", pool_size, at_least=1, at_most=100)
        self.max_result_size = size("max_result_size", max_result_size, at_least=1 << 10, at_most=64 << 20)
        self.leases = Leases(
            publish=duration("publish_lease", publish_lease, at_least=_SECOND),
            max_crashes=whole_number("max_crashes", max_crashes, at_least=1),
            retention=_checked_retention(retention or {}),
        )
        """The times of the protocol. `open_store` sets the worker's lease to the one in the configuration."""

    def open_store(self, process: Process) -> JobStore:
        """Create the store, without connecting to the database yet."""
        from jq_actors.store.sql import SqlStore

        self.leases = replace(self.leases, worker=process.config.worker.lease)
        return SqlStore(
            self.url,
            jobs_table=self.jobs_table,
            leases=self.leases,
            clock=process.clock,
            events=process.events,
            auto_migrate=self.auto_migrate,
            pool_size=self.pool_size,
        )


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise ValueError(f"url must be a text such as sqlite+aiosqlite:///jobs.db, not {url!r}")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither the value nor the error's text is shown: the password could be anywhere in them.
        raise ValueError("url must be a database URL such as sqlite+aiosqlite:///jobs.db") from None
    if parsed.drivername not in DRIVERS:
        raise ValueError(f"url {mask_url(url)!r} must begin with one of {', '.join(f'{d}://' for d in DRIVERS)}")
    if parsed.database in (None, "", ":memory:"):
        # With SQLite in memory, each connection would have a database of its own, and the jobs would be lost with it.
        raise ValueError(f"url {mask_url(url)!r} must name a database that outlives its connections")
    return url


def _checked_table(name: object) -> str:
    if not isinstance(name, str) or not _TABLE.fullmatch(name):
        raise ValueError(f"jobs_table must be 1 to 40 of a-z, 0-9 and _, not beginning with a digit, not {name!r}")
    return name


def _checked_retention(given: object) -> Retention:
    if not isinstance(given, Mapping):
        raise ValueError(f"retention must be a mapping such as {{failed: 30d}}, not {given!r}")
    allowed = [field.name for field in fields(Retention)]
    for state in given:
        if state not in allowed:
            raise ValueError(f"retention has no state {state!r}; final states are {', '.join(allowed)}")
    times = {state: None if value is None else duration(f"retention.{state}", value) for state, value in given.items()}
    return replace(Retention(), **times)
