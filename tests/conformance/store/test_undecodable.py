"""A job of a group that no worker can decode: its row says so, and blocks its group until somebody acts."""

from __future__ import annotations

import asyncio
from typing import Any

from jq_actors.errors import DecodeError
from jq_actors.events import DeliveryDropped, JobUnhandled
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import Succeeded
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore
from jq_actors.worker.executor import Executor
from jq_actors.worker.ledger import RowLedger
from tests.support.clock import FakeClock
from tests.support.lives import HandBridge, HandSlot, RecordingDelivery
from tests.support.waiting import eventually

from .grouped import HOUR, is_counted, states, the_group
from .stores import World, got, job_ids, new_job, request_of

SLOT = "coroutines:mail"
NO_NAME = "a name that no actor can have"


class Worker:
    """An executor on a real store; the test ends its runs."""

    def __init__(self, db: World, store: SqlStore) -> None:
        self.store, self.bridge, self.slot = store, HandBridge(), HandSlot(SLOT)
        store.fits = {SLOT: frozenset({("mail", "send_mail"), ("mail", NO_NAME)})}
        self.ledger = RowLedger(store, db.events)
        bridge: Any = self.bridge
        self.executor = Executor(self.ledger, bridge, {}, GroupRules(), FakeClock(), db.events)

    async def lead(self, job: NewJob) -> RecordingDelivery:
        """A delivery of ``job``, led to its end; what runs succeeds."""
        delivery = RecordingDelivery(job.body, "mail")
        command = self.executor.receive(delivery)
        if isinstance(command, DecodeError):
            await self.executor.refuse(delivery, command)
            return delivery
        life = asyncio.create_task(self.executor.process(delivery, command, self.slot))
        await eventually(lambda: self.bridge.runs, 10, "the run")
        self.bridge.end(0, Succeeded())
        await life
        return delivery


async def sent(store: SqlStore, *actors: str) -> list[NewJob]:
    """Jobs of one group, of these actors."""
    jobs = []
    for job_id, actor in zip(job_ids(len(actors)), actors, strict=True):
        jobs.append(new_job(job_id, actor=actor, body=body_of(job_id, actor), group="g"))
    await store.insert(jobs, publish_lease=HOUR)
    return jobs


def body_of(job_id: JobId, actor: str) -> bytes:
    ours = {"jq": {"v": 1, "row": True, "group": "g"}}
    return JobCommand("mail", actor, (), {}, ours, message_id=job_id, message_timestamp=1).encode()


async def test_the_first_of_its_group_is_set_aside_and_those_behind_it_can_be_let_past(db: World) -> None:
    store = await db.worker()
    worker, seen = Worker(db, store), db.record(DeliveryDropped)
    bad, good = await sent(store, NO_NAME, "send_mail")

    delivery = await worker.lead(bad)

    assert delivery.endings == ["ack"]
    assert [event.reason for event in seen.of(DeliveryDropped)] == ["undecodable"]
    row = await got(store, bad)
    assert (row.state, NO_NAME in (row.reason or "")) == (JobState.UNHANDLED, True)
    assert await states(db, [good]) == ["waiting"]
    assert bad.id in ((await the_group(store)).reason or "")

    await store.move(good.id, None)
    [dispatch] = await store.take_unpublished(None, 10, HOUR)
    assert (dispatch.job_id, await is_counted(db)) == (good.id, True)
    claim = await store.claim(request_of(good, dispatch=dispatch.dispatch))
    assert claim.verdict is Verdict.GRANT


async def test_one_that_follows_another_is_given_up_and_nothing_is_left_running(db: World) -> None:
    store = await db.worker()
    worker, seen = Worker(db, store), db.record(JobUnhandled)
    first, bad, behind = await sent(store, "send_mail", NO_NAME, "send_mail")

    delivery = await worker.lead(first)

    assert (delivery.endings, worker.slot.told) == (["ack"], ["freed"])
    assert await states(db, [first, bad, behind]) == ["succeeded", "unhandled", "waiting"]
    assert [event.job_id for event in seen.of(JobUnhandled)] == [bad.id]
    assert NO_NAME in ((await got(store, bad)).reason or "")
    assert await is_counted(db)
    await worker.ledger.requeue_forgotten()
    assert await states(db, [bad]) == ["unhandled"]
