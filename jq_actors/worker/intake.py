"""The deliveries that this process has received: which are in progress, which wait for a slot, which are held."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

from jq_actors.clock import Clock
from jq_actors.errors import DecodeError
from jq_actors.events import Events, TaskFailed
from jq_actors.model.command import JobCommand
from jq_actors.model.outcome import failure_of
from jq_actors.model.running_job import RunnableActor
from jq_actors.transport.port import Delivery

from .executor import Executor
from .slots import ReceivedDelivery, Slots

AFTER_AN_ERROR = timedelta(seconds=5)
"""How long a delivery is held after its handling ended in an error of ours."""


GiveBack = Callable[[Delivery, JobCommand[Any]], None]
"""Gives a delivery, and the command in it, back to the broker."""


THREADS = "threads"
"""The name of the slots of sync actors."""


def coroutines_of(queue: str) -> str:
    """The name of the slots of async actors in ``queue``."""
    return f"coroutines:{queue}"


class Intake:
    """Takes deliveries from the transport and gives them to the executor as slots become free; on the I/O loop."""

    def __init__(
        self,
        executor: Executor,
        actors: Mapping[str, RunnableActor],
        threads: int,
        clock: Clock,
        events: Events,
    ) -> None:
        self._executor, self._actors = executor, actors
        self._clock, self._events = clock, events
        self._threads = Slots(THREADS, threads)
        self._coroutines: dict[str, Slots] = {}
        self._held: dict[ReceivedDelivery, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()

    def serve(self, queue: str, concurrency: int) -> None:
        """Take deliveries of ``queue``, with at most ``concurrency`` coroutines of it at once."""
        self._coroutines[queue] = Slots(coroutines_of(queue), concurrency)

    def deliver(self, delivery: Delivery) -> None:
        """Accept a delivery. Its job starts now, or when a slot becomes free."""
        if not self._open:
            delivery.requeue()
            return
        command = self._executor.receive(delivery)
        if isinstance(command, DecodeError):
            self._spawn(self._refuse(delivery, command))
            return
        actor = self._actors.get(command.actor_name)
        slots = self._coroutines[delivery.queue] if actor is None or actor.is_async else self._threads
        self._offer(ReceivedDelivery(delivery, command, slots, self._clock.monotonic()))

    def waiting(self) -> dict[str, int]:
        """How many unclaimed deliveries of each queue this process holds."""
        return dict(Counter(received.delivery.queue for received in self._unclaimed()))

    def return_waiting(self, older_than: float, give_back: GiveBack) -> None:
        """Give back deliveries that have waited longer than ``older_than`` seconds, before the broker takes them away.

        The broker would close the whole channel with them (RabbitMQ: ``consumer_timeout``). Deliveries that it has
        taken already are forgotten.
        """
        self._forget_lost()
        limit = self._clock.monotonic() - older_than
        for slots in self._all_slots():
            old = [received for received in slots.waiting if received.since <= limit]
            for received in old:
                slots.waiting.remove(received)
                give_back(received.delivery, received.command)
        for received in [received for received in self._held if received.since <= limit]:
            self._take_held(received)
            give_back(received.delivery, received.command)

    def close(self) -> None:
        """Start no more jobs, and give back the deliveries that have not started, in their order of arrival."""
        self._open = False
        for slots in self._all_slots():
            while slots.waiting:
                slots.waiting.popleft().delivery.requeue()
        for received in tuple(self._held):
            self._take_held(received)
            received.delivery.requeue()

    async def idle(self, timeout: float) -> bool:
        """Whether nothing is in progress, waiting up to ``timeout`` seconds for it."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @property
    def is_open(self) -> bool:
        """Whether jobs may still start."""
        return self._open

    @property
    def busy(self) -> int:
        """How many deliveries are in progress, from their claim to their settling."""
        return len(self._tasks)

    @property
    def in_hand(self) -> int:
        """How many deliveries are here, in progress or not."""
        return self.busy + len(self._unclaimed())

    def _unclaimed(self) -> list[ReceivedDelivery]:
        waiting = [received for slots in self._all_slots() for received in slots.waiting]
        return [received for received in (*self._held, *waiting) if received.delivery.is_open]

    def _all_slots(self) -> list[Slots]:
        return [self._threads, *self._coroutines.values()]

    def _forget_lost(self) -> None:
        for slots in self._all_slots():
            slots.waiting = deque(received for received in slots.waiting if received.delivery.is_open)
        for received in [received for received in self._held if not received.delivery.is_open]:
            self._take_held(received)

    def _offer(self, received: ReceivedDelivery) -> None:
        if not received.delivery.is_open:
            return  # lost with its connection: the broker redelivers it to any worker, and that copy counts
        if received.slots.take(received):
            self._spawn(self._process(received))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _process(self, received: ReceivedDelivery) -> None:
        slot = _Slot(self, received)
        try:
            await self._executor.process(received.delivery, received.command, slot)
        except Exception as error:  # noqa: BLE001 - ours, not the actor's: reported, and tried again
            failure, work = failure_of(error), f"the life of job {received.command.job_id}"
            self._events.emit(TaskFailed(work, failure.error, failure.traceback))
            slot.hold(AFTER_AN_ERROR)
        finally:
            self.free(received)

    async def _refuse(self, delivery: Delivery, error: DecodeError) -> None:
        try:
            await self._executor.refuse(delivery, error)
        except Exception as ours:  # noqa: BLE001 - reported, and delivered again
            failure, what = failure_of(ours), f"the refusal of a message in {delivery.queue}"
            self._events.emit(TaskFailed(what, failure.error, failure.traceback))
            await self._clock.sleep(AFTER_AN_ERROR.total_seconds())
            delivery.requeue()

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._tasks.discard(work)
        if not self._tasks:
            self._idle.set()

    def free(self, received: ReceivedDelivery) -> None:
        """Free the slot of ``received``, and start the deliveries that get it."""
        for following in received.slots.release(received):
            self._spawn(self._process(following))

    def hold(self, received: ReceivedDelivery, time: timedelta) -> bool:
        """Offer ``received`` again after ``time``; returns whether this is its first time."""
        if not received.delivery.is_open:
            return False  # acked early, or lost: it is not ours to offer or to give back
        if not self._open:
            received.delivery.requeue()
            return False
        loop = asyncio.get_running_loop()
        received.slots.held += 1
        self._held[received] = loop.call_later(time.total_seconds(), self._look_again, received)
        is_first, received.was_held = not received.was_held, True
        return is_first

    def _look_again(self, received: ReceivedDelivery) -> None:
        self._take_held(received)
        self._offer(received)

    def _take_held(self, received: ReceivedDelivery) -> None:
        self._held.pop(received).cancel()
        received.slots.held -= 1


class _Slot:
    """The slot of one delivery, as the executor sees it."""

    def __init__(self, intake: Intake, received: ReceivedDelivery) -> None:
        self._intake, self._received = intake, received

    @property
    def name(self) -> str:
        return self._received.slots.name

    @property
    def others_wait(self) -> bool:
        return bool(self._received.slots.waiting)

    @property
    def may_hold(self) -> bool:
        return self._received.slots.may_hold

    @property
    def is_open(self) -> bool:
        return self._intake.is_open

    def hold(self, time: timedelta) -> bool:
        return self._intake.hold(self._received, time)

    def free(self) -> None:
        self._intake.free(self._received)
