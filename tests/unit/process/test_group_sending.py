"""Jobs and their groups on the way out: what of actor and sending counts, by our way and by Dramatiq's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest

from jq_actors.actors.actor import JobActor, actor
from jq_actors.actors.command_builder import as_command, build_commands
from jq_actors.actors.group_naming import OF_ACTOR
from jq_actors.errors import ActorOptionError, ConfigError, RequiresPersistenceError
from jq_actors.model.command import JobCommand, decode_command
from jq_actors.process.broker import JobBroker
from tests.support.sending import DRAMATIQ, RecordingBroker

PERSISTENCE: dict[str, Any] = {"persistence": {"url": "sqlite+aiosqlite:///never-opened.db"}}
BY_ACCOUNT = "account-{account_id}"


@pytest.fixture
def broker() -> RecordingBroker:
    """The global broker of the test, with rows and groups; `conftest` puts the other one back."""
    broker = RecordingBroker([PERSISTENCE, "group_fifo", *DRAMATIQ])
    broker.resolve()  # here: it reads files, which must not happen on a test's loop
    dramatiq.set_broker(broker)
    return broker


def _mail(broker: JobBroker, **options: Any) -> JobActor[..., None]:
    @actor(broker=broker, queue_name="mail", **options)
    def send_mail(account_id: int, when: datetime | None = None) -> None: ...

    return send_mail


def _plain(account_id: int) -> None: ...


def _sent(broker: RecordingBroker) -> list[JobCommand[Any]]:
    """What has been sent, as a worker reads it."""
    return [decode_command(command.encode()) for batch in broker.sent for command in batch]


# -- by our way


async def test_every_way_of_sending_names_the_group(broker: RecordingBroker) -> None:
    mail = _mail(broker, group=BY_ACCOUNT)
    mail.send(1)
    await mail.send_async(2)
    mail.send_with_options(args=(3,))
    await mail.send_with_options_async(kwargs={"account_id": 4})
    mail.send_many([((5,), {}), ((6,), {})])
    await mail.send_many_async([((7,), {})])
    assert [command.group for command in _sent(broker)] == [f"account-{number}" for number in range(1, 8)]
    assert {command.position for command in _sent(broker)} == {None}


async def test_what_a_sending_says_of_the_group_counts(broker: RecordingBroker) -> None:
    grouped, plain = _mail(broker, group=BY_ACCOUNT), actor(_plain)
    for mail in (grouped, plain):
        mail.send_with_options(args=(1,), group="other")
        await mail.send_with_options_async(args=(1,), group=None)
        mail.send_many([((1,), {}), ((2,), {})], group="{literal}")
    assert [command.group for command in _sent(broker)] == ["other", None, "{literal}", "{literal}"] * 2
    plain.send_with_options(args=(1,), group=OF_ACTOR)
    assert "group" not in _sent(broker)[-1].meta


async def test_the_position_travels_beside_the_group(broker: RecordingBroker) -> None:
    mail = _mail(broker, group=BY_ACCOUNT)
    mail.send_with_options(args=(1,), position=3)
    await mail.send_with_options_async(args=(1,), group="other", position=4)
    mail.send_many([((1,), {})], position=5)
    assert [(command.group, command.position) for command in _sent(broker)] == [
        ("account-1", 3),
        ("other", 4),
        ("account-1", 5),
    ]
    assert all(command.options.keys() == {"jq"} for command in _sent(broker))


def test_a_function_decides_for_each_job(broker: RecordingBroker) -> None:
    def by_account(account_id: int, when: datetime | None) -> str | None:
        return None if when is None else f"{account_id} on {when:%A}"

    mail = _mail(broker, group=by_account)
    mail.send_many([((7,), {}), (("7", datetime(2026, 1, 1, tzinfo=UTC)), {})])
    assert [command.group for command in _sent(broker)] == [None, "7 on Thursday"]


def test_the_group_of_the_configuration_counts_more_than_the_decorators() -> None:
    broker = JobBroker({"middleware": ["group_fifo"], "actors": {"send_mail": {"group": "all-{account_id:02}"}}})
    mail = _mail(broker, group=BY_ACCOUNT)
    assert build_commands(mail, [((7,), {})], {}, to_send=True)[0].group == "all-07"
    assert mail.options == {"group": "all-{account_id:02}"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"group": ""}, "option 'group': must be a text of 1 to 512 characters without NUL, or None, not ''."),
        (
            {"group": "x" * 513},
            "option 'group': must be a text of 1 to 512 characters without NUL, or None, not one of",
        ),
        ({"group": 7}, "option 'group': must be a text of 1 to 512 characters without NUL, or None, not 7."),
        ({"position": 0}, "option 'position': must be a whole number from 1 to 9007199254740992, not 0."),
        ({"position": True}, "option 'position': must be a whole number from 1 to 9007199254740992, not True."),
        ({"position": 3, "group": None}, "position 3 needs a group: it is the job's number in its group."),
        ({"priority": 3}, "priority 3 in a group, whose jobs run in order; give priority 0, or group=None."),
        ({"priority": 3, "group": "other"}, "priority 3 in a group, whose jobs run in order; give priority 0"),
    ],
    ids=str,
)
def test_what_a_sending_cannot_ask_for_is_told(broker: RecordingBroker, given: dict[str, Any], told: str) -> None:
    mail = _mail(broker, group=BY_ACCOUNT)
    with pytest.raises(ActorOptionError) as refused:
        mail.send_with_options(args=(7,), **given)
    assert str(refused.value).startswith(f"A command for 'send_mail': {told}")
    assert not broker.sent


def test_a_position_is_for_one_job(broker: RecordingBroker) -> None:
    mail = _mail(broker, group=BY_ACCOUNT)
    with pytest.raises(ActorOptionError, match=r"a position is the number of one job, but 2 are sent\."):
        mail.send_many([((1,), {}), ((2,), {})], position=1)
    assert not broker.sent


def test_a_position_needs_persistence_and_a_group_does_not() -> None:
    broker = RecordingBroker(["group_fifo"])
    mail = _mail(broker, group=BY_ACCOUNT)
    with pytest.raises(RequiresPersistenceError, match="A position in a group needs the `persistence` middleware"):
        mail.send_with_options(args=(1,), position=3)
    assert not broker.sent
    mail.send(1)
    assert [command.group for command in _sent(broker)] == ["account-1"]


# -- priority


def test_an_actor_with_a_group_has_no_priority(broker: RecordingBroker) -> None:
    with pytest.raises(ActorOptionError, match=r"^Actor 'send_mail': priority 3 in a group, whose jobs run in"):
        _mail(broker, group=BY_ACCOUNT, priority=3)
    assert "send_mail" not in broker.actors


def test_nor_one_that_gets_its_group_by_the_configuration() -> None:
    broker = JobBroker(
        {
            "broker": {"priority_queues": ["mail"]},
            "middleware": ["group_fifo"],
            "actors": {"send_mail": {"group": BY_ACCOUNT}},
        }
    )
    _mail(broker, priority=3)
    with pytest.raises(ConfigError, match=r"actors\.send_mail: Actor 'send_mail' in the configuration: priority 3"):
        broker.resolve()


def test_a_job_has_either(broker: RecordingBroker) -> None:
    urgent, grouped = _mail(broker, priority=3), actor(group="g")(_ping)
    with pytest.raises(ActorOptionError, match=r"^A command for 'send_mail': priority 3 in a group"):
        urgent.send_with_options(args=(1,), group="g")
    urgent.send_with_options(args=(1,), group="g", priority=0)
    urgent.send_with_options(args=(1,), group=None)
    grouped.send_with_options(group=None, priority=5)
    assert [(command.group, command.priority) for command in _sent(broker)] == [("g", 0), (None, 3), (None, 5)]


def _ping() -> None: ...


# -- without group_fifo, and at the decorator


def test_without_group_fifo_the_option_is_unknown() -> None:
    broker = RecordingBroker()
    _mail(broker, group=BY_ACCOUNT)
    told = "actor send_mail: unknown option 'group'; .* is it in `middleware:`"
    with pytest.raises(ConfigError, match=told):
        broker.resolve()
    del broker.actors["send_mail"]
    broker.resolve()
    with pytest.raises(ActorOptionError, match=told):
        _mail(broker, group=BY_ACCOUNT)
    mail = _mail(broker, group=None)
    for given in ({"group": "g"}, {"group": None}, {"position": 1}):
        with pytest.raises(ActorOptionError, match=f"unknown option '{next(iter(given))}'"):
            mail.send_with_options(args=(1,), **given)


def test_a_position_is_no_option_of_an_actor(broker: RecordingBroker) -> None:
    with pytest.raises(ActorOptionError, match=r"unknown option 'position'; allowed are .*group"):
        _mail(broker, position=3)


def test_a_template_is_checked_at_the_decorator_before_any_configuration_is_read() -> None:
    with pytest.raises(ActorOptionError, match=r"^Actor 'send_mail': option 'group': .* did you mean account_id\?"):
        _mail(JobBroker("/nowhere/at/all.yaml"), group="account-{acount_id}")


def test_a_template_of_the_configuration_is_checked_when_that_is_read() -> None:
    broker = JobBroker({"middleware": ["group_fifo"], "actors": {"send_mail": {"group": "{acount_id}"}}})
    _mail(broker)
    with pytest.raises(ConfigError, match=r"actors\.send_mail: .*'acount_id', which is not a parameter; did you mean"):
        broker.resolve()


# -- by Dramatiq's way


def _message(**options: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name="mail", actor_name="send_mail", args=(7,), kwargs={}, options=options)


def test_a_message_of_a_third_party_gets_the_group_of_its_actor(broker: RecordingBroker) -> None:
    _mail(broker, group=BY_ACCOUNT)
    broker.enqueue(_message())
    broker.enqueue(_message(), delay=1000)
    assert [command.group for command in _sent(broker)] == ["account-7", "account-7"]


def test_for_an_actor_that_is_unknown_here_it_keeps_what_it_says(broker: RecordingBroker) -> None:
    assert as_command(_message(jq={"group": "g", "position": 2}), None, broker).group == "g"
    assert as_command(_message(), None, broker).group is None


def test_a_part_of_a_composition_gets_its_group_when_it_is_sent(broker: RecordingBroker) -> None:
    def by_day(account_id: int, when: datetime | None) -> str:
        return "never" if when is None else f"{account_id}-{when:%d}"

    mail = _mail(broker, group=by_day)
    part = mail.message(7)  # a pipeline adds the day
    assert part.group is None
    assert as_command(part.copy(args=(7, datetime(2026, 1, 5, tzinfo=UTC))), None, broker).group == "7-05"
    for option, group in ((None, None), ("other", "other")):
        part = mail.message_with_options(args=(7,), group=option)
        read = dramatiq.Message.decode(part.encode())  # as a pipeline keeps it: as JSON, in another message
        assert as_command(read, None, broker).group == group


def test_what_was_sent_once_keeps_its_group(broker: RecordingBroker) -> None:
    mail = _mail(broker, group=BY_ACCOUNT)
    for given in ({}, {"group": "other"}, {"group": None}, {"position": 4}):
        sent = mail.send_with_options(args=(7,), **given)
        broker.enqueue(sent.copy(options={"retries": 1}))  # as Dramatiq's Retries does
        first, again = _sent(broker)[-2:]
        assert (again.group, again.position) == (first.group, first.position)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"group": "g", "priority": 3}, ActorOptionError, "priority 3 in a group"),
        ({"group": None, "position": 3}, ActorOptionError, "position 3 needs a group"),
    ],
    ids=str,
)
def test_a_part_that_asks_for_too_much_is_refused_when_it_is_sent(
    broker: RecordingBroker, given: dict[str, Any], error: type[Exception], told: str
) -> None:
    part = _mail(broker).message_with_options(args=(7,), **given)
    with pytest.raises(error, match=told):
        broker.enqueue(part)


def test_a_delayed_job_has_its_group_too(broker: RecordingBroker) -> None:
    _mail(broker, group=BY_ACCOUNT).send_with_options(args=(7,), delay=timedelta(hours=1))
    [command] = _sent(broker)
    assert command.group == "account-7"
    assert command.due_at is not None
