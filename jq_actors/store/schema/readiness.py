"""Making a database ready: its tables are made or checked, its clock is compared; while it is away, again and again."""

from __future__ import annotations

import asyncio

from jq_actors.clock import Clock
from jq_actors.concurrency.in_thread import in_thread
from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.store.database.database import Database
from jq_actors.store.records import StoreReport
from jq_actors.store.tables import REVISION

from . import migrate

RETRY = 2.0
"""Seconds between two tries, at most."""


class Readiness:
    """Opens a database.

    Parameters:
      auto_migrate: make or change the tables where they are not as this release needs them.
    """

    def __init__(self, url: str, jobs_table: str, database: Database, clock: Clock, *, auto_migrate: bool) -> None:
        self._url, self._jobs_table, self._auto_migrate = url, jobs_table, auto_migrate
        self._database, self._clock = database, clock
        self._trying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the database ready, or go on trying in the background: also while the server refuses our password.

        Raises:
          NotMigratedError: the tables are of another version and may not, or cannot, be changed.
        """
        try:
            await self._prepare()
        except StoreUnavailableError:
            self._trying = asyncio.create_task(self._keep_trying(), name="store-open")

    async def close(self) -> None:
        """Stop trying."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait([self._trying])

    async def revision(self) -> str | None:
        """The revision of the tables; ``None``: there are none."""
        return await self._database.read(lambda c: c.run_sync(migrate.revision_in, self._jobs_table), unready=True)

    async def check(self) -> StoreReport:
        """What `JobStore.check` reports. It needs no `open`, and changes nothing."""
        description, problems = self._database.description, list[str]()
        revision: str | None = None
        try:
            revision = await self.revision()
        except StoreError as error:
            problems.append(str(error))
        else:
            if revision != REVISION and not (revision is None and self._auto_migrate):
                problems.append(str(migrate.not_migrated(revision, self._jobs_table)))
        return StoreReport(description, tuple(problems), revision, REVISION)

    async def _prepare(self) -> None:
        found = await self.revision()
        if found != REVISION:
            if not self._auto_migrate:
                raise migrate.not_migrated(found, self._jobs_table)
            # In a thread: Alembic reads files, which takes a while.
            await in_thread(lambda: migrate.upgrade(self._url, self._jobs_table))
        await self._database.read(self._database.measure, unready=True)
        self._database.make_ready()

    async def _keep_trying(self) -> None:
        while True:
            await self._clock.sleep(RETRY * (0.5 + self._clock.random() / 2))
            try:
                await self._prepare()
            except StoreError as error:
                # Tables of another version are tried again, too: an operator may run `db upgrade`.
                self._database.lost(str(error))
            else:
                return
