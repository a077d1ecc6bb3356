"""Publishing behind the callers: in order, within a window, and in the rows it is known what became of it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

import pytest

from jq_actors.errors import StoreUnavailableError
from jq_actors.events import MarkLost, Redispatched, SendDeferred, TaskFailed
from jq_actors.model.job import JobId
from jq_actors.relay.dispatcher import BATCH, FIRST_CONNECT, PACE
from jq_actors.relay.publish_notes import PAUSE
from jq_actors.store.records import Dispatch
from jq_actors.transport.port import Deferred, NotPublished, Outgoing, Published, PublishResult
from tests.support.publishing import AWAY, UNKNOWN, PublishingSite


def dispatches(count: int, *, first: int = 0, group: str | None = None, queue: str = "mail") -> list[Dispatch]:
    numbers = range(first, first + count)
    return [Dispatch(JobId(f"job {n}"), 3, queue, b"%d" % n, priority=n % 10, group=group) for n in numbers]


def ids(some: Sequence[Dispatch]) -> list[str]:
    return [dispatch.job_id for dispatch in some]


# -- behind the callers


async def test_what_is_left_here_is_published_as_it_is_and_marked() -> None:
    site = PublishingSite()
    some = dispatches(2)
    site.dispatcher.dispatch(some)
    assert site.broker.published == [], "nothing happens in the caller's own turn"
    await site.settled()
    assert site.broker.published == [
        Outgoing(JobId("job 0"), 3, "mail", b"0", 0),
        Outgoing(JobId("job 1"), 3, "mail", b"1", 1),
    ]
    assert site.rows.marked == [("published", ids(some), False)]
    assert site.seen.seen == []


async def test_dispatches_of_one_turn_of_the_loop_share_a_publishing() -> None:
    site = PublishingSite()
    for number in range(5):
        site.dispatcher.dispatch(dispatches(1, first=number))
    await site.settled()
    assert site.broker.batches == [5]
    assert site.published == ids(dispatches(5))


async def test_what_comes_in_quick_succession_shares_a_publishing_too() -> None:
    site = PublishingSite()
    for number in range(4):
        site.dispatcher.dispatch(dispatches(1, first=number))
        await site.settled()
    assert site.broker.batches == [1], "the first one waits for nothing"
    await site.clock.advance(PACE)
    assert site.broker.batches == [1, 3]
    assert site.published == ids(dispatches(4))


async def test_a_publishing_that_takes_long_holds_up_no_other() -> None:
    site = PublishingSite()
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(2))
    await site.settled()
    site.dispatcher.dispatch(dispatches(3, first=2))
    await site.clock.advance(PACE)
    assert site.published == ids(dispatches(5))
    assert site.rows.marked == []


async def test_no_more_are_on_their_way_than_the_window_holds_and_their_order_stays() -> None:
    site = PublishingSite(window=3)
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(8))
    await site.settled()
    assert site.published == ids(dispatches(3))
    site.broker.answers.set()
    await site.settled()
    assert site.broker.batches == [3, 3, 2]
    assert site.published == ids(dispatches(8))


async def test_a_large_sending_goes_out_in_batches() -> None:
    site = PublishingSite(window=10 * BATCH)
    site.dispatcher.dispatch(dispatches(2 * BATCH + 1))
    await site.settled()
    assert site.broker.batches == [BATCH, BATCH, 1]


async def test_a_job_of_a_group_goes_into_the_plain_queue_like_any_other() -> None:
    site = PublishingSite()
    site.dispatcher.dispatch(dispatches(1, group="pair-7"))
    await site.settled()
    [outgoing] = site.broker.published
    assert (outgoing.queue, outgoing.lane, outgoing.relayed) == ("mail", None, False)


async def test_each_is_noted_as_what_it_came_to() -> None:
    site = PublishingSite()
    site.broker.results = [Published(), AWAY, UNKNOWN, Deferred()]
    site.dispatcher.dispatch(dispatches(4))
    await site.settled()
    assert sorted(site.rows.marked) == [
        ("published", ["job 0"], False),
        ("refused", ["job 1"], False),
        ("released", ["job 3"], False),
    ]
    assert site.wakes == [None], "a relay looks at once for what was released"
    assert site.seen.seen == [SendDeferred(2, "away")], "what merely waits for room is no trouble"


async def test_what_lies_in_a_queue_of_this_process_is_marked_as_its_own_and_at_once() -> None:
    site = PublishingSite(shared=False)
    for number in range(2):
        site.dispatcher.dispatch(dispatches(1, first=number))
        await site.settled()
    assert site.rows.marked == [("published", ["job 0"], True), ("published", ["job 1"], True)]


async def test_marks_gather_while_nobody_waits_for_them() -> None:
    site = PublishingSite()
    for number in range(4):
        site.dispatcher.dispatch(dispatches(1, first=number))
        await site.settled()
    assert site.rows.marked == [("published", ["job 0"], False)]
    await site.clock.advance(PAUSE)
    assert site.rows.marked[1:] == [("published", ["job 1", "job 2", "job 3"], False)]


async def test_a_mark_that_cannot_be_written_is_told_and_nothing_else() -> None:
    site = PublishingSite()
    site.rows.mark_error = StoreUnavailableError("away")
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    assert site.seen.seen == [MarkLost("away")]


async def test_an_error_of_the_transport_is_told_and_the_next_ones_are_published() -> None:
    site = PublishingSite(window=1)
    site.broker.error = ValueError("a defect")
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    assert [event.error for event in site.seen.of(TaskFailed)] == ["ValueError: a defect"]
    assert site.rows.marked == [], "nobody knows: the lease has to run out"
    site.broker.error = None
    site.dispatcher.dispatch(dispatches(1, first=1))
    await site.clock.advance(PACE)
    assert site.rows.marked == [("published", ["job 1"], False)]


async def test_what_is_behind_does_not_carry_the_context_of_the_caller() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []
    site = PublishingSite()

    async def publish(batch: Sequence[Outgoing]) -> list[PublishResult]:
        seen.append(tenant.get())
        return [Published() for _ in batch]

    site.broker.publish = publish  # type: ignore[method-assign]
    tenant.set("the sender")
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    assert seen == ["nobody"]


# -- back-pressure


async def test_who_sends_waits_while_the_window_is_full() -> None:
    site = PublishingSite(window=2)
    assert await site.dispatcher.room()
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(2))
    sending = asyncio.create_task(site.dispatcher.room())
    await site.settled()
    assert not sending.done()
    site.broker.answers.set()
    assert await sending


@pytest.mark.parametrize("trouble", ["away", "blocked"])
async def test_nobody_waits_for_a_broker_that_takes_nothing(trouble: str) -> None:
    site = PublishingSite(window=2)
    assert await site.dispatcher.room()  # it was there
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(2))
    await site.settled()
    site.broker.connected, site.broker.blocked = trouble != "away", trouble == "blocked"
    assert not await site.dispatcher.room()


async def test_the_wait_for_room_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    site = PublishingSite(window=1)
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    monkeypatch.setattr(site.dispatcher, "_deadline", 0.01)
    assert not await site.dispatcher.room()


# -- at the begin of a process


async def test_nobody_waits_for_the_first_connection_but_what_is_left_here() -> None:
    site = PublishingSite(window=2)
    site.broker.connected = False
    assert await site.dispatcher.room()
    site.dispatcher.dispatch(dispatches(2))
    assert not await site.dispatcher.room(), "what is more is stored for the relays"
    await site.settled()
    assert site.broker.waited == [FIRST_CONNECT]
    assert site.published == []
    site.broker.connected = True
    site.broker.comes.set()
    await site.settled()
    assert site.published == ids(dispatches(2))


async def test_when_the_first_connection_does_not_come_the_rows_are_given_to_the_relays() -> None:
    site = PublishingSite()
    site.broker.connected = False
    site.dispatcher.dispatch(dispatches(2))
    await site.settled()
    site.broker.comes.set()
    await site.settled()
    assert site.rows.marked == [("released", ["job 0", "job 1"], False)]
    assert site.seen.seen == [SendDeferred(2, "no connection to the broker")]
    assert not await site.dispatcher.room()
    site.dispatcher.dispatch(dispatches(1, first=2))
    await site.clock.advance(PACE)
    assert site.broker.waited == [FIRST_CONNECT], "it is waited for once"
    assert site.rows.marked[1:] == [("released", ["job 2"], False)]


# -- for those who wait


async def test_the_relay_waits_until_all_is_noted() -> None:
    site = PublishingSite()
    site.broker.results = [Published(), AWAY, UNKNOWN]
    site.rows.answers.clear()
    publishing = asyncio.create_task(site.dispatcher.publish(dispatches(3), "missing"))
    await site.settled()
    assert not publishing.done()
    site.rows.answers.set()
    assert await publishing == [Published(), AWAY, UNKNOWN]
    assert site.rows.marked == [("published", ["job 0"], False), ("refused", ["job 1"], False)]
    assert site.seen.seen == [Redispatched("missing", 1)]
    assert all(outgoing.relayed for outgoing in site.broker.published)
    assert site.wakes == [], "it is the relay itself that published"


async def test_rows_that_a_relay_took_without_room_for_them_are_given_back() -> None:
    site = PublishingSite(shared=False)
    site.broker.room = {"mail": 2, "full": 0}
    some = [*dispatches(3), *dispatches(1, first=3, queue="full")]
    results = await site.dispatcher.publish(some, "due")
    assert results == [Published(), Published(), Deferred(), Deferred()]
    assert site.published == ["job 0", "job 1"]
    assert site.rows.marked[1:] == [("released", ["job 2", "job 3"], False)]


async def test_who_wants_the_confirm_waits_for_it_and_not_for_the_mark() -> None:
    site = PublishingSite()
    site.rows.answers.clear()
    site.broker.results = [AWAY, Published()]
    assert await site.dispatcher.confirm(dispatches(2)) == [AWAY, Published()]
    assert site.seen.seen == [], "the sender tells it"
    site.rows.answers.set()
    await site.settled()
    assert sorted(site.rows.marked) == [("published", ["job 1"], False), ("refused", ["job 0"], False)]


# -- the end


async def test_closing_publishes_what_waits_and_writes_the_marks() -> None:
    site = PublishingSite(window=2)
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    site.dispatcher.dispatch(dispatches(5, first=1))
    await site.dispatcher.close(1.0)
    assert site.published == ids(dispatches(6))
    assert [job for _, jobs, _ in site.rows.marked for job in jobs] == ids(dispatches(6))
    assert site.seen.seen == []


async def test_what_cannot_be_published_in_time_is_given_to_the_relays() -> None:
    site = PublishingSite(window=2)
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(3))
    await site.dispatcher.close(0.01)
    assert site.rows.marked == [("released", ["job 2"], False)]
    assert site.seen.seen == [SendDeferred(1, "the process ends")]
    assert not await site.dispatcher.room()
    site.dispatcher.dispatch(dispatches(1, first=3))  # of a settlement while the worker leaves
    site.broker.results = [UNKNOWN, NotPublished("the transport is closed")]
    site.broker.answers.set()
    await site.dispatcher.written(1.0)
    assert site.rows.marked[1:] == [("released", ["job 3"], False), ("refused", ["job 1"], False)]


async def test_a_process_that_ends_does_not_wait_for_a_broker_that_was_never_there() -> None:
    site = PublishingSite()
    site.broker.connected = False
    site.dispatcher.dispatch(dispatches(2))
    await site.dispatcher.close(0.01)
    await site.dispatcher.written(1.0)
    assert site.rows.marked == [("released", ["job 0", "job 1"], False)]


async def test_closing_ends_the_wait_for_room() -> None:
    site = PublishingSite(window=1)
    site.broker.answers.clear()
    site.dispatcher.dispatch(dispatches(1))
    await site.settled()
    sending = asyncio.create_task(site.dispatcher.room())
    await site.settled()
    await site.dispatcher.close(0.01)
    assert not await sending
