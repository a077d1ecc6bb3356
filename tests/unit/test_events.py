"""The bus of events and the log that is made of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest

from jq_actors import events as module
from jq_actors.events import AckLost, ConsumerLost, Event, Events, JobFinished, LoopBlocked
from jq_actors.model.printable import escape

KINDS = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Event)]
KINDS.remove(Event)


def _example(kind: type[Event]) -> Event:
    values: dict[str, Any] = {"str": "text", "int": 3, "float": 1.5, "bool": True, "JobId": "id"}
    return kind(**{field.name: values[str(field.type)] for field in dataclasses.fields(kind)})


def test_subscribers_get_their_class_only_in_the_order_of_emission() -> None:
    events, seen = Events(), list[Event]()
    events.subscribe(AckLost, seen.append)
    for event in (AckLost("a"), ConsumerLost("a", "deleted"), AckLost("b")):
        events.emit(event)
    assert seen == [AckLost("a"), AckLost("b")]


def test_an_ended_subscription_hears_nothing_and_ends_twice_in_peace() -> None:
    events, seen = Events(), list[Event]()
    unsubscribe = events.subscribe(AckLost, seen.append)
    unsubscribe()
    unsubscribe()
    events.emit(AckLost("a"))
    assert seen == []


def test_a_subscriber_may_unsubscribe_while_it_is_called() -> None:
    events, seen = Events(), list[str]()
    ends: list[Callable[[], None]] = []

    def once(event: AckLost) -> None:
        seen.append(f"once {event.queue}")
        ends[0]()

    ends.append(events.subscribe(AckLost, once))
    events.subscribe(AckLost, lambda event: seen.append(f"always {event.queue}"))
    events.emit(AckLost("a"))
    events.emit(AckLost("b"))
    assert seen == ["once a", "always a", "always b"]


def test_a_failing_subscriber_harms_nobody_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events, seen = Events(), list[Event]()

    def broken(event: Event) -> None:
        raise RuntimeError("broken subscriber")

    events.subscribe(AckLost, broken)
    events.subscribe(AckLost, seen.append)
    with caplog.at_level(logging.ERROR, "jq_actors"):
        events.emit(AckLost("a"))
    assert seen == [AckLost("a")]
    assert "A subscriber of AckLost failed." in caplog.text
    assert "RuntimeError: broken subscriber" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_told_as_a_sentence_at_its_level(kind: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1, "jq_actors"):
        Events().emit(_example(kind))
    (record,) = caplog.records
    assert record.levelno == kind.level
    assert record.name == "jq_actors"
    assert record.getMessage().strip()
    assert kind.__doc__
    # An event without docstring of its own would show the signature that dataclass makes.
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_below_the_level_nothing_is_formatted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "jq_actors"):
        Events().emit(ConsumerLost("a", "deleted"))
    assert caplog.records == []


def test_a_value_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jq_actors"):
        Events().emit(ConsumerLost("a\nERROR forged", "bell \x07 and escape \x1b[31m"))
    message = caplog.records[0].getMessage()
    assert "a\\nERROR forged" in message
    assert message.isprintable()


def test_a_stack_keeps_its_lines_but_no_other_control_character(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jq_actors"):
        Events().emit(LoopBlocked(2.0, "File a\n  line\x1b[2J b"))
    assert caplog.records[0].getMessage().endswith("\nFile a\n  line\\x1b[2J b")


@pytest.mark.parametrize("value", ["plain", "Zürich — 東京", "", 7, None, 1.5])
def test_printable_text_and_other_values_are_left_alone(value: object) -> None:
    assert escape(value) == value


def test_events_are_frozen() -> None:
    event = _example(JobFinished)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.state = "other"  # type: ignore[attr-defined]  # what the test tries
