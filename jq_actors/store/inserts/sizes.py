"""How many bytes a thing is in a batch, more or less: only what can be much is counted."""

from __future__ import annotations

from jq_actors.model.outcome import Failed, Retrying, Succeeded
from jq_actors.store.records import ClaimRequest, Settlement

from .inserts import Insertion


def size_of_insertion(insertion: Insertion) -> int:
    """Of the jobs of one sending."""
    jobs, _ = insertion
    return sum(len(job.body) for job in jobs)


def size_of_request(request: ClaimRequest) -> int:
    """Of a claim."""
    return 0 if request.adopt is None else len(request.adopt.body)


def size_of_settlement(settlement: Settlement) -> int:
    """Of an outcome. One that has no stored form is small: it is refused."""
    match settlement.outcome:
        case Succeeded(None):
            return 0
        case Succeeded() as succeeded:
            try:
                return len(succeeded.encoded() or "")
            except (TypeError, ValueError, RecursionError):
                return 0
        case Failed(failure) | Retrying(failure):
            return len(failure.traceback)
        case _:
            return 0
