"""Approximate sizes, in bytes, of what goes into a batch. Only parts that can be large are counted."""

from __future__ import annotations

from jq_actors.model.outcome import Failed, Retrying, Succeeded
from jq_actors.store.records import ClaimRequest, Settlement

from .inserts import Insertion


def size_of_insertion(insertion: Insertion) -> int:
    """The size of the jobs of one send."""
    jobs, _ = insertion
    return sum(len(job.body) for job in jobs)


def size_of_request(request: ClaimRequest) -> int:
    """The size of a claim."""
    return 0 if request.adopt is None else len(request.adopt.body)


def size_of_settlement(settlement: Settlement) -> int:
    """The size of an outcome. One that cannot be stored counts as small: it is refused."""
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
