"""The engines through which a process connects to its database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jq_actors.errors import StoreError

from .dialect import WRITES, Dialect


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of a process. ``reader`` and ``writer`` share a pool; each of the others has its own."""

    reader: AsyncEngine
    writer: AsyncEngine
    autocommit: AsyncEngine
    """Commits each statement by itself. Its statements are planned differently, and do not wait for transactions."""
    urgent: AsyncEngine
    """One connection, for renewing the lease, which must not wait for other work."""

    @property
    def with_pools(self) -> tuple[AsyncEngine, ...]:
        """One engine for each pool."""
        return self.reader, self.autocommit, self.urgent


def make_engines(url: sa.URL, dialect: Dialect, pool_size: int) -> Engines:
    """Create the engines without connecting. This imports the driver, which takes a while.

    Raises:
      StoreError: the driver is not installed.
    """
    engine, urgent = _make_engine(url, dialect, pool_size), _make_engine(url, dialect, 1)
    writes = {WRITES: True}
    return Engines(
        reader=engine,
        writer=engine.execution_options(**writes),
        autocommit=_make_engine(url, dialect, pool_size, autocommit=True),
        urgent=urgent.execution_options(**writes),
    )


def _make_engine(url: sa.URL, dialect: Dialect, pool_size: int, *, autocommit: bool = False) -> AsyncEngine:
    try:
        engine = create_async_engine(
            url,
            hide_parameters=True,  # they contain the arguments of jobs
            enable_from_linting=False,  # joining a batch with a worker's single row does not multiply rows
            **dialect.engine_options(url, pool_size),
            **({"isolation_level": "AUTOCOMMIT"} if autocommit else {}),
        )
    except ModuleNotFoundError as error:
        raise StoreError(f"{dialect.describe(url)} needs a driver: pip install {error.name}.") from error
    dialect.configure(engine, autocommit=autocommit)
    return engine
