"""A job that followed another one in its group, and is forgotten here, while an older copy of it comes."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from jq_actors.model.claim_rules import Verdict
from jq_actors.worker.intake import THREADS
from jq_actors.worker.ledger import RowLedger

from .grouped import sent
from .stores import World
from .turns import FITS, a_chain, asks, ends


async def test_it_is_published_again(db: World) -> None:
    store = await db.worker()
    store.fits = FITS
    first, second = await sent(store, 2)
    await store.move(second.id, None)  # the first one waits again: its copy is stale
    request = asks(second, dispatch=2)
    claim = await store.claim(request)
    assert claim.verdict is Verdict.GRANT
    follower = (await ends(store, request, claim, chain=a_chain())).next
    assert follower is not None
    assert follower.job_id == first.id
    # An error of ours has ended its life here: nothing knows of its token. Now its old copy comes.
    command: Any = SimpleNamespace(job_id=first.id, promised=True)
    delivery: Any = SimpleNamespace(dispatch=1, redelivered=False, queue="mail")
    await RowLedger(store, db.events).claim(delivery, command, 4711, THREADS)
    taken = await store.take_unpublished(None, 10, timedelta(minutes=1))
    assert [dispatch.job_id for dispatch in taken] == [first.id]
