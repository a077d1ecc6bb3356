"""What a relay takes, on every database: each row once, at its time, as the dispatch that it has to be."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failure, Interrupted, Retrying, Succeeded, Unhandled
from jq_actors.store.records import Dispatch
from jq_actors.store.relay.publish_marks import FIRST_PAUSE
from jq_actors.store.relay.publish_queries import FIRST_BACKOFF, MAX_DOUBLINGS
from jq_actors.store.sql import SqlStore

from .stores import World, clock, got, granted, new_job, queued, request_of, settled, unpublished

LEASE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def numbers(dispatches: list[Dispatch]) -> list[tuple[str, int]]:
    return [(dispatch.job_id, dispatch.dispatch) for dispatch in dispatches]


# -- due rows


async def test_due_rows_become_queued_with_the_next_dispatch(db: World) -> None:
    store = await db.worker()
    sooner, later = new_job(due_in=timedelta(seconds=60)), new_job(due_in=timedelta(seconds=90))
    await store.insert([later, sooner], publish_lease=None)
    assert (await store.take_due(10, LEASE)).count == 0
    assert await store.next_due() == sooner.due_at

    await db.execute(sa.update(db.tables.jobs).values(wake_at=clock.wall()))
    due = await store.take_due(10, LEASE)
    taken = due.dispatches
    assert due.count == 2

    # In the order in which they were sent.
    assert numbers(taken) == [(later.id, 2), (sooner.id, 2)]
    assert [dispatch.body for dispatch in taken] == [later.body, sooner.body]
    assert await store.next_due() is None
    assert (await store.take_due(10, LEASE)).count == 0
    assert (await store.claim(request_of(later))).verdict is Verdict.DROP_STALE
    assert (await store.claim(request_of(later, dispatch=2))).verdict is Verdict.GRANT


async def test_retrying_row_is_due_after_its_delay(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    token = await granted(store, job)
    assert await settled(store, job, token, Retrying(Failure(None, "no"), HOUR))
    assert (await store.claim(request_of(job))).verdict is Verdict.DROP_STALE
    due = await store.next_due()
    assert due is not None
    assert HOUR - timedelta(minutes=1) < due - store.now() <= HOUR
    await db.change(job.id, wake_at=clock.wall())
    [dispatch] = (await store.take_due(10, LEASE)).dispatches
    assert (dispatch.job_id, dispatch.dispatch) == (job.id, 2)
    found = await got(store, job)
    assert (found.state, found.attempt, found.reason) == (JobState.QUEUED, 1, None)


async def test_taker_of_a_due_row_that_dies_leaves_it_to_the_next(db: World) -> None:
    store = await db.worker()
    job = new_job(due_in=HOUR)
    await store.insert([job], publish_lease=None)
    await db.change(job.id, wake_at=clock.wall())
    await store.take_due(10, timedelta())
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(job.id, 2)]


# -- unpublished rows


async def test_unpublished_rows_are_taken_once_oldest_first(db: World) -> None:
    store = await db.worker()
    jobs = await unpublished(store, 5)
    first = await store.take_unpublished(None, 3, LEASE)
    rest = await store.take_unpublished(None, 3, LEASE)
    assert [dispatch.job_id for dispatch in first + rest] == [job.id for job in jobs]
    assert await store.take_unpublished(None, 3, LEASE) == []


async def test_publish_lease_keeps_a_row_from_others_until_it_is_over(db: World) -> None:
    store = await db.worker()
    held, over = new_job(), new_job()
    await store.insert([held], publish_lease=LEASE)
    await store.insert([over], publish_lease=timedelta())
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(over.id, 1)]


async def test_published_row_is_taken_no_more(db: World) -> None:
    store = await db.worker()
    [marked, stale] = await unpublished(store, 2)
    await store.take_unpublished(None, 10, timedelta())
    await store.mark_published([(marked.id, 1), (stale.id, 7)])
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(stale.id, 1)]


async def test_mark_counts_only_under_its_own_lease(db: World) -> None:
    slow, other = await db.worker(), await db.worker()
    [job] = await unpublished(slow)
    await slow.take_unpublished(None, 10, timedelta())
    [dispatch] = await other.take_unpublished(None, 10, timedelta())
    # What it published was claimed, and the worker lost: the row is unpublished again, and leased to another relay.
    await slow.mark_published([(job.id, 1)])
    await slow.release_publish_lease([(job.id, 1)])
    assert (await db.the_row(job.id)).publish_at is not None
    await other.mark_published([(dispatch.job_id, dispatch.dispatch)])
    assert (await db.the_row(job.id)).publish_at is None


async def test_released_row_is_taken_at_once_and_in_its_old_place(db: World) -> None:
    store = await db.worker()
    [first, second] = await unpublished(store, 2)
    await store.take_unpublished(None, 1, LEASE)
    await store.release_publish_lease([(first.id, 1)])
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(first.id, 1), (second.id, 1)]
    await store.mark_published([(first.id, 1)])
    await store.release_publish_lease([(first.id, 1), (second.id, 2)])
    assert await store.take_unpublished(None, 10, LEASE) == []


async def test_what_the_broker_refuses_comes_again_behind_all_others(db: World) -> None:
    store = await db.worker()
    refused = await unpublished(store, 5, queue="broken")
    taken = await store.take_unpublished(None, 5, LEASE)
    [later] = await unpublished(store)
    await store.note_refused([(dispatch.job_id, dispatch.dispatch) for dispatch in taken])
    assert numbers(await store.take_unpublished(None, 5, LEASE)) == [(later.id, 1)]
    pauses = []
    for _ in range(MAX_DOUBLINGS + 2):
        row = await db.the_row(refused[0].id)
        pauses.append(round((row.publish_at - store.now()) / FIRST_PAUSE))
        await db.change(refused[0].id, publish_at=store.now() - timedelta(seconds=1))
        [again] = await store.take_unpublished(None, 1, LEASE)
        await store.note_refused([(again.job_id, again.dispatch)])
    assert pauses == sorted(pauses)
    assert 32 <= pauses[-1] <= 64


async def test_room_bounds_each_queue(db: World) -> None:
    store = await db.worker()
    mail, heavy, _ = [await unpublished(store, 5, queue=queue) for queue in ("mail", "heavy", "other")]
    await store.insert([new_job(group="g")], publish_lease=None)
    taken = await store.take_unpublished({"heavy": 2, "mail": 3, "empty": 4, "full": 0}, 100, LEASE)
    assert [dispatch.job_id for dispatch in taken] == [job.id for job in heavy[:2] + mail[:3]]
    assert len(await store.take_unpublished({"heavy": 9, "mail": 9}, 4, LEASE)) == 4
    assert await store.take_unpublished({}, 100, LEASE) == []


async def test_claimed_row_is_published(db: World) -> None:
    store = await db.worker()
    [job] = await unpublished(store)
    await store.take_unpublished(None, 10, timedelta())
    await granted(store, job)  # the delivery came before its mark
    assert await store.take_unpublished(None, 10, LEASE) == []
    await store.mark_published([(job.id, 1)])
    await store.release_publish_lease([(job.id, 1)])
    assert (await got(store, job)).state is JobState.RUNNING
    assert await store.take_unpublished(None, 10, LEASE) == []


async def test_row_without_payload_is_set_aside(db: World) -> None:
    store = await db.worker()
    broken, whole = await unpublished(store, 2)
    payloads = db.tables.payloads
    await db.execute(sa.delete(payloads).where(payloads.c.job_id == broken.id))
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(whole.id, 1)]
    found = await got(store, broken)
    assert found.state is JobState.UNHANDLED
    assert (found.reason or "").startswith("its payload is gone")


# -- rows that the broker should have


async def test_only_queued_and_published_rows_can_be_missing(db: World) -> None:
    store = await db.worker()
    queued_, running, done, unpublished_, waiting = await queued(store, 5)
    published = [(job.id, 1) for job in (queued_, running, done, waiting)]
    await store.mark_published(published)
    await granted(store, running)
    assert await settled(store, done, await granted(store, done), Succeeded())
    await db.change(waiting.id, state="waiting")
    [other] = await queued(store, queue="heavy")
    await store.mark_published([(other.id, 1)])

    assert await store.count_published("mail", store.now(), 10) == 1
    assert await store.count_published("mail", store.now() - HOUR, 10) == 0
    assert await store.take_missing("mail", store.now() - HOUR, 10, LEASE) == []
    assert numbers(await store.take_missing("mail", store.now(), 10, LEASE)) == [(queued_.id, 1)]
    assert await store.count_published("mail", store.now(), 10) == 0
    assert (await db.the_row(unpublished_.id)).redispatches == 0


async def test_count_stops_at_its_limit(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 20)
    await store.mark_published([(job.id, 1) for job in jobs])
    assert await store.count_published("mail", store.now(), 7) == 7


async def test_missing_row_backs_off_each_time(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    await store.mark_published([(job.id, 1)])
    for times in range(MAX_DOUBLINGS + 3):
        wait = timedelta() if times == 0 else FIRST_BACKOFF * 2 ** min(times, MAX_DOUBLINGS)
        second = timedelta(seconds=1)
        if times:
            await db.change(job.id, published_at=store.now() - wait + second)
            assert await store.take_missing("mail", store.now(), 10, LEASE) == []
        await db.change(job.id, published_at=store.now() - wait - second)
        assert numbers(await store.take_missing("mail", store.now(), 10, LEASE)) == [(job.id, 1)]
        assert (await db.the_row(job.id)).redispatches == times + 1
        await store.mark_published([(job.id, 1)])
    # Any copy may claim it, and a later dispatch starts afresh.
    token = await granted(store, job)
    assert await settled(store, job, token, Retrying(Failure(None, "no"), timedelta()))
    await store.take_due(10, LEASE)
    assert (await db.the_row(job.id)).redispatches == 0


# -- the memory of an embedded worker


async def test_what_lies_in_a_workers_memory_is_given_back_when_it_leaves(db: World) -> None:
    leaving, staying = await db.worker(), await db.worker()
    waits, done, interrupted, of_broker = jobs = await queued(leaving, 4)
    [of_other] = await queued(staying)
    await leaving.mark_published([(job.id, 1) for job in jobs[:3]], lane_owner=True)
    await leaving.mark_published([(of_broker.id, 1)])
    await staying.mark_published([(of_other.id, 1)], lane_owner=True)
    assert await settled(leaving, done, await granted(leaving, done), Succeeded())
    assert await settled(leaving, interrupted, await granted(leaving, interrupted), Interrupted())
    await leaving.leave()
    taken = await staying.take_unpublished(None, 10, LEASE)
    assert numbers(taken) == [(waits.id, 1), (interrupted.id, 1)]


async def test_mark_that_comes_after_its_claim_still_says_whose_memory_it_is(db: World) -> None:
    store, other = await db.worker(), await db.worker()
    [job] = await queued(store)
    token = await granted(store, job)
    await store.mark_published([(job.id, 1)], lane_owner=True)
    assert await settled(store, job, token, Interrupted())
    await store.leave()
    assert numbers(await other.take_unpublished(None, 10, LEASE)) == [(job.id, 1)]


# -- unhandled rows


async def test_unhandled_rows_are_offered_to_who_knows_their_actor(db: World) -> None:
    store = await db.worker()
    mine, theirs = new_job(actor="mine"), new_job(actor="theirs")
    await store.insert([mine, theirs], publish_lease=LEASE)
    for job in (mine, theirs):
        assert await settled(store, job, await granted(store, job), Unhandled("no such actor"))
    assert await store.offer_unhandled(["mine", "another"]) == [mine.id]
    found = await got(store, mine)
    assert (found.state, found.dispatch, found.attempt, found.reason) == (JobState.QUEUED, 2, 0, None)
    assert (await got(store, theirs)).state is JobState.UNHANDLED
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(mine.id, 2)]
    assert await store.offer_unhandled([]) == []


# -- several relays at once


@pytest.mark.parametrize("kind", ["due", "unpublished", "missing"])
async def test_racing_relays_take_each_row_once(db: World, kind: str) -> None:
    stores = [await db.worker() for _ in range(4)]
    jobs = await queued(stores[0], 600)
    past = clock.wall() - HOUR
    match kind:
        case "due":
            await db.execute(sa.update(db.tables.jobs).values(state="scheduled", publish_at=None, wake_at=past))
        case "unpublished":
            await db.execute(sa.update(db.tables.jobs).values(publish_at=past))
        case _:
            await db.execute(sa.update(db.tables.jobs).values(publish_at=None, published_at=past))
    taken = Counter[str]()

    async def relay(store: SqlStore) -> None:
        while True:
            match kind:
                case "due":
                    found = (await store.take_due(25, LEASE)).dispatches
                case "unpublished":
                    found = await store.take_unpublished(None, 25, LEASE)
                case _:
                    found = await store.take_missing("mail", clock.wall() - HOUR / 2, 25, LEASE)
            if not found:
                return
            taken.update(dispatch.job_id for dispatch in found)

    # Until all see nothing: one that skipped what another had locked may end early.
    while sum(taken.values()) < len(jobs):
        await asyncio.gather(*(relay(store) for store in stores))
    assert taken == {job.id: 1 for job in jobs}


async def test_unhandled_rows_are_offered_by_the_reason_they_have(db: World) -> None:
    store = await db.worker()
    unknown, misfit = (await queued(store, 2, actor="mine"))[:2]
    for job, reason in ((unknown, "no actor called 'mine'"), (misfit, "argument missing")):
        await settled(store, job, await granted(store, job), Unhandled(reason))
    assert await store.offer_unhandled(["mine"], "no actor called") == [unknown.id]
    assert (await got(store, misfit)).state == JobState.UNHANDLED
    assert await store.offer_unhandled(["mine"]) == [misfit.id]
