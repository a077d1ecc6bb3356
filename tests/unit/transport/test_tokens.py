"""The decisions of lanes, lobby and tokens, each as a table."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jq_actors.model.lane import Fairness
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import (
    GHOSTS_LAST,
    GHOSTS_LAST_UNSEEN,
    AfterCancel,
    after_cancel,
    hands_over,
    is_wanted,
    looks_again,
    tokens_needed,
)

FAIR = Fairness(quantum=50, time_slice=timedelta(seconds=5))
OTHERS_WAIT = QueueDepth(ready=1, consumers=1)
EMPTY = QueueDepth(ready=0, consumers=1)
EMPTY_AND_OTHERS = QueueDepth(ready=0, consumers=2)


def lane(ready: int = 1, consumers: int = 0) -> QueueDepth:
    return QueueDepth(ready, consumers)


@pytest.mark.parametrize(
    ("depth", "published", "seats", "needed"),
    [
        (None, 1, 1, 1),
        (lane(), 1, 1, 1),
        (lane(), 5, 1, 1),
        (lane(consumers=1), 5, 1, 0),
        (lane(), 1, 3, 1),
        (lane(), 5, 3, 3),
        (lane(consumers=2), 5, 3, 1),
        (lane(consumers=4), 5, 3, 0),
        (lane(), 0, 1, 0),
    ],
)
def test_tokens_needed(depth: QueueDepth | None, published: int, seats: int, needed: int) -> None:
    assert tokens_needed(depth, published, seats) == needed


@pytest.mark.parametrize(
    ("depth", "serving_here", "seats", "wanted"),
    [
        (None, 0, 1, False),
        (lane(), 0, 1, True),
        (lane(), 1, 1, False),
        (lane(consumers=1), 0, 1, False),
        (lane(consumers=1), 0, 2, True),
        (lane(consumers=1), 1, 2, True),
        (lane(consumers=1), 2, 2, False),
        (lane(consumers=2), 1, 2, False),
        (lane(ready=0), 0, 1, True),
    ],
)
def test_is_wanted(depth: QueueDepth | None, serving_here: int, seats: int, wanted: bool) -> None:
    assert is_wanted(depth, serving_here, seats) is wanted


LONG, SHORT = GHOSTS_LAST.total_seconds(), GHOSTS_LAST_UNSEEN.total_seconds()


@pytest.mark.parametrize(
    ("depth", "seconds", "redelivered", "again"),
    [
        (lane(consumers=1), 0, False, False),
        (None, 0, True, False),
        (lane(consumers=1), 0, True, True),
        (lane(consumers=1), LONG - 0.1, True, True),
        (lane(consumers=1), LONG, True, False),
        (lane(consumers=0), SHORT - 0.1, True, True),
        (lane(consumers=0), SHORT, True, False),
    ],
)
def test_looks_again(depth: QueueDepth | None, seconds: float, redelivered: bool, again: bool) -> None:
    assert looks_again(depth, seconds, redelivered=redelivered) is again


@pytest.mark.parametrize(
    ("depth", "then"),
    [
        (None, AfterCancel.LET_GO),
        (lane(ready=0), AfterCancel.LET_GO),
        (lane(ready=1), AfterCancel.SERVE_ON),
    ],
)
def test_after_cancel(depth: QueueDepth | None, then: AfterCancel) -> None:
    assert after_cancel(depth) is then


@pytest.mark.parametrize(
    ("served", "seconds", "weight", "lobby", "over"),
    [
        (49, 4.9, 1, OTHERS_WAIT, False),
        (50, 0.0, 1, OTHERS_WAIT, True),
        (1, 5.0, 1, OTHERS_WAIT, True),
        (50, 0.0, 1, EMPTY, False),
        (50, 0.0, 1, EMPTY_AND_OTHERS, True),
        (50, 0.0, 1, None, False),
        (99, 9.9, 2, OTHERS_WAIT, False),
        (100, 0.0, 2, OTHERS_WAIT, True),
        (1, 10.0, 2, OTHERS_WAIT, True),
    ],
)
def test_hands_over(served: int, seconds: float, weight: int, lobby: QueueDepth | None, over: bool) -> None:
    assert hands_over(served, seconds, weight, FAIR, lobby) is over
