"""What the publisher sends: one message with its way, and one channel in confirm mode that it is sent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from jq_actors.errors import TransportError
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.link import Link, ask, closing_reason
from jq_actors.transport.rabbitmq.topology import Queue

MAX_LABEL = 200
"""Characters."""
MAX_OCTET = 255


@dataclass(frozen=True, slots=True)
class Letter:
    """A persistent message, ready to be sent."""

    queue: str | None
    """The user's name of the queue that it is for; ``None``: the dead queue."""
    exchange: str
    routing_key: str
    label: str
    """Its message id without the last part, which is another one for each sending (A16)."""
    priority: int
    headers: Mapping[str, Any]
    body: bytes
    delay: timedelta | None = None
    """Then ``exchange`` holds it back for so long."""
    home: Queue | None = None
    """The broker's queue that takes it, if that is a lane or a lobby."""

    def __post_init__(self) -> None:
        # Found out only when the frame is built, it would get the numbers of all later letters wrong.
        if len(self.label) > MAX_LABEL or not 0 <= self.priority <= MAX_OCTET:
            raise ValueError(f"{self.label!r} is too long, or the priority {self.priority} out of range.")

    @property
    def is_special(self) -> bool:
        """Whether it needs more than the plain queue, which is taken to be there until a letter comes back."""
        return self.delay is not None or self.home is not None

    @property
    def way(self) -> tuple[str | None, str, str]:
        """Letters that agree in it need the same in the broker."""
        return self.queue, self.exchange, "" if self.home is None else self.home.name

    def message_id(self, number: int) -> str:
        """The id of its sending ``number``."""
        return f"{self.label}.{number}"


class Told(Protocol):
    """Who is told what became of the sendings on a channel, by their numbers."""

    def on_confirm(self, number: int, *, multiple: bool, taken: bool) -> None:
        """The broker took it, or refused it; with ``multiple`` also all earlier ones that are open."""
        ...

    def on_return(self, number: int, reason: str) -> None:
        """No queue took it; its confirm follows."""
        ...

    def on_mailbox_lost(self, mailbox: Mailbox, reason: str) -> None:
        """The channel of ``mailbox`` is gone; of what is open on it nothing will be known."""
        ...


class Mailbox(Protocol):
    """A channel in confirm mode."""

    @property
    def writable(self) -> bool:
        """Whether more should be sent now."""
        ...

    def send(self, numbered: Sequence[tuple[int, Letter]]) -> None:
        """Send letters; their numbers go on from those of the call before, without a gap."""
        ...


def open_mailbox(link: Link, channel: AbstractChannel, last_number: int, told: Told) -> Mailbox:
    """The mailbox on ``channel``; the first letter on it will have the number after ``last_number``."""
    if link.tap is None:
        return _StockMailbox(channel, told)
    mailbox = _TappedMailbox(link, channel, last_number, told)
    link.tap.attach(channel.number, mailbox)
    return mailbox


class _TappedMailbox:
    """Builds the frames by hand, and gets confirms and returns by the tap."""

    def __init__(self, link: Link, channel: AbstractChannel, last_number: int, told: Told) -> None:
        assert link.tap is not None
        self._tap, self._channel, self._frame_max = link.tap, channel.number, link.frame_max
        self._told = told
        # The broker counts the publishes of a channel from 1. Ours go on over all channels, because they also
        # tell the messages of this process apart.
        self._offset = last_number

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return self._tap.writable

    def send(self, numbered: Sequence[tuple[int, Letter]]) -> None:
        """All of them in one write."""
        channel, frame_max = self._channel, self._frame_max
        frames = [
            wire.publish(
                channel,
                frame_max,
                letter.exchange,
                letter.routing_key,
                wire.properties(letter.message_id(number), letter.priority, letter.headers),
                letter.body,
            )
            for number, letter in numbered
        ]
        self._tap.write(b"".join(frames))

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """Not on this channel: nothing is consumed here."""
        raise AssertionError("A delivery on the publisher's channel.")

    def on_return(self, method: bytes, header: bytes) -> None:
        """See `Sink`."""
        number = wire.number_of(wire.read_message_id(header))
        if number is not None:
            self._told.on_return(number, wire.read_reply_text(method))

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """See `Sink`."""
        self._told.on_confirm(self._offset + tag, multiple=multiple, taken=taken)

    def on_prefetch_set(self) -> bool:
        """Not on this channel: nothing is consumed here."""
        raise AssertionError("An answer to a qos on a publisher's channel.")

    def on_declared(self, method: bytes) -> None:
        """Not on this channel: nothing is declared here."""
        raise AssertionError("An answer to a declare on the publisher's channel.")

    def on_closing(self, reason: str) -> None:
        """See `Sink`."""
        self._told.on_mailbox_lost(self, reason)


class _StockMailbox:
    """The same by aiormq's own publish: a task for each letter."""

    writable = True

    def __init__(self, channel: AbstractChannel, told: Told) -> None:
        self._channel, self._told = channel, told
        channel.closing.add_done_callback(lambda closing: told.on_mailbox_lost(self, closing_reason(closing)))

    def send(self, numbered: Sequence[tuple[int, Letter]]) -> None:
        """See `Mailbox`."""
        for number, letter in numbered:
            self._channel.create_task(self._publish(number, letter))

    async def _publish(self, number: int, letter: Letter) -> None:
        properties = Basic.Properties(
            message_id=letter.message_id(number),
            priority=letter.priority,
            headers=dict(letter.headers),
            delivery_mode=2,
        )
        taken = True
        try:
            await ask(
                self._channel.basic_publish(
                    letter.body,
                    exchange=letter.exchange,
                    routing_key=letter.routing_key,
                    properties=properties,
                    mandatory=True,
                )
            )
        except TransportError as error:
            match error.__cause__:
                case aiormq.PublishError():
                    self._told.on_return(number, str(error.__cause__))
                case aiormq.DeliveryError():
                    taken = False
                case _:
                    return  # the channel is closing, and tells that of all its letters at once
        self._told.on_confirm(number, multiple=False, taken=taken)
