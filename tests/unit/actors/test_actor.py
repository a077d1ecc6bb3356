"""Actors: made by the decorator, called as functions, sent as jobs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from jq_actors.actors.actor import AsyncJobActor, JobActor, actor
from jq_actors.errors import ActorOptionError, ArgumentError, CommandTooLargeError, NotStoredError
from jq_actors.model.command import JobCommand
from jq_actors.process.broker import JobBroker
from tests.support.sending import RecordingBroker

NOW = datetime(2026, 1, 1, tzinfo=UTC)  # where a FakeClock stands


@pytest.fixture
def broker() -> RecordingBroker:
    """The global broker of the test; `conftest` puts the other one back."""
    broker = RecordingBroker()
    dramatiq.set_broker(broker)
    return broker


# -- made


def test_bare_it_takes_the_defaults(broker: RecordingBroker) -> None:
    @actor
    def add(x: int, y: int) -> int:
        return x + y

    assert (add.actor_name, add.queue_name, add.priority, add.options) == ("add", "default", 0, {})
    assert add.broker is broker
    assert broker.get_actor("add") is add
    assert "default" in broker.queues
    assert isinstance(add, dramatiq.Actor)


def test_options_are_kept_as_middleware_reads_them(broker: RecordingBroker) -> None:
    @actor(actor_name="sum", queue_name="math", priority=3, max_retries=5, time_limit=timedelta(seconds=30))
    def add(x: int, y: int) -> int:
        return x + y

    assert (add.actor_name, add.queue_name, add.priority) == ("sum", "math", 3)
    assert add.options == {"max_retries": 5, "time_limit": 30_000}


def test_one_decorator_makes_many_actors(broker: RecordingBroker) -> None:
    mail = actor(queue_name="mail", max_retries=1)

    def first() -> None: ...
    def second() -> None: ...

    assert [mail(first).actor_name, mail(second).actor_name] == ["first", "second"]


@pytest.mark.parametrize(
    "given", [{"queue_name": "not allowed"}, {"actor_name": "?"}, {"priority": 10}, {"max_retries": -1}]
)
def test_impossible_options_are_refused_at_decoration(broker: RecordingBroker, given: dict[str, Any]) -> None:
    with pytest.raises(ActorOptionError, match=next(iter(given))):
        actor(**given)(_named("impossible"))
    assert not broker.actors


def test_an_unknown_option_is_refused_at_decoration_once_the_configuration_is_read(
    broker: RecordingBroker,
) -> None:
    broker.resolve()
    with pytest.raises(ActorOptionError, match="max_retries"):
        actor(max_retrys=1)(_named("misspelt"))
    assert "misspelt" not in broker.actors


def _named(name: str) -> Callable[[], None]:
    def fn() -> None: ...

    fn.__name__ = name
    return fn


def test_decorating_reads_no_configuration() -> None:
    broker = JobBroker("/nowhere/at/all.yaml")

    @actor(broker=broker, of_some_middleware=1)
    def add(x: int, y: int) -> int:
        return x + y

    assert add.options == {"of_some_middleware": 1}


def test_a_name_is_taken_once(broker: RecordingBroker) -> None:
    actor(_named("twice"))
    with pytest.raises(ActorOptionError, match=r"Actor 'twice' already exists, made from <function .*; give one"):
        actor(_named("twice"))


def test_another_kind_of_broker_is_refused() -> None:
    with pytest.raises(ActorOptionError, match="needs the JobBroker of jq_actors, not a StubBroker"):
        actor(broker=StubBroker())(_named("add"))


def test_a_generator_is_refused(broker: RecordingBroker) -> None:
    def plain() -> Any:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    for fn in (plain, asynchronous):
        with pytest.raises(ActorOptionError, match="is a generator; nothing would consume what it yields"):
            actor(fn)


def test_it_has_all_attributes_of_an_actor_of_dramatiq(broker: RecordingBroker) -> None:
    ours = actor(_named("add"))
    theirs = dramatiq.Actor(
        _named("add"), broker=StubBroker(), actor_name="add", queue_name="default", priority=0, options={}
    )
    assert vars(theirs).keys() <= vars(ours).keys()
    assert ours.logger is theirs.logger


def test_it_can_be_made_by_dramatiqs_own_decorator(broker: RecordingBroker) -> None:
    broker.resolve()
    made: Any = dramatiq.actor(actor_class=JobActor, max_retries=1)(_named("add"))
    assert isinstance(made, JobActor)
    assert made.options == {"max_retries": 1}


# -- called


async def test_calling_an_async_actor_gives_its_coroutine(broker: RecordingBroker) -> None:
    @actor
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    assert isinstance(add, AsyncJobActor)
    assert add.is_async
    assert inspect.iscoroutinefunction(add.fn)
    assert await add(1, 2) == 3
    assert not broker.sent


def test_calling_a_sync_actor_calls_it_with_these_very_objects(broker: RecordingBroker) -> None:
    @actor
    def identity(value: Any) -> Any:
        return value

    value = object()
    assert not identity.is_async
    assert identity(value) is value


def test_a_decorated_coroutine_function_keeps_its_signature(broker: RecordingBroker) -> None:
    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs)

        return wrapper

    @actor
    @logged
    async def add(x: int, y: date) -> int:
        return x

    assert add.is_async
    with pytest.raises(ArgumentError, match="argument 'x': expected int"):
        add.send("x", date(2026, 1, 1))


async def test_an_object_with_an_async_call_is_an_async_actor(broker: RecordingBroker) -> None:
    class Adder:
        async def __call__(self, x: int) -> int:
            return x + 1

    add: Any = actor(actor_name="add")(Adder())
    assert add.is_async
    assert await add(1) == 2
    with pytest.raises(ArgumentError, match="argument 'x': expected int"):
        add.send("x")


def test_a_partial_takes_what_is_left(broker: RecordingBroker) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    add_one: Any = actor(actor_name="add_one")(functools.partial(add, 1))
    assert add_one(2) == 3
    with pytest.raises(ArgumentError, match="argument 'y': expected int"):
        add_one.send("x")


def test_a_class_based_actor_of_dramatiq_is_checked_by_its_perform(broker: RecordingBroker) -> None:
    class Add(dramatiq.GenericActor):
        class Meta:
            actor = actor
            queue_name = "math"

        def perform(self, x: int, y: date) -> int:
            return x

    add: Any = Add
    command = add.send(1, date(2026, 1, 1))
    assert (command.actor_name, command.queue_name) == ("Add", "math")
    assert command.args == (1, "2026-01-01")
    assert add(1, date(2026, 1, 1)) == 1
    with pytest.raises(ArgumentError, match="argument 'x': expected int"):
        add.send("x", date(2026, 1, 1))


# -- sent


async def test_every_way_of_sending_sends_the_same(broker: RecordingBroker) -> None:
    @actor
    async def add(x: int, y: date) -> int:
        return x

    day = date(2026, 1, 1)
    returned = [
        add.send(1, y=day),
        add.send_with_options(args=(1,), kwargs={"y": day}),
        await add.send_async(1, y=day),
        await add.send_with_options_async(args=(1,), kwargs={"y": day}),
        *add.send_many([((1,), {"y": day})]),
        *await add.send_many_async([((1,), {"y": day})]),
    ]
    assert [[command] for command in returned] == broker.sent
    for command in returned:
        assert isinstance(command, JobCommand)
        assert (command.args, command.kwargs) == ((1,), {"y": "2026-01-01"})
    assert len({command.job_id for command in returned}) == len(returned)


async def test_options_reach_the_command_in_every_way(broker: RecordingBroker) -> None:
    @actor
    def ping() -> None: ...

    given: dict[str, Any] = {"delay": 5000, "priority": 7, "tags": ["a"], "max_retries": 2}
    ping.send_with_options(**given)
    await ping.send_with_options_async(**given)
    ping.send_many([((), {})], **given)
    await ping.send_many_async([((), {})], **given)
    assert len(broker.sent) == 4
    for (command,) in broker.sent:
        assert command.due_at == NOW + timedelta(seconds=5)
        assert (command.priority, command.tags, command.options["max_retries"]) == (7, ("a",), 2)


def test_many_are_sent_as_one_batch_and_none_when_one_is_wrong(broker: RecordingBroker) -> None:
    @actor
    def square(x: int) -> int:
        return x * x

    square.send_many(((number,), {}) for number in range(3))
    assert [[command.args for command in batch] for batch in broker.sent] == [[(0,), (1,), (2,)]]
    with pytest.raises(ArgumentError, match="argument 'x'"):
        square.send_many([((1,), {}), (("x",), {})])
    assert len(broker.sent) == 1


def test_a_command_that_is_too_large_is_not_sent() -> None:
    broker = JobBroker({"broker": {"max_command_size": 1024}})

    @actor(broker=broker)
    def store(text: str) -> None: ...

    with pytest.raises(CommandTooLargeError, match="the limit is 1024"):
        store.send_many([(("x",), {}), (("x" * 1024,), {})])


def test_what_the_broker_raises_reaches_the_caller(broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    @actor
    def ping() -> None: ...

    def refuse(commands: Any) -> None:
        raise NotStoredError("no broker", [command.job_id for command in commands])

    monkeypatch.setattr(broker, "send", refuse)
    with pytest.raises(NotStoredError, match="no broker"):
        ping.send()


# -- composed


def test_compositions_of_dramatiq_are_built_of_commands(broker: RecordingBroker) -> None:
    @actor
    def add(x: int, y: int) -> int:
        return x + y

    pipeline: Any = add.message(1, 2) | add.message_with_options(args=(3,)) | add.message_with_options(args=(4,))
    pipeline.run()
    ((first,),) = broker.sent
    assert isinstance(first, JobCommand)
    assert first.args == (1, 2)
    assert first.options["pipe_target"]["args"] == [3]
    assert first.options["pipe_target"]["options"]["pipe_target"]["args"] == [4]
    make_group: Any = dramatiq.group  # untyped
    group = make_group([add.message(1, 2), add.message(3, 4)]).run()
    assert [batch[0].args for batch in broker.sent[1:]] == [(1, 2), (3, 4)]
    assert len(group) == 2


def test_a_pipeline_begins_with_its_delay(broker: RecordingBroker) -> None:
    @actor
    def add(x: int, y: int) -> int:
        return x + y

    pipeline: Any = add.message_with_options(args=(1, 2), delay=1000) | add.message_with_options(args=(3,))
    pipeline.run(delay=5000)
    assert broker.sent[0][0].due_at == NOW + timedelta(seconds=5)


def test_actors_are_named_in_callbacks(broker: RecordingBroker) -> None:
    @actor
    def report(message: dict[str, Any]) -> None: ...

    @actor(on_failure=report)
    def work() -> None: ...

    assert work.options == {"on_failure": "report"}
    assert work.send_with_options(on_success=report).options["on_success"] == "report"
