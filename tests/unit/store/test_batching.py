"""Natural group commit: batches, order, cancelled callers, outages, refused items, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jq_actors.errors import StoreError, StoreItemError, StoreUnavailableError, StoreUnknownError
from jq_actors.events import Events, StoreFlushed, StoreRefused
from jq_actors.store.batching.group_commit import GroupCommit
from jq_actors.store.batching.set_aside import MAX_BACKOFF, STRIKES
from tests.support.clock import FakeClock
from tests.support.recorder import EventRecorder
from tests.support.waiting import eventually


class Table:
    """What is written to: answers each item with its double, when the test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.again: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = 0
        self.refused: set[int] = set()
        self.stuck: set[int] = set()
        """Items that make any write of theirs fail in a way that does not say whose fault it is."""
        self.error: type[StoreUnavailableError] = StoreUnavailableError
        self.is_full = False
        """It answers, and nothing can be written."""
        self.there = True
        self.asked = 0

    async def answers(self) -> bool:
        self.asked += 1
        return self.there

    async def write(self, items: Sequence[int], again: bool) -> Sequence[int]:
        self.batches.append(list(items))
        self.again.append(again)
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("away")
        if not self.there or self.is_full or self.stuck & set(items):
            raise self.error("no answer within 20 s")
        if bad := self.refused & set(items):
            raise StoreError(f"refused {sorted(bad)}")
        return [2 * item for item in items]


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def group(table: Table, clock: FakeClock, events: Events) -> GroupCommit[int, int]:
    return GroupCommit("claim", table.write, answers=table.answers, clock=clock, events=events, limit=4)


async def test_lone_item_is_written_at_once(group: GroupCommit[int, int], table: Table) -> None:
    assert await group.add(1) == 2
    assert table.batches == [[1]]


async def test_items_of_one_moment_share_a_batch(group: GroupCommit[int, int], table: Table) -> None:
    assert await asyncio.gather(*map(group.add, range(3))) == [0, 2, 4]
    assert table.batches == [[0, 1, 2]]


async def test_what_waits_for_a_write_goes_into_the_next_one_in_order_and_bounded(
    group: GroupCommit[int, int], table: Table
) -> None:
    table.gate.clear()
    first = group.add(0)
    await _until_written(table, 1)
    rest = [group.add(item) for item in range(1, 8)]
    assert len(table.batches) == 1
    table.gate.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert table.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_each_write_is_told(group: GroupCommit[int, int], events: Events) -> None:
    recorder = EventRecorder(events, StoreFlushed)
    await asyncio.gather(*map(group.add, range(5)))
    assert [(event.kind, event.rows) for event in recorder.of(StoreFlushed)] == [("claim", 4), ("claim", 1)]


async def test_cancelled_callers_change_nothing_for_the_others(table: Table, clock: FakeClock, events: Events) -> None:
    orphans: list[tuple[int, int]] = []
    group = GroupCommit(
        "claim",
        table.write,
        answers=table.answers,
        clock=clock,
        events=events,
        abandoned=lambda item, answer: orphans.append((item, answer)),
    )
    table.gate.clear()
    callers = [asyncio.ensure_future(_wait(group, item)) for item in range(4)]
    await _until_written(table, 1)
    callers[1].cancel()  # while it is being written
    callers += [asyncio.ensure_future(_wait(group, item)) for item in range(4, 6)]
    await asyncio.sleep(0)
    callers[4].cancel()  # while it waits
    table.gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 4, 6, 10]
    assert table.batches == [[0, 1, 2, 3], [4, 5]]
    assert orphans == [(1, 2), (4, 8)]


async def test_outage_is_waited_for_with_growing_pauses(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    table.there = False
    early = [group.add(item) for item in range(3)]
    pauses: list[float] = []
    while table.asked < 9:
        seen, before = table.asked, clock.monotonic()
        while table.asked == seen:
            await clock.advance(0.01)
        pauses.append(clock.monotonic() - before)
    late = [group.add(item) for item in range(3, 5)]
    await clock.advance(MAX_BACKOFF)
    assert table.batches == [[0, 1, 2]]  # what comes meanwhile is not even tried
    table.there = True
    await clock.advance(MAX_BACKOFF)
    assert await asyncio.gather(*early, *late) == [0, 2, 4, 6, 8]
    assert table.batches == [[0, 1, 2], [0, 1, 2], [3, 4]]
    assert table.again == [False, True, False]
    assert pauses[0] < 0.2
    assert max(pauses) <= MAX_BACKOFF + 0.1
    assert pauses[-1] > 5 * pauses[0]


async def test_one_that_cannot_be_written_leaves_the_others_alone(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    table.stuck = {2}
    futures = [group.add(item) for item in range(4)]
    await clock.advance(60)
    assert [future.result() for future in (futures[0], futures[1], futures[3])] == [0, 2, 6]
    assert await group.add(5) == 10
    # Nothing says yet that it is at fault: as long as it bothers nobody, it is kept.
    assert not futures[2].done()


async def test_one_that_fails_while_others_are_written_gets_its_error(
    group: GroupCommit[int, int], table: Table, clock: FakeClock, events: Events
) -> None:
    recorder = EventRecorder(events, StoreRefused)
    table.stuck = {2}
    stuck, others = group.add(2), list[asyncio.Future[int]]()
    while not stuck.done():
        others.append(group.add(3))
        await clock.advance(MAX_BACKOFF)
        assert len(others) < 100
    assert await asyncio.gather(*others) == [6] * len(others)
    with pytest.raises(StoreItemError, match="Others can be written, but this claim cannot: no answer within 20 s"):
        await stuck
    assert len(others) >= STRIKES
    assert [event.kind for event in recorder.of(StoreRefused)] == ["claim"]


async def test_nothing_can_be_written_is_no_fault_of_an_item(
    group: GroupCommit[int, int], table: Table, clock: FakeClock, events: Events
) -> None:
    recorder = EventRecorder(events, StoreRefused)
    table.is_full = True
    futures = [group.add(item) for item in range(10)]
    await clock.advance(3600)
    assert not any(future.done() for future in futures)
    table.is_full = False
    tried = len(table.batches)
    await clock.advance(MAX_BACKOFF)
    assert [future.result() for future in futures] == [2 * item for item in range(10)]
    assert len(table.batches) - tried < 6  # not one by one
    assert recorder.seen == []


async def test_item_that_was_unlucky_in_several_outages_is_not_at_fault(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    for _ in range(2 * STRIKES):
        table.is_full = True
        future = group.add(1)
        await clock.advance(20)
        table.is_full = False
        await clock.advance(MAX_BACKOFF)
        assert await future == 2


async def test_what_comes_is_written_while_what_failed_is_tried(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    table.away = 1
    failed = group.add(1)
    await _until_written(table, 1)
    table.gate.clear()
    await clock.advance(1)
    assert table.batches == [[1], [1]]
    fresh = group.add(2)
    await _until_written(table, 3)
    assert table.batches[2] == [2]
    table.gate.set()
    assert [await failed, await fresh] == [2, 4]


async def test_refused_item_that_was_set_aside_fails_alone(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    """As when a part was committed, and the rest then refused."""
    table.away, table.refused = 1, {1}
    futures = [group.add(item) for item in range(4)]
    await clock.advance(1)
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 4, 6]
    assert str(answers[1]) == "refused [1]"
    assert table.again == [False] + [True] * (len(table.again) - 1)


async def test_batches_are_bounded_in_bytes(table: Table, clock: FakeClock, events: Events) -> None:
    group = GroupCommit(
        "claim",
        table.write,
        answers=table.answers,
        clock=clock,
        events=events,
        size=lambda item: item,
        max_bytes=10,
    )
    table.away = 1
    futures = [group.add(item) for item in (4, 6, 1, 20, 3, 7, 1)]
    await clock.advance(1)
    assert await asyncio.gather(*futures) == [8, 12, 2, 40, 6, 14, 2]
    assert sorted(table.batches) == [[1], [1], [3, 7], [4, 6], [4, 6], [20]]


class TestImpatient:
    """Callers that rather get an error than wait."""

    @pytest.fixture
    def group(self, table: Table, clock: FakeClock, events: Events) -> GroupCommit[int, int]:
        return GroupCommit(
            "insert", table.write, answers=table.answers, clock=clock, events=events, patient=False, limit=8
        )

    async def test_outage_is_told(self, group: GroupCommit[int, int], table: Table) -> None:
        table.there = False
        answers = await asyncio.gather(*map(group.add, range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
        assert table.batches == [[0, 1, 2]]
        table.there = True
        assert await group.add(4) == 8

    async def test_one_that_cannot_be_written_gets_its_error_alone(
        self, group: GroupCommit[int, int], table: Table
    ) -> None:
        table.stuck = {3}
        answers = await asyncio.gather(*map(group.add, range(8)), return_exceptions=True)
        assert [answer for answer in answers if isinstance(answer, int)] == [0, 2, 4, 8, 10, 12, 14]
        assert isinstance(answers[3], StoreUnavailableError)

    async def test_that_nothing_can_be_written_is_told_soon(self, group: GroupCommit[int, int], table: Table) -> None:
        table.is_full = True
        answers = await asyncio.gather(*map(group.add, range(8)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailableError] * 8
        assert len(table.batches) < 8

    async def test_what_may_be_written_is_not_tried_again(self, group: GroupCommit[int, int], table: Table) -> None:
        table.stuck, table.error = {3}, StoreUnknownError
        answers = await asyncio.gather(*map(group.add, range(8)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnknownError] * 8
        assert len(table.batches) == 1


async def test_refused_items_fail_alone(group: GroupCommit[int, int], table: Table, events: Events) -> None:
    recorder = EventRecorder(events, StoreRefused)
    table.refused = {1, 6}
    answers = await asyncio.gather(*map(group.add, range(8)), return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 4, 6, 8, 10, 14]
    assert [str(answers[1]), str(answers[6])] == ["refused [1]", "refused [6]"]
    assert [event.error for event in recorder.of(StoreRefused)] == ["refused [1]", "refused [6]"]


async def test_write_that_answers_too_little_is_an_error_and_no_hang(clock: FakeClock, events: Events) -> None:
    async def write(items: Sequence[int], again: bool) -> Sequence[int]:
        return []

    group: GroupCommit[int, int] = GroupCommit("claim", write, answers=Table().answers, clock=clock, events=events)
    with pytest.raises(ValueError, match="shorter"):
        await group.add(1)


async def test_close_writes_what_waits(group: GroupCommit[int, int], table: Table) -> None:
    futures = [group.add(item) for item in range(9)]
    await group.close(10)
    assert [future.result() for future in futures] == [2 * item for item in range(9)]
    with pytest.raises(StoreUnavailableError, match="closed"):
        await group.add(1)


async def test_close_gives_up_in_time(group: GroupCommit[int, int], table: Table) -> None:
    table.gate.clear()
    futures = [group.add(item) for item in range(9)]
    await _until_written(table, 1)
    await group.close(0.01)
    for future in futures:
        with pytest.raises(StoreUnavailableError, match="closed before"):
            await future
    assert table.batches == [[0, 1, 2, 3]]


@pytest.mark.parametrize("there", [True, False])
async def test_close_during_an_outage_ends_the_waiting(
    group: GroupCommit[int, int], table: Table, clock: FakeClock, there: bool
) -> None:
    table.is_full, table.there = True, there
    early = group.add(1)
    await clock.advance(1)
    late = group.add(2)
    await group.close(0.01)
    for future in (early, late):
        with pytest.raises(StoreUnavailableError, match="closed before"):
            await future


async def _wait(group: GroupCommit[int, int], item: int) -> int:
    return await group.add(item)


async def _until_written(table: Table, count: int) -> None:
    await eventually(lambda: len(table.batches) >= count, why=f"{count} batches")
