"""The envelope: the same JSON as Dramatiq's, both ways, and bodies that are none."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.errors import DecodeError
from jq_actors.model.command import SCHEMA_VERSION, JobCommand, decode_command, timestamp_millis
from jq_actors.model.job import is_job_id
from tests.support.clock import FakeClock

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAME = r"[A-Za-z0-9_.:-]{1,128}"
FIELDS = st.fixed_dictionaries(
    {
        "queue_name": st.text(),
        "actor_name": st.from_regex(NAME, fullmatch=True),
        "args": st.lists(JSON, max_size=4),
        "kwargs": st.dictionaries(st.text(), JSON, max_size=4),
        "options": st.dictionaries(st.text().filter(lambda name: name != "jq"), JSON, max_size=3),
        "message_id": st.text(),
        "message_timestamp": st.integers(0, 2**53),
    }
)


def _command(**changes: Any) -> JobCommand[Any]:
    fields: dict[str, Any] = {
        "queue_name": "mail",
        "actor_name": "send_mail",
        "args": [7],
        "kwargs": {"template": "hello"},
        "options": {},
        "message_id": "0192f0e0-0000-7000-8000-000000000000",
        "message_timestamp": 1_790_000_000_000,
    }
    return JobCommand(**{**fields, **changes})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(NAME, value) is not None


def _body(**changes: Any) -> bytes:
    return json.dumps({**json.loads(_command().encode()), **changes}).encode()


@given(FIELDS)
def test_what_we_encode_dramatiq_decodes_and_the_other_way_round(fields: dict[str, Any]) -> None:
    ours = JobCommand[Any](**fields)
    theirs = dramatiq.Message[Any](**fields)
    assert dramatiq.Message.decode(ours.encode()).asdict() == theirs.asdict()
    assert decode_command(theirs.encode()) == ours
    assert decode_command(ours.encode()) == ours


@given(FIELDS)
def test_a_received_body_is_passed_on_byte_for_byte(fields: dict[str, Any]) -> None:
    body = dramatiq.Message[Any](**fields).encode()
    assert decode_command(body).encode() == body


def test_a_changed_copy_is_encoded_anew_and_stays_a_command() -> None:
    command = decode_command(_command().encode())
    copy = command.copy(queue_name="heavy", options={"jq": {"row": True}})
    assert isinstance(copy, JobCommand)
    assert decode_command(copy.encode()).queue_name == "heavy"
    assert copy.promised
    assert not command.promised


def test_the_body_is_encoded_once() -> None:
    command = _command()
    assert command.encode() is command.encode()


def test_a_command_is_told_without_its_arguments() -> None:
    assert str(_command(args=["secret"])) == "send_mail[0192f0e0-0000-7000-8000-000000000000]"
    assert "body" not in repr(decode_command(_command().encode()))


def test_the_job_id_is_the_message_id_or_made_of_it() -> None:
    assert _command().job_id == _command().message_id
    foreign = _command(message_id="order-7")
    assert is_job_id(foreign.job_id)
    assert foreign.job_id == _command(message_id="order-7").job_id


def test_what_is_ours_is_read_from_the_options() -> None:
    due = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    meta = {"row": True, "attempt": 2, "due": due.isoformat(), "priority": 4, "tags": ["import", "eu"]}
    command = decode_command(_command(options={"jq": meta}).encode())
    assert command.promised
    assert (command.attempt, command.priority, command.due_at) == (2, 4, due)
    assert command.tags == ("import", "eu")
    assert (command.group, command.position) == (None, None)


@pytest.mark.parametrize(
    ("group", "position"), [("account-7", None), ("Größe 📦", 1), ("x" * 512, 2**53), (None, None)]
)
def test_its_place_in_a_group_is_read_and_kept(group: str | None, position: int | None) -> None:
    command = decode_command(_command(options={"jq": {"group": group, "position": position}}).encode())
    assert (command.group, command.position) == (group, position)
    again = command.copy(options={"jq": {**command.meta, "attempt": 2}})
    assert (again.group, again.position, again.attempt) == (group, position, 2)


@pytest.mark.parametrize("options", [{}, {"jq": None}, {"jq": "text"}, {"jq": []}])
def test_a_message_of_plain_dramatiq_has_the_defaults(options: dict[str, Any]) -> None:
    command = decode_command(_command(options=options).encode())
    assert not command.promised
    assert (command.attempt, command.priority, command.tags, command.due_at) == (0, 0, (), None)


@pytest.mark.parametrize(("given_priority", "priority"), [(-1, 0), (0, 0), (9, 9), (10, 9), ("high", 0), (True, 0)])
def test_a_priority_out_of_range_is_brought_into_it(given_priority: object, priority: int) -> None:
    assert _command(options={"jq": {"priority": given_priority}}).priority == priority


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"{", "not JSON"),
        (b"\x80\x04\x95pickle", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object, got NoneType"),
        (
            b"{}",
            "fields missing: queue_name, actor_name, args, kwargs, options, message_id, message_timestamp",
        ),
        (_body(args={}), "field 'args' is a dict, expected list"),
        (_body(kwargs=[]), "field 'kwargs' is a list, expected dict"),
        (_body(options=None), "field 'options' is a NoneType, expected dict"),
        (_body(message_id=7), "field 'message_id' is a int, expected str"),
        (_body(message_timestamp="now"), "field 'message_timestamp' is a str, expected int"),
        (_body(message_timestamp=-1), "message_timestamp is not a time"),
        (_body(message_timestamp=10**400), "message_timestamp is not a time"),
        (_body(message_id="\ud800"), "a name that no job can have"),
        (_body(actor_name="send\0mail"), r"a name that no job can have: the name 'send\\x00mail'"),
        (_body(actor_name="a" * 129), "a name that no job can have"),
        (_body(options={"jq": {"tags": ["eu", ""]}}), "a name that no job can have: the name ''"),
        (_body(options={"jq": {"v": SCHEMA_VERSION + 2}}), "schema version 3; this release reads up to 2"),
        (_body(options={"jq": {"v": "x"}}), "schema version 'x'"),
        (_body(options={"jq": {"attempt": "2"}}), "attempt '2' is not a count"),
        (_body(options={"jq": {"attempt": -1}}), "attempt -1 is not a count"),
        (_body(options={"jq": {"attempt": True}}), "attempt True is not a count"),
        (_body(options={"jq": {"v": True}}), "schema version True"),
        (_body(options={"jq": {"priority": True}}), "priority True is not a whole number"),
        (_body(options={"jq": {"priority": "high"}}), "priority 'high' is not a whole number"),
        (_body(message_timestamp=True), "field 'message_timestamp' is a bool, expected int"),
        (_body(options={"jq": {"group": 7}}), "group must be a text of 1 to 512 characters"),
        (_body(options={"jq": {"group": ""}}), "group must be a text of 1 to 512 characters"),
        (_body(options={"jq": {"group": "x" * 513}}), "group must be a text of 1 to 512 .* not one of 513"),
        (_body(options={"jq": {"group": "\ud800"}}), "group must be text that UTF-8 can encode"),
        (_body(options={"jq": {"group": "g", "position": 0}}), "position must be a whole number from 1 to"),
        (_body(options={"jq": {"group": "g", "position": "3"}}), "position must be a whole number from 1 to"),
        (_body(options={"jq": {"group": "g", "position": True}}), "position must be a whole number from 1 to"),
        (_body(options={"jq": {"position": 3}}), "position 3 without a group"),
        (_body(options={"jq": {"due": "soon"}}), "due 'soon' is not an ISO time with an offset"),
        (_body(options={"jq": {"due": 7}}), "due 7 is not an ISO time with an offset"),
        (_body(options={"jq": {"due": "2026-11-24T12:00:00"}}), "due '2026-11-24T12:00:00' is not an ISO time"),
        (_body(options={"jq": {"due": "0001-01-01T00:00:00+14:00"}}), "due: the time 0001-01-01T00:00:00.14:00 is at"),
        (_body(options={"jq": {"due": "9999-12-31T23:59:59-12:00"}}), "due: the time 9999-12-31T23:59:59-12:00 is at"),
    ],
)
def test_what_is_no_command_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match="^" + reason.replace("(", r"\(")):
        decode_command(body)


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION, SCHEMA_VERSION + 1])
def test_the_neighbouring_schema_versions_are_read(version: int) -> None:
    assert decode_command(_body(options={"jq": {"v": version}})).actor_name == "send_mail"


@given(st.binary())
def test_no_body_breaks_the_decoder(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_command(body)


META = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("v", "row", "attempt", "due", "priority", "tags", "group", "position"), JSON),
)


@given(FIELDS, META | JSON)
def test_whatever_is_accepted_can_be_read(fields: dict[str, Any], meta: object) -> None:
    fields["options"]["jq"] = meta
    try:
        command = decode_command(json.dumps(fields).encode())
    except DecodeError:
        return
    assert is_job_id(command.job_id)
    assert command.promised in (True, False)
    assert command.attempt >= 0
    assert 0 <= command.priority <= 9
    assert all(isinstance(tag, str) for tag in command.tags)
    assert command.due_at is None or command.due_at.astimezone(UTC).tzinfo is UTC
    assert command.group is None or 1 <= len(command.group.encode().decode()) <= 512
    assert command.position is None or (command.position >= 1 and command.group is not None)


@given(FIELDS, st.sampled_from(["queue_name", "actor_name", "args", "kwargs", "options", "message_id"]), JSON)
def test_a_field_of_another_kind_is_refused(fields: dict[str, Any], name: str, value: object) -> None:
    was = type(fields[name])
    fields[name] = value
    body = json.dumps(fields).encode()
    if isinstance(value, was) and name == "actor_name":
        with pytest.raises(DecodeError, match="no job can have") if not _is_name(value) else nullcontext():
            decode_command(body)
    elif isinstance(value, was):
        decode_command(body)
    else:
        with pytest.raises(DecodeError, match=f"field '{name}' is a"):
            decode_command(body)


def test_the_timestamp_is_in_milliseconds_like_dramatiqs() -> None:
    clock = FakeClock(datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))
    assert timestamp_millis(clock) == 1_767_225_601_500
