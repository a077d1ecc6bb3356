"""Natural group commit: batches, order, cancelled callers, outages, refused items, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import Events, StoreFlushed, StoreRefused
from jq_actors.store.batching import MAX_BACKOFF, GroupCommit
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

    async def write(self, items: Sequence[int], again: bool) -> Sequence[int]:
        self.batches.append(list(items))
        self.again.append(again)
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("away")
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
    return GroupCommit("claim", table.write, clock=clock, events=events, limit=4)


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
    table.away = 9
    early = [group.add(item) for item in range(3)]
    pauses: list[float] = []
    while len(table.batches) < 9:
        seen, before = len(table.batches), clock.monotonic()
        while len(table.batches) == seen:
            await clock.advance(0.01)
        pauses.append(clock.monotonic() - before)
    late = [group.add(item) for item in range(3, 5)]
    await clock.advance(MAX_BACKOFF)
    assert await asyncio.gather(*early, *late) == [0, 2, 4, 6, 8]
    assert table.batches == [[0, 1, 2]] * 10 + [[3, 4]]
    assert table.again == [False] + [True] * 9 + [False]
    assert pauses[0] < 0.2
    assert max(pauses) <= MAX_BACKOFF + 0.1
    assert pauses[-1] > 5 * pauses[0]


async def test_impatient_group_tells_of_the_outage(table: Table, clock: FakeClock, events: Events) -> None:
    group = GroupCommit("insert", table.write, clock=clock, events=events, patient=False)
    table.away = 1
    answers = await asyncio.gather(*map(group.add, range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
    assert await group.add(4) == 8


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

    group: GroupCommit[int, int] = GroupCommit("claim", write, clock=clock, events=events)
    with pytest.raises(ValueError, match="shorter"):
        await group.add(1)


async def test_item_refused_after_an_outage_is_again_that_of_an_earlier_try(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    table.away, table.refused = 1, {1}
    futures = [group.add(item) for item in range(2)]
    while len(table.batches) < 2:
        await clock.advance(0.1)
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert answers[0] == 0
    assert table.batches == [[0, 1], [0, 1], [0], [1]]
    assert table.again == [False, True, True, True]


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


async def test_close_during_an_outage_ends_the_waiting(
    group: GroupCommit[int, int], table: Table, clock: FakeClock
) -> None:
    table.away = 1000
    future = group.add(1)
    await clock.advance(1)
    await group.close(0.01)
    with pytest.raises(StoreUnavailableError):
        await future


async def _wait(group: GroupCommit[int, int], item: int) -> int:
    return await group.add(item)


async def _until_written(table: Table, count: int) -> None:
    await eventually(lambda: len(table.batches) >= count, why=f"{count} batches")
