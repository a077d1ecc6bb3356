"""Commands: ids, options and arguments as they are put into the envelope, by our way and by Dramatiq's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import dramatiq
import pytest

from jq_actors.actors.actor import JobActor, actor
from jq_actors.actors.command_builder import Call, as_command, build_commands, check_sizes
from jq_actors.errors import ActorOptionError, ArgumentError, CommandTooLargeError
from jq_actors.model.command import SCHEMA_VERSION, JobCommand, decode_command
from jq_actors.model.job import is_job_id
from tests.support.sending import DRAMATIQ, RecordingBroker

NOW = datetime(2026, 1, 1, tzinfo=UTC)  # where a FakeClock stands
EASTMOST = timezone(timedelta(hours=14))
PERSISTENCE: dict[str, Any] = {"persistence": {"url": "sqlite+aiosqlite:///never-opened.db"}}


def _mail(broker: RecordingBroker, **options: Any) -> JobActor[[int, str, datetime | None], str]:
    @actor(broker=broker, queue_name="mail", **options)
    def send_mail(account_id: int, template: str, when: datetime | None = None) -> str:
        return template

    return send_mail


def _build(mail: JobActor[..., Any], to_send: bool = True, **given: Any) -> JobCommand[Any]:
    return build_commands(mail, [((7, "hello"), {})], given, to_send=to_send)[0]


def test_a_command_is_a_message_that_dramatiq_can_decode() -> None:
    command = _build(_mail(RecordingBroker()))
    message = dramatiq.Message.decode(command.encode())
    assert (message.queue_name, message.actor_name) == ("mail", "send_mail")
    assert (message.args, message.kwargs) == ((7, "hello"), {})
    assert message.options == {"jq": {"v": SCHEMA_VERSION}}
    assert is_job_id(message.message_id)
    assert message.message_datetime == NOW
    assert decode_command(command.encode()) == command


def test_commands_of_a_batch_keep_their_order_in_their_ids() -> None:
    calls: list[Call] = [((number, "hello"), {}) for number in range(5000)]
    commands = build_commands(_mail(RecordingBroker()), calls, {}, to_send=True)
    assert [command.args[0] for command in commands] == list(range(5000))
    ids = [command.message_id for command in commands]
    assert ids == sorted(set(ids))


def test_options_of_ours_are_in_their_place_and_those_of_middleware_in_dramatiqs() -> None:
    command = _build(
        _mail(RecordingBroker()), tags=["import"], priority=3, max_retries=5, time_limit=timedelta(minutes=1)
    )
    assert command.options == {
        "max_retries": 5,
        "time_limit": 60_000,
        "jq": {"v": SCHEMA_VERSION, "tags": ["import"], "priority": 3},
    }
    assert (command.tags, command.priority) == (("import",), 3)


@pytest.mark.parametrize(("of_actor", "given", "kept"), [(0, None, 0), (4, None, 4), (4, 9, 9), (4, 0, 0)])
def test_the_priority_is_that_of_the_sending_else_of_the_actor(of_actor: int, given: int | None, kept: int) -> None:
    assert _build(_mail(RecordingBroker(), priority=of_actor), priority=given).priority == kept


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({"delay": 5000}, NOW + timedelta(seconds=5)),
        ({"delay": timedelta(hours=1)}, NOW + timedelta(hours=1)),
        ({"delay": 0}, None),
        ({"eta": NOW + timedelta(days=1)}, NOW + timedelta(days=1)),
        (
            {"eta": datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=2)))},
            datetime(2026, 1, 1, 23, tzinfo=UTC),
        ),
        ({"eta": int(NOW.timestamp() * 1000) + 1}, NOW + timedelta(milliseconds=1)),
        ({"eta": NOW}, None),
        ({"eta": NOW - timedelta(days=1)}, None),
        ({"delay": None, "eta": None}, None),
    ],
    ids=str,
)
def test_delay_and_eta_say_when_it_is_due(given: dict[str, Any], due: datetime | None) -> None:
    command = decode_command(_build(_mail(RecordingBroker()), **given).encode())
    assert command.due_at == due
    assert set(command.options) == {"jq"}


def test_with_rows_the_databases_clock_decides_whether_a_time_is_past() -> None:
    broker = RecordingBroker([{"persistence": {"url": "sqlite+aiosqlite:///never-opened.db"}}, *DRAMATIQ])
    past = NOW - timedelta(days=1)
    assert _build(_mail(broker), eta=past).due_at == past


@pytest.mark.parametrize(
    ("given", "delay"),
    [
        ({"delay": 5000}, timedelta(seconds=5)),
        ({"delay": timedelta(hours=1)}, timedelta(hours=1)),
        ({"delay": 0}, None),
        ({"eta": NOW + timedelta(days=1)}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_delay_can_count_from_another_time(given: dict[str, Any], delay: timedelta | None) -> None:
    command = _build(_mail(RecordingBroker()), **given)
    assert command.delay == delay
    due, later = command.due_at, NOW + timedelta(hours=2)
    command.encode()
    command.count_from(later)
    expected = later + delay if delay is not None else due
    assert command.due_at == decode_command(command.encode()).due_at == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"delay": 1, "eta": NOW}, "give delay or eta, not both."),
        ({"delay": timedelta(days=10**6 * 3)}, "ends beyond the year 9999."),
        ({"delay": 10**15}, "a delay of 1000000000000000 ms ends beyond the year 9999."),
        ({"eta": datetime.max.replace(tzinfo=UTC)}, "9999-12-31T23:59:59.999999+00:00 is at an end of the calendar."),
        ({"eta": datetime.min.replace(tzinfo=EASTMOST)}, "0001-01-01T00:00:00+14:00 is at an end of the calendar."),
        (
            {"group": "g"},
            "unknown option 'group'. Allowed are delay, eta, max_backoff, max_retries, min_backoff, ",
        ),
        ({"max_retrys": 1}, "unknown option 'max_retrys'; did you mean 'max_retries'? Allowed are delay, "),
        ({"throws": ValueError}, "unknown option 'throws'. Allowed are"),
        ({"retry_when": print}, "unknown option 'retry_when'. Allowed"),
        ({"time_limit": float("inf")}, "option 'time_limit': inf is not a JSON number."),
        ({"pipe_target": {"when": NOW}}, "option 'pipe_target', at ['when']: a datetime is not a JSON value."),
    ],
    ids=str,
)
def test_impossible_options_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ActorOptionError) as refused:
        _build(_mail(RecordingBroker()), **given)
    assert str(refused.value).startswith("A command for 'send_mail': ")
    assert told in str(refused.value)


def test_the_options_that_are_allowed_are_those_of_the_configured_middleware() -> None:
    with pytest.raises(
        ActorOptionError, match=r"unknown option 'max_retries'. Allowed are delay, eta, priority, tags\."
    ):
        _build(_mail(RecordingBroker(middleware=[])), max_retries=1)


@pytest.mark.parametrize(("middleware", "promised"), [([], False), ([PERSISTENCE], True)], ids=["alone", "rows"])
def test_a_row_is_promised_where_one_is_made_and_only_for_what_is_sent(middleware: list[Any], promised: bool) -> None:
    broker = RecordingBroker(middleware)
    mail = _mail(broker)
    part = _build(mail, to_send=False)
    assert _build(mail).promised is promised
    assert not part.promised
    assert as_command(part, None, broker).promised is promised


def test_nothing_is_shared_between_commands_of_a_batch() -> None:
    one, two = build_commands(
        _mail(RecordingBroker()), [((1, "a"), {}), ((2, "b"), {})], {"max_retries": 1}, to_send=True
    )
    one.options["mark"] = 1
    one.meta["mark"] = 1
    assert two.options == {"max_retries": 1, "jq": {"v": SCHEMA_VERSION}}


def test_a_part_of_a_pipeline_may_lack_arguments_and_keeps_its_delay_for_later() -> None:
    mail = _mail(RecordingBroker())
    (part,) = build_commands(mail, [((7,), {})], {"delay": 5000}, to_send=False)
    assert (part.args, part.due_at, part.options["delay"]) == ((7,), None, 5000)
    with pytest.raises(ArgumentError, match="missing argument"):
        build_commands(mail, [((7,), {})], {}, to_send=True)


# -- by Dramatiq's way


def _message(**changes: Any) -> dramatiq.Message[Any]:
    fields: dict[str, Any] = {
        "queue_name": "mail",
        "actor_name": "send_mail",
        "args": (7, "hello"),
        "kwargs": {},
    }
    return dramatiq.Message(**{**fields, "options": {}, **changes})


def test_a_message_of_a_third_party_becomes_a_command_with_its_own_id() -> None:
    broker = RecordingBroker()
    _mail(broker, priority=4)
    message = _message(options={"trace": "x"})
    command = as_command(message, None, broker)
    assert command.message_id == message.message_id
    assert command.message_timestamp == message.message_timestamp
    assert command.options == {"trace": "x", "jq": {"v": SCHEMA_VERSION, "priority": 4}}
    assert command.due_at is None


def test_its_delay_counts_from_now_and_wins() -> None:
    broker = RecordingBroker()
    sooner = _build(_mail(broker), delay=1000)
    assert as_command(sooner, 5000, broker).due_at == NOW + timedelta(seconds=5)
    assert as_command(sooner, None, broker).due_at == NOW + timedelta(seconds=1)


def test_its_arguments_are_converted_where_they_are_not_json_yet() -> None:
    broker = RecordingBroker()
    _mail(broker)
    assert as_command(_message(args=(7, "hello", NOW)), None, broker).args == (
        7,
        "hello",
        "2026-01-01T00:00:00Z",
    )
    with pytest.raises(ArgumentError, match="missing argument"):
        as_command(_message(args=()), None, broker)


def test_for_an_actor_that_is_unknown_here_it_passes_as_it_is() -> None:
    message = _message(actor_name="elsewhere", args=(1, [2]), kwargs={"a": None})
    command = as_command(message, None, RecordingBroker())
    assert (command.args, command.kwargs) == ((1, [2]), {"a": None})
    assert json.loads(command.encode())["actor_name"] == "elsewhere"


# -- size


def test_a_command_above_the_limit_is_refused_with_both_numbers() -> None:
    command = _build(_mail(RecordingBroker()))
    size = len(command.copy().encode())
    check_sizes([command], size)
    with pytest.raises(CommandTooLargeError, match=rf"'send_mail' has {size} bytes; the limit is {size - 1}"):
        check_sizes([command], size - 1)


def test_a_message_of_a_third_party_that_is_no_json_is_refused() -> None:
    command = as_command(_message(actor_name="elsewhere", args=(NOW,)), None, RecordingBroker())
    with pytest.raises(ArgumentError, match="'elsewhere' is not JSON: Object of type datetime is not JSON serial"):
        check_sizes([command], 10_000)
