"""What the verdicts over a batch of claims come to: answers, or something to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

import sqlalchemy as sa

from jq_actors.protocol import RowView, Verdict

from .records import Claim, ClaimRequest

COME_AGAIN = timedelta(milliseconds=200)
"""When a request that lost every race comes again."""

Row = sa.Row[Any]


@dataclass(slots=True)
class ToDo:
    """What the verdicts over a batch want done."""

    adopt: dict[str, ClaimRequest] = field(default_factory=dict)
    take_over: dict[str, ClaimRequest] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    """Those that ask for their turn, by run token."""

    def answer(
        self, verdict: Verdict, request: ClaimRequest, row: Row | None, view: RowView | None, now: datetime
    ) -> Claim | None:
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
            case Verdict.TURN:
                assert row is not None
                self.groups[request.run_token] = row.group_key
            case Verdict.GRANT:
                pass  # it changed between the UPDATE and this look: the next round grants it
            case Verdict.PARK | Verdict.LEAVE:
                raise AssertionError(f"a turn decides on {verdict}, not a judgement")
            case _:
                assert_never(verdict)
        return None


def _lease_left(view: RowView | None, now: datetime) -> timedelta:
    assert view is not None
    assert view.owner is not None
    return max(view.owner.lease_until - now, COME_AGAIN)
