"""The window of unconfirmed messages: in order for each queue, and no queue holds up the others."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.transport.port import NotPublished, Published, PublishResult, PublishUnknown
from jq_actors.transport.rabbitmq.publishing.batch import REFUSED, Batch
from jq_actors.transport.rabbitmq.publishing.outgoing import OutgoingMessage
from jq_actors.transport.rabbitmq.publishing.window import FIRST_SHARE, Window

PUBLISHED = Published()


def batch_of(*queues: str) -> Batch:
    messages = [
        OutgoingMessage(queue, "", f"jq.{queue}", f"{number}", 0, {}, b"") for number, queue in enumerate(queues)
    ]
    return Batch(messages, "no answer", lambda message: True)


def added(window: Window, *queues: str) -> Batch:
    batch = batch_of(*queues)
    window.add(batch)
    return batch


def taken_all(window: Window) -> list[tuple[int, OutgoingMessage]]:
    """As `Publisher._pump` does."""
    taken = []
    while numbered := window.take(64):
        taken += numbered
    return taken


def queues_of(numbered: list[tuple[int, OutgoingMessage]]) -> list[str | None]:
    return [message.queue for _, message in numbered]


def test_a_queue_that_does_not_answer_holds_up_no_other() -> None:
    window = Window(1000)
    added(window, *["stuck"] * 5000)
    assert len(taken_all(window)) == FIRST_SHARE

    for _ in range(100):
        later = added(window, *["free"] * 50, "stuck")
        sent = taken_all(window)
        assert queues_of(sent) == ["free"] * len(sent)
        while sent:
            window.confirm(sent[-1][0], PUBLISHED, multiple=False)
            for number, _ in sent[:-1]:
                window.confirm(number, PUBLISHED, multiple=False)
            sent = taken_all(window)
        assert later.results[:50] == [PUBLISHED] * 50
        assert later.results[50] is None


def test_a_queue_that_answers_has_half_of_the_window_soon_and_anew_after_a_lost_channel() -> None:
    window, shares = Window(1000), list[int]()
    added(window, *["busy"] * 10_000)
    while len(shares) < 8:
        sent = taken_all(window)
        shares.append(len(sent))
        window.confirm(sent[-1][0], PUBLISHED, multiple=True)
    assert shares == [31, 62, 124, 248, 496, 500, 500, 500]

    taken_all(window)
    window.lose(PublishUnknown("lost"))

    assert len(taken_all(window)) == FIRST_SHARE


def test_a_queue_that_refuses_gets_no_larger_share() -> None:
    window = Window(1000)
    added(window, *["refusing"] * 1000)
    for _ in range(5):
        sent = taken_all(window)
        assert len(sent) == FIRST_SHARE
        window.confirm(sent[-1][0], REFUSED, multiple=True)


def test_a_queue_is_told_that_may_hold_up_others_and_only_if_there_are_any() -> None:
    window = Window(1000)
    added(window, *["busy"] * 1000)
    window.confirm(taken_all(window)[-1][0], PUBLISHED, multiple=True)
    taken_all(window)
    assert window.held_up_by is None

    added(window, "other")

    assert window.held_up_by == "jq.busy"


def test_what_nobody_waits_for_any_more_is_not_sent_and_leaves_room_for_others() -> None:
    window = Window(40)
    gone = added(window, *["stuck"] * 200)
    [*more] = [added(window, *[f"stuck{number}"] * 31) for number in range(3)]
    assert len(taken_all(window)) == 40
    added(window, "free")
    assert taken_all(window) == []

    for batch in (gone, *more):
        window.withdraw(batch)

    assert queues_of(taken_all(window)) == ["free"]
    assert gone.results[:5] == [gone.unconfirmed] * 5
    assert gone.results[199] is None
    late = added(window, *["stuck"] * 100)
    in_flight = 31 - sum(result is gone.unconfirmed for result in gone.results)
    assert len(taken_all(window)) == in_flight
    assert late.final("why")[99] == NotPublished("why")


def test_why_a_letter_still_waits() -> None:
    window = Window(32)
    stuck = added(window, *["stuck"] * 32)
    taken_all(window)
    assert window.why_full(stuck) == "31 earlier messages for jq.stuck are not confirmed"
    others = added(window, "a", "b")
    taken_all(window)
    assert window.why_full(others) == "32 earlier messages are not confirmed (broker.publish_window)"


async def test_at_the_end_what_waits_is_not_published() -> None:
    window = Window(2)
    batch = added(window, "a", "a", "a", "b")
    taken_all(window)
    window.lose(PublishUnknown("lost"))

    window.reject_waiting("closed")

    assert batch.results == [PublishUnknown("lost")] * 2 + [NotPublished("closed")] * 2
    assert taken_all(window) == []


@pytest.mark.parametrize("most", [1, 2, 31, 100])
@given(data=st.data())
def test_whatever_the_answers_each_queue_keeps_its_order_and_everything_is_sent_once(
    most: int, data: st.DataObject
) -> None:
    window = Window(most)
    batches: list[Batch] = []
    expected: dict[str, list[tuple[int, str]]] = defaultdict(list)
    sent: dict[str, list[tuple[int, str]]] = defaultdict(list)
    open_numbers: dict[int, None] = {}

    def send() -> None:
        for number, message in taken_all(window):
            assert number == sum(map(len, sent.values())) + 1
            open_numbers[number] = None
            sent[str(message.queue)].append((id(message), message.label))
        assert len(open_numbers) <= most

    for _ in range(data.draw(st.integers(1, 8))):
        queues = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
        batches.append(added(window, *queues))
        for message in batches[-1].messages:
            expected[str(message.queue)].append((id(message), message.label))
        send()
        for _ in range(data.draw(st.integers(0, 5))):
            if not open_numbers:
                break
            number = data.draw(st.sampled_from(list(open_numbers)))
            multiple = data.draw(st.booleans())
            ended = [known for known in open_numbers if known == number or (multiple and known < number)]
            window.confirm(number, PUBLISHED, multiple=multiple)
            for known in ended:
                del open_numbers[known]
            send()
    while open_numbers:
        number = max(open_numbers)
        window.confirm(number, PUBLISHED, multiple=True)
        open_numbers.clear()
        send()

    assert sent == expected
    results: list[PublishResult | None] = [result for batch in batches for result in batch.results]
    assert set(results) == {PUBLISHED}
