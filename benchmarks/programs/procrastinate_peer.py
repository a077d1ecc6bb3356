"""procrastinate: PostgreSQL is its queue."""

from __future__ import annotations

import os
from collections.abc import Sequence

import procrastinate
from procrastinate.exceptions import ConnectorException

from .jobs import JOBS

QUEUE = "jq_bench"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["JQ_BENCH_DATABASE_URL"]))
TASKS = {job.__name__: app.task(job, name=job.__name__, queue=QUEUE) for job in JOBS}


class ProcrastinateProducer:
    """`defer` and `batch_defer` over the synchronous connector."""

    def open(self) -> None:
        """Connect; create the tables unless an earlier producer did."""
        app.open()
        try:
            app.schema_manager.apply_schema()
        except ConnectorException as error:
            if "already exists" not in str(error.__cause__):
                raise

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """One `defer`, one transaction, after the other."""
        task = TASKS[job]
        for n in numbers:
            task.defer(**_arguments(job, n))

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """One `batch_defer`."""
        TASKS[job].batch_defer(*(_arguments(job, n) for n in numbers))

    def close(self) -> None:
        """Disconnect."""
        app.close()


def _arguments(job: str, n: int) -> dict[str, int]:
    return {"sent" if job.startswith("stamp") else "n": n}


PRODUCER = ProcrastinateProducer()
