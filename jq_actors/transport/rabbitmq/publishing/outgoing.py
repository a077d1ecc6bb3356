"""What the publisher sends, one message with its route, and the channel in confirm mode that it is sent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from aio_pika.abc import AbstractChannel

from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.frames import Sink
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.topology import Queue

MAX_LABEL = 200
"""Characters."""
MAX_OCTET = 255


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A persistent message, ready to be sent."""

    queue: str | None
    """The user's name of the queue that it is for; ``None``: the dead queue."""
    exchange: str
    routing_key: str
    label: str
    """Its message id without the last part, which differs for each sending (A16)."""
    priority: int
    headers: Mapping[str, Any]
    body: bytes
    delay: timedelta | None = None
    """How long ``exchange`` holds it back, if it does."""
    home: Queue | None = None
    """The broker's queue that takes it, if that is a lane or a lobby."""

    def __post_init__(self) -> None:
        # An error while the frame is built would make the numbers of all later messages wrong.
        if len(self.label) > MAX_LABEL or not 0 <= self.priority <= MAX_OCTET:
            raise ValueError(f"{self.label!r} is too long, or the priority {self.priority} is out of range.")

    @property
    def is_special(self) -> bool:
        """Whether it needs more than a plain queue, which is assumed to exist until a message comes back."""
        return self.delay is not None or self.home is not None

    @property
    def route(self) -> tuple[str | None, str, str]:
        """Equal for messages that need the same queues and exchanges on the broker."""
        return self.queue, self.exchange, "" if self.home is None else self.home.name

    def message_id(self, number: int) -> str:
        """The message id of its sending ``number``."""
        return f"{self.label}.{number}"


class ConfirmListener(Protocol):
    """Learns what became of the messages on a channel, by their numbers."""

    def on_confirm(self, number: int, *, multiple: bool, taken: bool) -> None:
        """The broker took the message, or refused it; with ``multiple`` also all unconfirmed ones before it."""
        ...

    def on_return(self, number: int, reason: str) -> None:
        """No queue took the message; its confirm follows."""
        ...

    def on_channel_lost(self, channel: PublishingChannel, reason: str) -> None:
        """``channel`` is gone. What is unconfirmed on it stays unknown."""
        ...


class PublishingChannel(Sink):
    """A channel in confirm mode. It builds its frames by hand; confirms and returns arrive through the tap.

    Parameters:
      last_number: the first message on this channel has the number after it.
    """

    def __init__(self, link: Link, channel: AbstractChannel, last_number: int, listener: ConfirmListener) -> None:
        self._tap, self._frame_max, self._listener = link.tap, link.frame_max, listener
        self._number = link.attach(channel, self)
        # The broker counts the messages of a channel from 1. Ours are counted over all channels, because the numbers
        # also tell the messages of this process apart.
        self._offset = last_number

    @property
    def writable(self) -> bool:
        """Whether more should be sent now."""
        return self._tap.writable

    def send(self, numbered: Sequence[tuple[int, OutgoingMessage]]) -> None:
        """Send messages in one write. Their numbers continue those of the call before, without a gap."""
        channel, frame_max = self._number, self._frame_max
        frames = [
            wire.publish(
                channel,
                frame_max,
                message.exchange,
                message.routing_key,
                wire.properties(message.message_id(number), message.priority, message.headers),
                message.body,
            )
            for number, message in numbered
        ]
        self._tap.write(b"".join(frames))

    # -- from the tap

    def on_return(self, method: bytes, header: bytes) -> None:
        """Report it by the number in its message id."""
        number = wire.number_of(wire.read_message_id(header))
        if number is not None:
            self._listener.on_return(number, wire.read_reply_text(method))

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Report it by its number."""
        self._listener.on_confirm(self._offset + tag, multiple=multiple, taken=taken)

    def on_closing(self, reason: str, code: int = 0) -> None:
        """Report it."""
        self._listener.on_channel_lost(self, reason)
