"""Numbers of channels: as many as the server allows, none twice, and what was just freed last."""

from __future__ import annotations

import pytest

from jq_actors.transport.rabbitmq.amqp.channel_numbers import MOST, RESERVED, ChannelNumbers, ChannelsExhaustedError


def opened(numbers: ChannelNumbers, taken: set[int]) -> int:
    with numbers.next() as number:
        taken.add(number)
    return number


def test_a_number_that_was_just_freed_is_the_last_to_come_again() -> None:
    taken = set[int]()
    numbers = ChannelNumbers(4, taken)
    assert [opened(numbers, taken) for _ in range(3)] == [1, 2, 3]

    taken.remove(3)
    taken.remove(1)

    assert [opened(numbers, taken) for _ in range(3)] == [4, 1, 3]


def test_no_more_than_the_server_allows_and_the_next_one_when_one_is_free() -> None:
    taken = set[int]()
    numbers = ChannelNumbers(3, taken)
    for _ in range(3):
        opened(numbers, taken)

    with pytest.raises(ChannelsExhaustedError, match=r"All 3 channels .*channel_max"):
        opened(numbers, taken)
    taken.remove(2)
    assert opened(numbers, taken) == 2


def test_two_that_are_opened_at_the_same_time_have_different_numbers() -> None:
    numbers = ChannelNumbers(2, set())
    with numbers.next() as first, numbers.next() as second:
        assert {first, second} == {1, 2}
        with pytest.raises(ChannelsExhaustedError), numbers.next():
            pass
    with numbers.next() as again:
        assert again in {1, 2}


def test_no_limit_is_that_of_the_protocol() -> None:
    assert ChannelNumbers(0, set()).most == MOST


def test_some_are_left_for_what_cannot_be_shared() -> None:
    taken = {*range(1, 12 - RESERVED)}
    numbers = ChannelNumbers(12, taken)
    assert numbers.have_spare

    opened(numbers, taken)

    assert not numbers.have_spare
