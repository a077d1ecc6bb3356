"""The innermost step of a sending: what the caller is told is what is known, whatever broker and database say."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.command import JobCommand
from jq_actors.errors import (
    NotStoredError,
    SendUnknownError,
    StoredNotSentError,
    StoreError,
    StoreUnavailableError,
    StoreUnknownError,
)
from jq_actors.events import Events, JobEnqueued, MarkLost, SendDeferred
from jq_actors.groups import GroupRule, GroupRules
from jq_actors.sending import FIRST_CONNECT, Sender
from jq_actors.store.records import NewJob
from jq_actors.transport.lane import Lane
from jq_actors.transport.port import (
    Deferred,
    NotPublished,
    Outgoing,
    Published,
    PublishResult,
    PublishUnknown,
    TransportHealth,
)
from tests.support.clock import FakeClock
from tests.support.lives import command_for
from tests.support.recorder import EventRecorder

LEASE = timedelta(seconds=30)
DEADLINE = timedelta(seconds=10)
AWAY = NotPublished("away")
UNKNOWN = PublishUnknown("no answer")


class Broker:
    """The part of a `Transport` that a sender uses; answers as the test says."""

    def __init__(self) -> None:
        self.connected, self.shared = True, True
        self.room: dict[str, int] = {}
        self.results: list[PublishResult] = []
        self.published: list[Outgoing] = []
        self.waited: list[float] = []
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        await asyncio.sleep(0)

    @property
    def health(self) -> TransportHealth:
        return TransportHealth(self.connected)

    async def wait_connected(self, timeout: float) -> bool:
        self.waited.append(timeout)
        return self.connected

    def capacity(self, queue: str, *, lanes: bool = False) -> int:
        return self.room.get(queue, 1_000_000)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        self.published += batch
        return [self.results.pop(0) if self.results else Published() for _ in batch]


class Rows:
    """The part of a `JobStore` that a sender uses."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.inserted: list[NewJob] = []
        self.leases: list[timedelta | None] = []
        self.marked: list[tuple[str, list[str], bool]] = []
        self.error: Exception | None = None
        self.mark_error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    def now(self) -> Any:
        return self._clock.wall()

    async def insert(self, jobs: Sequence[NewJob], *, publish_lease: timedelta | None) -> None:
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        self.inserted += jobs
        self.leases.append(publish_lease)

    async def mark_published(self, dispatches: Sequence[tuple[str, int]], *, lane_owner: bool = False) -> None:
        await self.answers.wait()
        if self.mark_error is not None:
            raise self.mark_error
        self.marked.append(("published", [job_id for job_id, _ in dispatches], lane_owner))

    async def release_publish_lease(self, dispatches: Sequence[tuple[str, int]]) -> None:
        self.marked.append(("released", [job_id for job_id, _ in dispatches], False))


class Site:
    """A sender between a broker and perhaps rows."""

    def __init__(self, *, rows: bool, on_broker_down: Any = "store") -> None:
        self.clock, self.events, self.broker = FakeClock(), Events(), Broker()
        self.rows = Rows(self.clock)
        self.seen = EventRecorder(self.events, JobEnqueued, MarkLost, SendDeferred)
        self.wakes: list[None] = []
        broker: Any = self.broker
        store: Any = self.rows if rows else None
        self.sender = Sender(
            broker,
            store,
            self.clock,
            self.events,
            deadline=DEADLINE,
            publish_lease=LEASE,
            rules=GroupRules((GroupRule("pair-*", concurrency=2),)),
            on_broker_down=on_broker_down,
        )
        self.sender.on_stored = lambda: self.wakes.append(None)

    def commands(self, count: int = 1, *, delay: timedelta = timedelta(), queue: str = "default") -> list[Any]:
        due = {"due": (self.clock.wall() + delay).isoformat()} if delay else {}
        return [command_for("send_mail", number, queue=queue, **due) for number in range(count)]


def ids(commands: Sequence[JobCommand[Any]]) -> list[str]:
    return [command.job_id for command in commands]


# -- without rows: the broker's confirm is all there is


async def test_a_confirmed_job_is_sent() -> None:
    site = Site(rows=False)
    commands = site.commands(2)
    await site.sender.send(commands)
    assert [outgoing.job_id for outgoing in site.broker.published] == ids(commands)
    assert [event.job_id for event in site.seen.of(JobEnqueued)] == ids(commands)


async def test_the_transport_holds_back_what_is_due_later() -> None:
    site = Site(rows=False)
    await site.sender.send(site.commands(delay=timedelta(seconds=60)))
    await site.sender.send(site.commands(delay=timedelta(seconds=-60)))
    assert [outgoing.delay for outgoing in site.broker.published] == [timedelta(seconds=60), timedelta()]


@pytest.mark.parametrize(
    ("results", "error", "named", "in_words"),
    [
        ([AWAY], NotStoredError, [0], []),
        ([UNKNOWN], SendUnknownError, [0], []),
        ([Published(), AWAY, Deferred()], NotStoredError, [1, 2], []),
        ([UNKNOWN, Published(), AWAY], SendUnknownError, [0], [2]),
    ],
)
async def test_what_is_not_confirmed_raises_and_names_its_jobs(
    results: list[PublishResult], error: type[Exception], named: list[int], in_words: list[int]
) -> None:
    site = Site(rows=False)
    site.broker.results = list(results)
    commands = site.commands(len(results))
    with pytest.raises(error) as raised:
        await site.sender.send(commands)
    assert isinstance(raised.value, NotStoredError | SendUnknownError)
    assert list(raised.value.job_ids) == [commands[number].job_id for number in named]
    assert all(commands[number].job_id in str(raised.value) for number in in_words)
    assert site.seen.of(JobEnqueued) == []


# -- with rows: stored is enough


async def test_a_job_is_stored_with_a_lease_then_published_then_marked() -> None:
    site = Site(rows=True)
    commands = site.commands(2)
    await site.sender.send(commands)
    await site.sender.close()
    assert [row.id for row in site.rows.inserted] == ids(commands)
    assert site.rows.leases == [LEASE]
    assert [outgoing.delay for outgoing in site.broker.published] == [None, None]
    assert site.rows.marked == [("published", ids(commands), False)]
    assert site.wakes == []


async def test_what_lies_in_a_lane_of_this_process_is_marked_as_its_own() -> None:
    site = Site(rows=True)
    site.broker.shared = False
    commands = site.commands()
    await site.sender.send(commands)
    await site.sender.close()
    assert site.rows.marked == [("published", ids(commands), True)]


async def test_a_mark_that_cannot_be_written_is_told_and_nothing_else() -> None:
    site = Site(rows=True)
    site.rows.mark_error = StoreUnavailableError("away")
    await site.sender.send(site.commands())
    await site.sender.close()
    assert [event.reason for event in site.seen.of(MarkLost)] == ["away"]
    assert site.seen.of(SendDeferred) == []


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "no rows"])
async def test_a_job_of_a_group_goes_into_its_lane(rows: bool) -> None:
    site = Site(rows=rows)
    await site.sender.send([command_for("send_mail", queue="mail", group="pair-7", row=rows)])
    [outgoing] = site.broker.published
    assert (outgoing.lane, outgoing.group) == (Lane("mail", "pair-7", seats=2), "pair-7")
    assert [row.group for row in site.rows.inserted] == (["pair-7"] if rows else [])


async def test_a_delayed_job_of_a_group_comes_by_the_plain_queue_where_the_broker_holds_it_back() -> None:
    site = Site(rows=False)
    due = site.clock.wall() + timedelta(seconds=5)
    await site.sender.send([command_for("send_mail", group="g", due=due.isoformat())])
    [outgoing] = site.broker.published
    assert (outgoing.lane, outgoing.delay) == (None, timedelta(seconds=5))


async def test_what_is_due_later_is_left_to_the_relay() -> None:
    site = Site(rows=True)
    later, now = site.commands(delay=timedelta(seconds=60)), site.commands()
    await site.sender.send([*later, *now])
    assert [row.id for row in site.rows.inserted] == ids([*later, *now])
    assert [outgoing.job_id for outgoing in site.broker.published] == ids(now)
    assert site.wakes == [None]


@pytest.mark.parametrize("on_broker_down", ["store", "raise"])
async def test_with_the_broker_away_a_job_is_stored_and_the_caller_told_as_it_wants(on_broker_down: str) -> None:
    site = Site(rows=True, on_broker_down=on_broker_down)
    site.broker.connected = False
    commands = site.commands()
    if on_broker_down == "raise":
        with pytest.raises(StoredNotSentError) as raised:
            await site.sender.send(commands)
        assert list(raised.value.job_ids) == ids(commands)
    else:
        await site.sender.send(commands)
    assert [row.id for row in site.rows.inserted] == ids(commands)
    assert site.rows.leases == [None], "any relay may send it at once"
    assert site.broker.published == []
    assert [event.count for event in site.seen.of(SendDeferred)] == [1]
    assert site.wakes == [None]


async def test_only_the_first_sending_of_a_process_waits_for_the_broker() -> None:
    site = Site(rows=True)
    site.broker.connected = False
    for _ in range(3):
        await site.sender.send(site.commands())
    assert site.broker.waited == [FIRST_CONNECT]
    assert site.broker.starts == 1


async def test_without_room_in_the_lane_a_batch_waits_in_its_rows() -> None:
    site = Site(rows=True)
    site.broker.room = {"default": 2}
    await site.sender.send(site.commands(3))
    assert site.broker.published == []
    assert site.rows.leases == [None]
    assert (site.wakes, site.seen.of(SendDeferred)) == ([None], [])
    await site.sender.send(site.commands(2))
    assert len(site.broker.published) == 2


async def test_each_publishing_is_marked_as_what_it_came_to() -> None:
    site = Site(rows=True)
    site.broker.results = [Published(), AWAY, UNKNOWN, Deferred()]
    commands = site.commands(4)
    await site.sender.send(commands)
    await site.sender.close()
    first, away, _, deferred = ids(commands)
    assert sorted(site.rows.marked) == [("published", [first], False), ("released", [away, deferred], False)]
    assert [event.count for event in site.seen.of(SendDeferred)] == [2], "what merely waits for room is no trouble"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailableError("away"), NotStoredError),
        (StoreError("refused"), NotStoredError),
        (StoreUnknownError("lost in the commit"), SendUnknownError),
    ],
)
async def test_an_insert_that_fails_says_what_is_known(error: Exception, told: type[Exception]) -> None:
    site = Site(rows=True)
    site.rows.error = error
    commands = site.commands()
    with pytest.raises(told) as raised:
        await site.sender.send(commands)
    assert isinstance(raised.value, NotStoredError | SendUnknownError)
    assert type(raised.value) is told
    assert list(raised.value.job_ids) == ids(commands)
    assert site.broker.published == []


async def test_an_insert_without_an_answer_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(rows=True)
    site.rows.answers.clear()
    monkeypatch.setattr(site.sender, "_deadline", 0.01)
    with pytest.raises(SendUnknownError, match="may be stored"):
        await site.sender.send(site.commands())


async def test_closing_waits_for_the_marks_under_way() -> None:
    site = Site(rows=True)
    await site.sender.send(site.commands())
    site.rows.answers.clear()
    closing = asyncio.create_task(site.sender.close())
    await asyncio.sleep(0)
    assert not closing.done()
    site.rows.answers.set()
    await closing
    assert len(site.rows.marked) == 1


async def test_what_runs_for_ever_does_not_carry_the_context_of_the_first_sender() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []
    site = Site(rows=False)

    async def start() -> None:
        seen.append(tenant.get())

    site.broker.start = start  # type: ignore[method-assign]
    tenant.set("the first sender")
    await site.sender.send(site.commands())
    assert seen == ["nobody"]
