"""The names of lanes on the broker, and the tokens that name them."""

from __future__ import annotations

import itertools

import pytest

from jq_actors.model.lane import Lane
from jq_actors.transport.rabbitmq.lane_names import MAX_NAME, Why, lane_name, lane_of, token_of, why_of

LONGEST = "n" * 64, "q" * 128
KEYS = ["a", "A", "a.b", "a@2Eb", "a%2Eb", "~", "#", " ", "é", "🦄" * 512, "🦄" * 511 + "x", "x" * 512, "x" * 511 + "y"]
LANES = [
    *(Lane("mail", key) for key in KEYS),
    *(Lane("mail", key, seats=2) for key in KEYS),
    *(Lane("mail", key, partition=(3, 8)) for key in KEYS),
    Lane("mail", "a", partition=(3, 9)),
    Lane("mail", "a", partition=(2, 8)),
    Lane("mail.a", "b"),
    Lane("mail", "a.b.c"),
]


def test_no_two_lanes_share_a_name() -> None:
    names = [lane_name("jq", lane) for lane in LANES]

    assert [(a, b) for a, b in itertools.combinations(names, 2) if a == b] == []


@pytest.mark.parametrize("lane", LANES, ids=range(len(LANES)))
def test_a_name_fits_and_has_only_what_amqp_clients_allow(lane: Lane) -> None:
    namespace, queue = LONGEST
    longest = lane_name(namespace, Lane(queue, lane.key, lane.seats, lane.partition))

    assert len(longest.encode()) <= MAX_NAME
    assert set(longest) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:@#")


def test_a_name_tells_what_it_is_of() -> None:
    assert lane_name("jq", Lane("mail", "account-7")) == "jq.g.mail.account-7"
    assert lane_name("jq", Lane("mail", "account-7", seats=3)) == "jq.n.mail.account-7"
    assert lane_name("jq", Lane("mail", "account-*", partition=(0, 8))) == "jq.p.mail.account-@2A.0of8"
    assert lane_name("jq", Lane("mail", "é" * 512)).startswith("jq.g.mail.@C3@A9@C3")


def test_weight_is_no_part_of_the_name() -> None:
    assert lane_name("jq", Lane("mail", "a", weight=5)) == lane_name("jq", Lane("mail", "a"))


@pytest.mark.parametrize("lane", [*LANES, Lane("mail", "a", weight=7)], ids=range(len(LANES) + 1))
def test_a_token_names_its_lane(lane: Lane) -> None:
    assert lane_of(token_of(lane)) == lane
    assert why_of(token_of(lane)) is None
    for why in Why:
        assert lane_of(token_of(lane, why)) == lane
        assert why_of(token_of(lane, why)) is why


def test_a_reason_of_a_later_version_is_none() -> None:
    assert why_of(b'{"queue": "mail", "key": "g", "why": "tired"}') is None


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"queue": "mail"}',
        b'{"queue": "mail", "key": 7}',
        b'{"queue": "mail", "key": "a", "seats": 0}',
        b'{"queue": "mail", "key": "a", "seats": true}',
        b'{"queue": "mail", "key": "a", "weight": "1"}',
        b'{"queue": "mail", "key": "a", "partition": [8, 8]}',
        b'{"queue": "mail", "key": "a", "partition": 3}',
    ],
)
def test_what_names_no_lane_is_refused(token: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lane_of(token)
