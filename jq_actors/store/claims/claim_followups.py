"""What follows from the verdicts on a batch of claims: answers, and further work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

import sqlalchemy as sa

from jq_actors.events import Event
from jq_actors.model.claim_rules import RowView, Verdict
from jq_actors.store.records import Claim, ClaimRequest, NextJob

from .lost_runs import LostRun, events_of

COME_AGAIN = timedelta(milliseconds=200)
"""How long a request that lost every race waits before it is tried again."""

Row = sa.Row[Any]


@dataclass(slots=True)
class ClaimResults:
    """The results of a batch. Its events must be emitted only after the commit."""

    answers: dict[int, Claim] = field(default_factory=dict)
    """By run token."""
    taken: list[LostRun] = field(default_factory=list)
    """Runs of lost workers whose jobs were taken over."""
    failed: list[LostRun] = field(default_factory=list)
    """Runs of lost workers whose jobs have reached the limit of crashes and failed."""
    of_groups: list[Event] = field(default_factory=list)
    """The effects on the groups of those jobs."""

    def grant(self, row: sa.Row[Any], instead: NextJob | None = None) -> None:
        """Grant the run in ``row``. ``instead``: the job to run, if it is not the delivery's own."""
        attempt = Claim(Verdict.GRANT, row.attempt, row.crashes, instead=instead, group=row.group_key)
        self.answers[row.run_token] = attempt

    @property
    def events(self) -> list[Event]:
        """The events to emit after the commit."""
        return [*events_of(self.taken, self.failed), *self.of_groups]

    def unanswered(self, requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
        """Return those of ``requests`` that have no answer yet."""
        return [request for request in requests if request.run_token not in self.answers]


@dataclass(slots=True)
class Followups:
    """The work that the verdicts on a batch require."""

    grant: list[ClaimRequest] = field(default_factory=list)
    adopt: dict[str, ClaimRequest] = field(default_factory=dict)
    take_over: dict[str, ClaimRequest] = field(default_factory=dict)
    """By the id of the job to take over: the request's own job, or one in the chain that its delivery began."""

    def answer(self, verdict: Verdict, request: ClaimRequest, view: RowView | None, now: datetime) -> Claim | None:
        """Return the answer if the verdict is final; otherwise note the work that it requires and return ``None``."""
        match verdict:
            case Verdict.DROP_FINAL | Verdict.DROP_STALE:
                return Claim(verdict)
            case Verdict.HOLD:
                return Claim(verdict, look_again=_lease_left(view, now))
            case Verdict.ADOPT:
                self.adopt.setdefault(request.job_id, request)
            case Verdict.TAKE_OVER:
                self.take_over.setdefault(request.job_id, request)
            case Verdict.GRANT:
                self.grant.append(request)
            case Verdict.PARK:
                raise AssertionError("`judge` never parks a job; only admission to a group does")
            case _:
                assert_never(verdict)
        return None

    def groups(self, rows: Mapping[str, Row]) -> set[str]:
        """The groups that must be locked for this work."""
        adopted = {request.adopt.group for request in self.adopt.values() if request.adopt is not None}
        return {name for name in (*adopted, *(rows[job_id].group_key for job_id in self.take_over)) if name is not None}


def first_of_each(requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
    """Return one request for each dispatch: an UPDATE joined with two rows for one job may use either of them."""
    first: dict[tuple[str, int], ClaimRequest] = {}
    for request in requests:
        first.setdefault((request.job_id, request.dispatch), request)
    return list(first.values())


def _lease_left(view: RowView | None, now: datetime) -> timedelta:
    assert view is not None
    assert view.owner is not None
    return max(view.owner.lease_until - now, COME_AGAIN)
