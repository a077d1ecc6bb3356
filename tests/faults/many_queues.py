"""A hundred actors, each with a queue of its own."""

from __future__ import annotations

from jq_actors import actor
from tests.faults.journal import note_async

COUNT = 100


async def serve(number: int) -> int:
    """Nothing but an entry in the journal."""
    await note_async(number)
    return number


actors = [actor(actor_name=f"serve_{number}", queue_name=f"q{number}")(serve) for number in range(COUNT)]
