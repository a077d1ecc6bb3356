"""What the verdicts over a batch of claims come to: answers, or something to do."""

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
"""When a request that lost every race comes again."""

Row = sa.Row[Any]


@dataclass(slots=True)
class ClaimResults:
    """What became of a batch. Its events are to be told when it is committed."""

    answers: dict[int, Claim] = field(default_factory=dict)
    """By run token."""
    taken: list[LostRun] = field(default_factory=list)
    """Runs of lost workers whose jobs were taken over."""
    failed: list[LostRun] = field(default_factory=list)
    """Those that were one too many."""
    of_groups: list[Event] = field(default_factory=list)
    """What that did to their groups."""

    def grant(self, row: sa.Row[Any], instead: NextJob | None = None) -> None:
        """The job in ``row`` runs: the delivery's own, or another one, ``instead``."""
        attempt = Claim(Verdict.GRANT, row.attempt, row.crashes, instead=instead, group=row.group_key)
        self.answers[row.run_token] = attempt

    @property
    def events(self) -> list[Event]:
        """What to tell."""
        return [*events_of(self.taken, self.failed), *self.of_groups]

    def unanswered(self, requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
        """Those of ``requests`` that have no answer yet."""
        return [request for request in requests if request.run_token not in self.answers]


@dataclass(slots=True)
class Followups:
    """What the verdicts over a batch want done."""

    grant: list[ClaimRequest] = field(default_factory=list)
    adopt: dict[str, ClaimRequest] = field(default_factory=dict)
    take_over: dict[str, ClaimRequest] = field(default_factory=dict)
    """By the job that is taken over: the request's own, or one of the chain that its delivery began."""

    def answer(self, verdict: Verdict, request: ClaimRequest, view: RowView | None, now: datetime) -> Claim | None:
        """The answer, where the verdict is one; else it is noted."""
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
                raise AssertionError("what is parked is said by who admits it, not by a judgement")
            case _:
                assert_never(verdict)
        return None

    def groups(self, rows: Mapping[str, Row]) -> set[str]:
        """The groups whose locks it takes."""
        adopted = {request.adopt.group for request in self.adopt.values() if request.adopt is not None}
        return {name for name in (*adopted, *(rows[job_id].group_key for job_id in self.take_over)) if name is not None}


def first_of_each(requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
    """One for each dispatch: an UPDATE joined with two rows for one job would take any of them."""
    first: dict[tuple[str, int], ClaimRequest] = {}
    for request in requests:
        first.setdefault((request.job_id, request.dispatch), request)
    return list(first.values())


def _lease_left(view: RowView | None, now: datetime) -> timedelta:
    assert view is not None
    assert view.owner is not None
    return max(view.owner.lease_until - now, COME_AGAIN)
