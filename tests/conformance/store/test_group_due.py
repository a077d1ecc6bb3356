"""Jobs of groups whose time comes: retries in their places, or passed; delayed ones behind what was sent before."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failure, Interrupted, Outcome, Retrying, Snoozed, Unhandled
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, ids_of, numbers, order_of, sent, states, the_group, with_rule
from .stores import World, clock
from .turns import asks, ends, runs

FAILURE = Failure(ValueError("no"), "ValueError: no")
SECOND = timedelta(seconds=1)


async def due(db: World, store: SqlStore, *jobs: NewJob) -> list[tuple[str, int]]:
    """Their time comes, and a relay looks: what it has to publish."""
    for n, job in enumerate(jobs):
        time = clock.wall() - (len(jobs) - n) * SECOND
        await db.change(job.id, due_at=time, wake_at=time)
    taken = await store.take_due(10, HOUR)
    assert taken.count == len(jobs)
    return [*numbers(taken.dispatches)]


# -- retries


@pytest.mark.parametrize("outcome", [Retrying(FAILURE, HOUR), Snoozed(HOUR)], ids=["retrying", "snoozed"])
async def test_retry_keeps_its_place_and_goes_on_in_it(led: World, outcome: Outcome) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, outcome)
    row = await led.the_row(first.id)
    assert (row.state, row.wake_at) == (JobState.RETRYING, row.due_at)
    assert await states(led, [second]) == ["waiting"]
    assert (await the_group(store)).reason == f"blocked by job {first.id}, retrying until " + row.due_at.isoformat(
        timespec="seconds"
    )
    # Its old delivery does not run it before its time.
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_STALE
    assert await due(led, store, first) == [(first.id, 2)]
    assert await states(led, [first, second]) == ["queued", "waiting"]
    await runs(store, first)
    assert await states(led, [second]) == ["queued"]


async def test_relay_is_told_when_a_retry_is_due(led: World) -> None:
    store = await led.worker()
    times: list[object] = []
    store.on_due = times.append
    [job] = await sent(store)
    await runs(store, job, Retrying(FAILURE, HOUR))
    row = await led.the_row(job.id)
    assert times == [row.due_at]
    assert await store.next_due() == row.due_at


async def test_retry_that_is_due_in_a_paused_group_waits(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Retrying(FAILURE, HOUR))
    await store.pause_group("g", "by ops")
    assert await due(led, store, first) == []
    assert await states(led, [first, second]) == ["waiting", "waiting"]
    assert await store.resume_group("g") == 1
    assert await states(led, [first, second]) == ["queued", "waiting"]


async def test_those_behind_pass_a_retry_that_may_be_overtaken(led: World) -> None:
    store = await led.worker()
    with_rule(store, overtake=True)
    first, second, third = await sent(store, 3)
    await runs(store, first, Retrying(FAILURE, HOUR))
    assert await states(led, [first, second, third]) == ["retrying", "queued", "waiting"]
    # Due, it comes next, in its old place, and does not take the place of what is queued by now ...
    request = asks(second, dispatch=2)
    answer = await store.claim(request)
    assert await due(led, store, first) == []
    assert await states(led, [first, second, third]) == ["waiting", "running", "waiting"]
    assert await order_of(store) == ids_of([first, second, third])
    await ends(store, request, answer)
    assert await states(led, [first, third]) == ["queued", "waiting"]


async def test_overtaken_retry_that_is_due_takes_the_place_of_one_that_has_not_started(led: World) -> None:
    store = await led.worker()
    with_rule(store, overtake=True)
    first, second = await sent(store, 2)
    await runs(store, first, Retrying(FAILURE, HOUR))
    assert await due(led, store, first) == [(first.id, 2)]
    assert await states(led, [first, second]) == ["queued", "waiting"]
    assert (await store.claim(asks(second, dispatch=2))).verdict is Verdict.DROP_STALE


async def test_with_room_for_several_a_retry_blocks_one_place(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    jobs = await sent(store, 4)
    await runs(store, jobs[0], Retrying(FAILURE, HOUR))
    assert await states(led, jobs) == ["retrying", "queued", "waiting", "waiting"]
    await runs(store, jobs[1])
    assert await states(led, jobs[2:]) == ["queued", "waiting"]
    assert await due(led, store, jobs[0]) == [(jobs[0].id, 2)]
    assert await states(led, jobs) == ["queued", "succeeded", "queued", "waiting"]


# -- delayed


async def test_delayed_job_takes_its_place_when_it_is_due(led: World) -> None:
    store = await led.worker()
    late, [first] = await sent(store, 2, due_in=HOUR), await sent(store)
    assert await states(led, [*late, first]) == ["scheduled", "scheduled", "queued"]
    [second] = await sent(store)
    assert await due(led, store, late[1], late[0]) == []
    [third] = await sent(store)
    in_order = [first, second, late[1], late[0], third]
    assert await order_of(store) == ids_of(in_order)
    for job in in_order:
        await runs(store, job)


async def test_delayed_job_of_a_free_group_is_queued_when_it_is_due(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    late = await sent(store, 3, due_in=HOUR)
    assert await due(led, store, *late) == [(late[0].id, 2), (late[1].id, 2)]
    assert await states(led, late) == ["queued", "queued", "waiting"]
    row = await led.the_row(late[0].id)
    assert row.publish_at > clock.wall() + HOUR / 2, "leased to the relay that publishes it"


async def test_delayed_job_that_is_due_in_a_paused_group_waits(led: World) -> None:
    store = await led.worker()
    [late] = await sent(store, 1, due_in=HOUR)
    await store.pause_group("g", "by ops")
    assert await due(led, store, late) == []
    assert await states(led, [late]) == ["waiting"]
    await store.resume_group("g")
    await runs(store, late)


# -- blocked by what no worker can run


async def test_job_that_no_worker_can_run_blocks_its_group_until_one_knows_it(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Unhandled("no actor called 'send_mail'"))
    assert await states(led, [first, second]) == ["unhandled", "waiting"]
    assert await store.offer_unhandled(["send_mail"]) == [first.id]
    assert await states(led, [first, second]) == ["queued", "waiting"]
    await runs(store, first)
    await runs(store, second)


async def test_unhandled_job_is_offered_in_a_paused_group_and_waits(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Unhandled("no actor called 'send_mail'"))
    await store.pause_group("g", "by ops")
    assert await store.offer_unhandled(["send_mail"]) == [first.id]
    assert await states(led, [first, second]) == ["waiting", "waiting"]
    assert await store.resume_group("g") == 1
    await runs(store, first)


async def test_unhandled_job_that_others_were_moved_before_waits_when_it_is_offered(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await runs(store, first, Unhandled("no actor called 'send_mail'"))
    await store.move(second.id, None)
    assert await states(led, [first, second, third]) == ["unhandled", "queued", "waiting"]
    assert await store.offer_unhandled(["send_mail"]) == [first.id]
    assert await states(led, [first, second, third]) == ["waiting", "queued", "waiting"]
    await runs(store, second)
    assert await states(led, [first, third]) == ["queued", "waiting"]


async def test_dispatch_that_cannot_be_decoded_is_set_aside_and_blocks_its_group(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    assert await store.set_aside(first.id, 7, "no JSON") is True  # another dispatch is the valid one
    assert await states(led, [first]) == ["queued"]
    assert await store.set_aside(first.id, 1, "no JSON\0") is True
    row = await led.the_row(first.id)
    assert (row.state, row.reason, row.publish_at) == (JobState.UNHANDLED, "no JSON\\x00", None)
    assert (await the_group(store)).reason == f"blocked by job {first.id}, which no worker can run: no JSON\\x00"
    assert await store.set_aside(second.id, 1, "no JSON") is True  # a copy of what waits: its row stays as it is
    assert await states(led, [second]) == ["waiting"]
    await store.cancel_group("g", "not ours")
    assert await states(led, [first, second]) == ["cancelled"] * 2


# -- several relays


async def test_racing_relays_wake_each_job_once(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    names = [f"g{n}" for n in range(40)]
    jobs = {name: await sent(stores[0], 3, name) for name in names}
    for first, _, _ in jobs.values():
        await runs(stores[0], first, Retrying(FAILURE, HOUR))
    late = [(await sent(stores[0], 1, name, due_in=HOUR))[0] for name in names]
    for job in [*late, *(first for first, _, _ in jobs.values())]:
        await db.change(job.id, due_at=clock.wall(), wake_at=clock.wall())
    woken, published = 0, Counter[str]()
    while woken < 80:
        for taken in await asyncio.gather(*(store.take_due(7, HOUR) for store in stores)):
            woken += taken.count
            published.update(dispatch.job_id for dispatch in taken.dispatches)
    assert published == Counter(first.id for first, _, _ in jobs.values())
    assert await states(db, late) == ["waiting"] * 40


async def test_interrupted_in_a_paused_group_it_waits_and_gives_its_place_away(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    answer = await store.claim(request)
    await store.pause_group("g", "by ops")
    await ends(store, request, answer, Interrupted())
    assert await states(led, [first, second]) == ["waiting", "waiting"]
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_STALE
    await store.move(second.id, None)
    await store.resume_group("g")
    assert await states(led, [first, second]) == ["waiting", "queued"]
