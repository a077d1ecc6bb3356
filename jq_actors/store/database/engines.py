"""Engines: the ways in which a process connects to its database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jq_actors.errors import StoreError

from .dialect import WRITES, Dialect


@dataclass(frozen=True, slots=True)
class Engines:
    """The first two share one pool; the others have pools of their own."""

    reader: AsyncEngine
    writer: AsyncEngine
    each_alone: AsyncEngine
    """Each of whose statements is committed by itself. They are planned in another way, and wait for no transaction."""
    urgent: AsyncEngine
    """One connection, for what must not wait for all others: the lease."""


def make_engines(url: sa.URL, dialect: Dialect, pool_size: int) -> Engines:
    """Make them; connects to nothing. Imports the driver, which takes a while.

    Raises:
      StoreError: the driver is not installed.
    """
    engine, urgent = _make_engine(url, dialect, pool_size), _make_engine(url, dialect, 1)
    writes = {WRITES: True}
    return Engines(
        reader=engine,
        writer=engine.execution_options(**writes),
        each_alone=_make_engine(url, dialect, pool_size, each_alone=True),
        urgent=urgent.execution_options(**writes),
    )


def _make_engine(url: sa.URL, dialect: Dialect, pool_size: int, *, each_alone: bool = False) -> AsyncEngine:
    try:
        engine = create_async_engine(
            url,
            hide_parameters=True,  # they hold jobs' arguments
            enable_from_linting=False,  # joining a batch with the one row of a worker multiplies nothing
            **dialect.engine_options(url, pool_size),
            **({"isolation_level": "AUTOCOMMIT"} if each_alone else {}),
        )
    except ModuleNotFoundError as error:
        raise StoreError(f"{dialect.describe(url)} needs a driver: pip install {error.name}.") from error
    dialect.configure(engine, each_alone=each_alone)
    return engine
