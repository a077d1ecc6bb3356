"""Old runs of jobs that run very often: only the newest are kept, so that no history grows without end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from jq_actors.model.job import JobId
from jq_actors.model.outcome import Interrupted, Retrying, Snoozed, Unhandled
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column
from jq_actors.store.records import Settlement
from jq_actors.store.tables import JOB_ID, Tables, UtcDateTime

KEPT_RUNS = 50
"""How many runs of a job are kept that counted as attempts, and as many that did not."""
SETTLED_SINCE = timedelta(minutes=2)
"""Younger runs stay: a process that settled one and lost the answer has to find it (`Settles.write`)."""
MAX_NOTED = 1000
"""The most jobs that one check handles. A job beyond that is noted again when it runs next."""

_UNCOUNTED = (Snoozed, Interrupted, Unhandled)


class OldRuns:
    """Deletes old runs. It need not search for jobs that have some: this process notes those that it settled."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._noted: dict[JobId, None] = {}
        a = tables.attempts.c
        jobs = sa.select(database.dialect.rows({"job_id": JOB_ID}).c.job_id)
        is_uncounted = a.outcome.in_([kind.__name__.lower() for kind in _UNCOUNTED])
        newer = sa.func.row_number().over(
            partition_by=(a.job_id, is_uncounted), order_by=(a.finished_at.desc(), a.run_token)
        )
        runs = sa.select(a.job_id, a.run_token, a.finished_at, newer.label("newer")).where(a.job_id.in_(jobs))
        of = runs.subquery().c
        old = sa.select(of.job_id, of.run_token).where(
            of.newer > KEPT_RUNS, of.finished_at < sa.bindparam("before", type_=UtcDateTime)
        )
        self._delete = sa.delete(tables.attempts).where(sa.tuple_(a.job_id, a.run_token).in_(old))

    def note(self, settlements: Iterable[Settlement]) -> None:
        """Note settlements that were written."""
        for settlement in settlements:
            if isinstance(settlement.outcome, (Retrying, *_UNCOUNTED)) and len(self._noted) < MAX_NOTED:
                self._noted[settlement.job_id] = None

    async def prune(self, now: datetime) -> None:
        """Delete the old runs of the jobs that were noted since the last time."""
        if not self._noted:
            return
        jobs, self._noted = self._noted, {}
        parameters = {"batch": encode_column("job_id", jobs), "before": now - SETTLED_SINCE}
        await self._database.write(lambda connection: connection.execute(self._delete, parameters))
