"""What a grant writes, and the answers to a batch of claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from jq_actors.events import Event
from jq_actors.job import JobState

from .losses import LostRun, events_of
from .records import Claim, ClaimRequest
from .tables import Tables, UtcDateTime
from .workers import held_worker


@dataclass(slots=True)
class Claimed:
    """What became of a batch. Its events are to be told when it is committed."""

    answers: dict[int, Claim] = field(default_factory=dict)
    """By run token."""
    taken: list[LostRun] = field(default_factory=list)
    """Runs of lost workers whose jobs were taken over."""
    failed: list[LostRun] = field(default_factory=list)
    """Those that were one too many."""
    of_groups: list[Event] = field(default_factory=list)
    """What that did to their groups."""

    @property
    def events(self) -> list[Event]:
        """What to tell."""
        return [*events_of(self.taken, self.failed), *self.of_groups]

    def unanswered(self, requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
        """Those of ``requests`` that have no answer yet."""
        return [request for request in requests if request.run_token not in self.answers]


def grant(
    tables: Tables,
    run_token: sa.ColumnElement[int],
    *where: sa.ColumnElement[bool],
    **also: Any,
) -> sa.UpdateBase:
    """The statement that makes rows running for the worker ``me`` at ``now``, if its own row is there."""
    c = tables.jobs.c
    now = sa.bindparam("now", type_=UtcDateTime)
    me = held_worker(tables).cte("me")
    return (
        sa.update(tables.jobs)
        .where(*where)
        .values(
            state=JobState.RUNNING.value,
            run_token=run_token,
            worker_id=me.c.id,
            attempt=c.attempt + 1,
            started_at=now,
            # Unchanged where it was marked before, so that the update stays a HOT one.
            published_at=sa.func.coalesce(c.published_at, now),
            publish_at=None,
            reason=None,
            **also,
        )
        .returning(c.id, c.run_token, c.attempt, c.crashes)
    )
