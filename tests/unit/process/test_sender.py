"""The innermost step of a sending: what the caller is told is what is known, whatever broker and database say."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.errors import (
    NotStoredError,
    SendUnknownError,
    StoredNotSentError,
    StoreError,
    StoreUnavailableError,
    StoreUnknownError,
)
from jq_actors.events import JobEnqueued, SendDeferred
from jq_actors.model.command import JobCommand, decode_command
from jq_actors.model.lane import Lane
from jq_actors.process.sender import Sender
from jq_actors.relay.dispatcher import FIRST_CONNECT
from jq_actors.transport.port import Deferred, Published, PublishResult
from tests.support.lives import command_for
from tests.support.publishing import AWAY, DEADLINE, RULES, UNKNOWN, PublishingSite

LEASE = timedelta(seconds=30)


class Site(PublishingSite):
    """A sender before a broker and perhaps rows."""

    def __init__(self, *, rows: bool, on_broker_down: Any = "store", shared: bool = True) -> None:
        super().__init__(shared=shared)
        transport: Any = self.broker
        self.sender = Sender(
            transport,
            self.dispatcher if rows else None,
            self.clock,
            self.events,
            deadline=DEADLINE,
            publish_lease=LEASE,
            rules=RULES,
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


async def test_a_job_is_stored_with_a_lease_and_published_behind_its_sender() -> None:
    site = Site(rows=True)
    commands = site.commands(2)
    await site.sender.send(commands)
    assert [row.id for row in site.rows.inserted] == ids(commands)
    assert site.rows.leases == [LEASE]
    assert [event.job_id for event in site.seen.of(JobEnqueued)] == ids(commands)
    assert site.broker.published == [], "nobody has waited for the broker"
    await site.settled()
    assert site.published == ids(commands)
    assert [outgoing.delay for outgoing in site.broker.published] == [None, None]
    assert site.rows.marked == [("published", ids(commands), False)]
    assert site.wakes == []


async def test_without_rows_a_job_of_a_group_goes_into_its_lane() -> None:
    site = Site(rows=False)
    await site.sender.send([command_for("send_mail", queue="mail", group="pair-7")])
    [outgoing] = site.broker.published
    assert (outgoing.lane, outgoing.group) == (Lane("mail", "pair-7", seats=2), "pair-7")


async def test_with_rows_the_first_of_a_group_go_into_the_plain_queue_and_the_others_nowhere() -> None:
    site = Site(rows=True)
    first, second = (command_for("send_mail", queue="mail", group="pair-7", row=True) for _ in range(2))
    site.rows.waiting = {second.job_id}
    await site.sender.send([first, second])
    await site.settled()
    assert [row.group for row in site.rows.inserted] == ["pair-7"] * 2
    [outgoing] = site.broker.published
    assert (outgoing.job_id, outgoing.lane) == (first.job_id, None)


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
    await site.settled()
    assert [row.id for row in site.rows.inserted] == ids([*later, *now])
    assert [outgoing.job_id for outgoing in site.broker.published] == ids(now)
    assert site.wakes == [None]


async def test_what_waits_in_its_group_is_not_published() -> None:
    site = Site(rows=True)
    first, second = [command_for("send_mail", group="g") for _ in range(2)]
    site.rows.waiting = {second.job_id}
    await site.sender.send([first, second])
    await site.settled()
    assert site.published == [first.job_id]
    assert site.wakes == [], "no relay has anything to do"


@pytest.mark.parametrize("trouble", ["away", "blocked"])
@pytest.mark.parametrize("on_broker_down", ["store", "raise"])
async def test_with_the_broker_away_a_job_is_stored_and_the_caller_told_as_it_wants(
    on_broker_down: str, trouble: str
) -> None:
    site = Site(rows=True, on_broker_down=on_broker_down)
    await site.dispatcher.connected()  # it was there
    site.broker.connected, site.broker.blocked = trouble != "away", trouble == "blocked"
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


async def test_nobody_waits_for_the_first_connection_of_a_process() -> None:
    site = Site(rows=True)
    site.broker.connected = False
    for _ in range(3):
        await site.sender.send(site.commands())
    assert site.broker.starts == 1
    assert site.rows.leases == [LEASE] * 3
    site.broker.connected = True
    site.broker.comes.set()
    await site.settled()
    assert site.published == [row.id for row in site.rows.inserted]


async def test_who_wants_the_confirm_waits_a_moment_for_the_first_connection() -> None:
    site = Site(rows=True, on_broker_down="raise")
    site.broker.connected = False
    sending = asyncio.create_task(site.sender.send(site.commands()))
    await site.settled()
    assert site.broker.waited == [FIRST_CONNECT]
    assert site.rows.inserted == []
    site.broker.comes.set()
    with pytest.raises(StoredNotSentError):
        await sending
    assert site.rows.leases == [None]


async def test_who_wants_the_confirm_waits_for_it() -> None:
    site = Site(rows=True, on_broker_down="raise")
    site.broker.answers.clear()
    commands = site.commands(3)
    sending = asyncio.create_task(site.sender.send(commands))
    await site.settled()
    assert site.published == ids(commands)
    assert not sending.done()
    site.broker.results = [Published(), AWAY, UNKNOWN]
    site.broker.answers.set()
    with pytest.raises(StoredNotSentError, match="away") as raised:
        await sending
    assert list(raised.value.job_ids) == ids(commands)[1:]
    assert [event.count for event in site.seen.of(SendDeferred)] == [2]


async def test_who_wants_the_confirm_has_sent_when_it_came() -> None:
    site = Site(rows=True, on_broker_down="raise")
    commands = [*site.commands(), *site.commands(delay=timedelta(seconds=60))]
    await site.sender.send(commands)
    assert site.published == ids(commands[:1])
    await site.sender.send(commands[1:])  # with nothing to publish there is nothing to wait for
    assert site.published == ids(commands[:1])


async def test_who_sends_faster_than_the_broker_takes_waits_before_anything_is_stored() -> None:
    site = Site(rows=True)
    site.broker.answers.clear()
    await site.sender.send(site.commands(1000))
    sending = asyncio.create_task(site.sender.send(site.commands()))
    await site.settled()
    assert len(site.rows.inserted) == 1000
    site.broker.answers.set()
    await sending
    assert len(site.rows.inserted) == 1001


async def test_without_room_in_the_lane_a_batch_waits_in_its_rows() -> None:
    site = Site(rows=True, shared=False)
    site.broker.room = {"default": 2}
    await site.sender.send(site.commands(3))
    await site.settled()
    assert site.broker.published == []
    assert site.rows.leases == [None]
    assert (site.wakes, site.seen.of(SendDeferred)) == ([None], [])
    await site.sender.send(site.commands(2))
    await site.settled()
    assert len(site.broker.published) == 2


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
    await site.settled()
    assert site.broker.published == []


async def test_an_insert_without_an_answer_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(rows=True)
    site.rows.answers.clear()
    monkeypatch.setattr(site.sender, "_deadline", 0.01)
    with pytest.raises(SendUnknownError, match="may be stored"):
        await site.sender.send(site.commands())


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


# -- whose clock counts


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(minutes=-10), timedelta()], ids=str)
async def test_a_delay_counts_from_the_databases_time(ahead: timedelta) -> None:
    """A producer whose clock is ten minutes slow, or fast: five minutes are five minutes."""
    site = Site(rows=True)
    site.rows.ahead = ahead
    delay = timedelta(minutes=5)
    command = replace(site.commands(delay=delay)[0], delay=delay)
    command.encode()  # its size has been looked at
    await site.sender.send([command])
    await site.settled()
    [row] = site.rows.inserted
    assert (row.due_at, row.enqueued_at) == (site.rows.now() + delay, site.rows.now())
    assert decode_command(row.body).due_at == row.due_at
    assert site.published == []


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(minutes=-10)], ids=str)
async def test_a_given_time_stays_what_it_is(ahead: timedelta) -> None:
    site = Site(rows=True)
    site.rows.ahead = ahead
    command = site.commands(delay=timedelta(minutes=5))[0]
    eta = command.due_at
    await site.sender.send([command])
    await site.settled()
    [row] = site.rows.inserted
    is_past = ahead > timedelta()
    assert row.due_at == (site.rows.now() if is_past else eta)
    assert site.published == ([command.job_id] if is_past else [])


async def test_without_rows_a_delay_is_the_brokers() -> None:
    site = Site(rows=False)
    delay = timedelta(minutes=5)
    await site.sender.send([replace(site.commands(delay=delay)[0], delay=delay)])
    assert [outgoing.delay for outgoing in site.broker.published] == [delay]
