"""Lanes from the publisher's side: publish, *then* look, and a token for each lane that too few workers serve.

A message in a lane that nobody serves waits until somebody puts a token into the lobby. So the token belongs to
publishing, and is put even when the caller has stopped waiting. `tokens.tokens_needed` decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from jq_actors.clock import Clock
from jq_actors.errors import TransportError
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Outgoing, Published, PublishResult, PublishUnknown, QueueDepth
from jq_actors.transport.rabbitmq.amqp.client import RefusedError
from jq_actors.transport.rabbitmq.lane_names import Why
from jq_actors.transport.rabbitmq.publishing.outgoing import OutgoingMessage
from jq_actors.transport.rabbitmq.publishing.publisher import Publisher
from jq_actors.transport.rabbitmq.publishing.routes import Routes
from jq_actors.transport.rabbitmq.topology import Topology, look
from jq_actors.transport.tokens import tokens_needed

LOOK_AGAIN = 0.1
"""Seconds before the next look when there is no connection."""
ROUNDS = 3
"""How often messages are sent to a lane that is deleted before the look, each time."""

T = TypeVar("T")


class Offering:
    """Publishes into lanes, and offers lanes to the workers that serve them.

    Parameters:
      deadline: seconds for one call, looks and tokens included.
    """

    def __init__(self, publisher: Publisher, routes: Routes, topology: Topology, clock: Clock, deadline: float) -> None:
        self._publisher, self._routes, self._topology, self._clock = publisher, routes, topology, clock
        self._deadline = deadline
        self._running: set[asyncio.Task[Any]] = set()

    async def publish(self, batch: Sequence[Outgoing], messages: Sequence[OutgoingMessage]) -> list[PublishResult]:
        """Publish ``messages``, made of ``batch``, some of which go into lanes; see `Transport.publish`."""
        return await self._uncancelled(self._publish(batch, messages))

    async def put_token(self, lane: Lane, why: Why | None = None) -> bool:
        """Put one fresh token for ``lane`` into the lobby. Returns whether the broker has confirmed it."""
        if not self._publisher.is_taking:
            return False
        [result] = await self._publisher.publish([self._routes.to_lobby(lane, why)])
        return isinstance(result, Published)

    def forget(self, lane: Lane) -> None:
        """``lane`` was deleted: declare it before the next message to it."""
        self._routes.saw(lane, exists=False)

    async def _uncancelled(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _publish(self, batch: Sequence[Outgoing], messages: Sequence[OutgoingMessage]) -> list[PublishResult]:
        until = self._clock.monotonic() + self._deadline
        results = await self._publisher.publish(messages)
        looks = _Looks(self._publisher, self._routes, self._topology, self._clock)
        in_lanes = _in_lanes(batch, messages, results)
        for _ in range(ROUNDS):
            await looks.look_at([lane for lane in in_lanes if looks.depths.get(lane) is None], until)
            gone = [i for lane in in_lanes if lane in looks.depths and not looks.depths[lane] for i in in_lanes[lane]]
            if not gone:
                break
            # They were deleted as idle just when we published: the broker confirms even what it deletes with a queue.
            await self._publish_again(messages, results, sorted(gone), until)
        published = {lane: len(indexes) for lane, indexes in in_lanes.items() if lane not in looks.problems}
        problems = looks.problems | await self._offer(published, looks.depths, until - self._clock.monotonic())
        for lane, problem in problems.items():
            _doubt(results, in_lanes[lane], problem)
        return results

    async def _publish_again(
        self, messages: Sequence[OutgoingMessage], results: list[PublishResult], indexes: Sequence[int], until: float
    ) -> None:
        seconds = max(0.0, until - self._clock.monotonic())
        for index, result in zip(
            indexes, await self._publisher.publish([messages[i] for i in indexes], seconds), strict=True
        ):
            results[index] = result

    async def _offer(
        self, published: Mapping[Lane, int], depths: Mapping[Lane, QueueDepth | None], seconds: float
    ) -> dict[Lane, str]:
        """Publish the tokens that are needed. Returns the lanes whose token is not confirmed, and why."""
        lanes = [
            lane for lane, count in published.items() for _ in range(tokens_needed(depths.get(lane), count, lane.seats))
        ]
        if not lanes:
            return {}
        results = await self._publisher.publish([self._routes.to_lobby(lane) for lane in lanes], max(0.0, seconds))
        return {
            lane: f"its token is not in the lobby: {getattr(result, 'reason', result)}"
            for lane, result in zip(lanes, results, strict=True)
            if not isinstance(result, Published)
        }


class _Looks:
    """Looks at lanes after messages were published into them."""

    def __init__(self, publisher: Publisher, routes: Routes, topology: Topology, clock: Clock) -> None:
        self.depths: dict[Lane, QueueDepth | None] = {}
        self.problems: dict[Lane, str] = {}
        """Lanes that could not be looked at, and why."""
        self._publisher, self._routes, self._topology, self._clock = publisher, routes, topology, clock

    async def look_at(self, lanes: Sequence[Lane], until: float) -> None:
        """Look at each of ``lanes`` once, with more attempts while there is no connection."""
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                await asyncio.gather(*(self._look_at(lane) for lane in lanes))
        except TimeoutError:
            for lane in lanes:
                if lane not in self.depths:
                    self.problems.setdefault(lane, "nobody could look in time whether its lane is served")

    async def _look_at(self, lane: Lane) -> None:
        while True:
            link = self._publisher.connection.link
            try:
                if link is not None:
                    depth = self.depths[lane] = await look(link, self._topology.lane(lane).name)
                    self._routes.saw(lane, exists=depth is not None)
                    return
            except RefusedError as error:
                self.problems[lane] = f"its lane cannot be looked at: {error}"
                return
            except (TransportError, TimeoutError):
                pass  # the connection is breaking; the next one answers, or the time is over
            await self._clock.sleep(LOOK_AGAIN)


def _in_lanes(
    batch: Sequence[Outgoing], messages: Sequence[OutgoingMessage], results: Sequence[PublishResult]
) -> dict[Lane, list[int]]:
    """The lanes that have got messages, or may have, with the indexes of those."""
    found: dict[Lane, list[int]] = {}
    for index, (outgoing, message, result) in enumerate(zip(batch, messages, results, strict=True)):
        if outgoing.lane is not None and message.home is not None and isinstance(result, Published | PublishUnknown):
            found.setdefault(outgoing.lane, []).append(index)
    return found


def _doubt(results: list[PublishResult], indexes: Sequence[int], problem: str) -> None:
    for index in indexes:
        if isinstance(results[index], Published):
            results[index] = PublishUnknown(f"stored, but {problem}")
