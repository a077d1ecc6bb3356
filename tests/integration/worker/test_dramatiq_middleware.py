"""Middleware of Dramatiq and of others keeps working, around async and sync actors."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, Pipelines, SkipMessage

from jq_actors import actor
from jq_actors.events import JobFinished
from tests.support.application import Application

pytestmark = pytest.mark.blocking_allowed  # Dramatiq's hooks send with its blocking call, on the actor loop


class Notebook(dramatiq.Middleware):
    """A foreign class: notes the hooks that fire."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def before_enqueue(self, broker: dramatiq.Broker, message: Any, delay: Any) -> None:
        self.notes.append("before_enqueue")

    def after_enqueue(self, broker: dramatiq.Broker, message: Any, delay: Any) -> None:
        self.notes.append("after_enqueue")

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self.notes.append("before_process_message")
        if message.args == ["skip me"] or message.args == ("skip me",):
            raise SkipMessage("not today")

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: Any = None
    ) -> None:
        self.notes.append(f"after_process_message {result!r} {type(exception).__name__}")

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self.notes.append("after_skip_message")

    def before_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        self.notes.append("before_ack")

    def after_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        self.notes.append("after_ack")


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_hooks_of_a_foreign_middleware_fire(app: Application, kind: str) -> None:
    notebook = Notebook()
    app.broker.add_middleware(notebook)
    app.record(JobFinished)

    async def shout(word: str) -> str:
        return word.upper()

    def shout_sync(word: str) -> str:
        return word.upper()

    shouting: Any = actor(actor_name="shout")(shout if kind == "async" else shout_sync)
    with app.worker():
        shouting.send("hello")
        app.wait(lambda: app.of(JobFinished), "its end")

    assert notebook.notes[:2] == ["before_enqueue", "after_enqueue"] or notebook.notes[0] == "before_enqueue"
    assert [note for note in notebook.notes if "enqueue" not in note] == [
        "before_process_message",
        "after_process_message 'HELLO' NoneType",
        "before_ack",
        "after_ack",
    ]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_hook_may_skip_a_message(app: Application, kind: str) -> None:
    notebook = Notebook()
    app.broker.add_middleware(notebook)
    app.record(JobFinished)
    runs: list[str] = []

    async def note(word: str) -> None:
        runs.append(word)

    def note_sync(word: str) -> None:
        runs.append(word)

    noting: Any = actor(actor_name="note")(note if kind == "async" else note_sync)
    with app.worker():
        noting.send("skip me")
        app.wait(lambda: app.of(JobFinished), "its end")

    assert runs == []
    assert "after_skip_message" in notebook.notes
    assert [event.state for event in app.of(JobFinished)] == ["cancelled"]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_age_limit(app: Application, kind: str) -> None:
    """One of Dramatiq's own: it fails what is too old before it runs."""
    app.broker.add_middleware(AgeLimit())
    app.record(JobFinished)
    runs: list[str] = []

    async def note() -> None:
        runs.append("async")

    def note_sync() -> None:
        runs.append("sync")

    noting: Any = actor(actor_name="note", max_age=50)(note if kind == "async" else note_sync)
    noting.send_with_options(delay=200)  # older than its limit when it is due
    with app.worker():
        app.wait(lambda: app.of(JobFinished), "its end")

    assert runs == []
    assert [event.state for event in app.of(JobFinished)] == ["failed"]


def test_callbacks(app: Application) -> None:
    """One of Dramatiq's own: it sends another message after success or failure."""
    app.broker.add_middleware(Callbacks())
    seen: list[Any] = []

    @actor
    def told(message: dict[str, Any], result: int) -> None:
        seen.append(("told", result))

    @actor
    def mourned(message: dict[str, Any], error: dict[str, Any]) -> None:
        seen.append(("mourned", error["type"]))

    @actor(max_retries=0)
    async def works(number: int) -> int:
        if number == 0:
            raise ValueError("zero")
        return number

    with app.worker():
        works.send_with_options(args=(7,), on_success=told, on_failure=mourned)
        works.send_with_options(args=(0,), on_success=told, on_failure=mourned)
        app.wait(lambda: len(seen) == 2, "both callbacks")

    assert sorted(seen) == [("mourned", "ValueError"), ("told", 7)]


def test_pipelines(app: Application) -> None:
    """One of Dramatiq's own: it hands a result to the next actor."""
    app.broker.add_middleware(Pipelines())
    seen: list[int] = []

    @actor
    async def double(number: int) -> int:
        return 2 * number

    @actor
    def note(number: int) -> None:
        seen.append(number)

    with app.worker():
        steps = [double.message(5), double.message(), note.message()]  # type: ignore[call-arg]  # the pipeline adds it
        dramatiq.pipeline(steps).run()  # type: ignore[no-untyped-call]  # untyped in Dramatiq
        app.wait(lambda: seen, "the end of the pipeline")

    assert seen == [20]


def test_current_message_in_sync_actors(app: Application) -> None:
    """One of Dramatiq's own that acts on the thread: native for sync actors."""
    app.broker.add_middleware(CurrentMessage())
    seen: list[Any] = []

    @actor
    def synchronous() -> None:
        seen.append(CurrentMessage.get_current_message())

    with app.worker():
        command = synchronous.send()
        app.wait(lambda: seen, "the job")

    assert seen[0].message_id == command.message_id
