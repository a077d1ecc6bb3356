"""The jobs of a test of groups: so many groups of so many steps, each with its fate, which a seed draws."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded: the same jobs again
from typing import Any

from jq_actors import JobCommand
from tests.support.waiting import eventually_sync

from .group_actors import FOR_GOOD
from .site import Sending, Site

FULL = os.environ.get("JQ_TEST_GROUPS") == "full"
SEED = int(os.environ.get("JQ_TEST_GROUPS_SEED", "1"))

PATIENCE = 240.0 if FULL else 60.0
"""Seconds that a part of the work may take."""


def sized(gate: int, full: int) -> int:
    """A number for the gate, or the one for a long run (``JQ_TEST_GROUPS=full``)."""
    return full if FULL else gate


@dataclass(frozen=True, slots=True)
class Fate:
    """What a job does."""

    seconds: float = 0.0
    failures: int = 0
    in_thread: bool = False


def drawn(chance: Random) -> Fate:
    """Most take no time, and succeed at once; some do not."""
    [failures] = chance.choices((0, 1, 2, FOR_GOOD), weights=(88, 8, 2, 2))
    seconds = chance.choice((0.0, 0.0, chance.random() * 0.3))
    return Fate(seconds, failures, in_thread=chance.random() < 0.25)


class Steps:
    """``groups`` groups of ``each`` jobs, with fates that ``draw`` draws. Those of a group are sent by their places."""

    def __init__(self, groups: int, each: int, draw: Callable[[Random], Fate] = drawn) -> None:
        print(f"{groups} groups of {each} jobs, JQ_TEST_GROUPS_SEED={SEED}")  # shown when the test fails
        chance = Random(SEED)
        self.groups, self.each = groups, each
        self.fates = {(group, place): draw(chance) for place in range(each) for group in range(groups)}
        self.sent: dict[str, tuple[int, int]] = {}
        """The group and the place of each job that was sent."""

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return len(self.fates)

    def fate(self, job_id: str) -> Fate:
        """That of a job."""
        return self.fates[self.sent[job_id]]

    def send(self, sending: Sending, first: int, end: int) -> None:
        """Send the jobs of all groups that have the places from ``first`` to before ``end``."""
        for place in range(first, end):
            calls: defaultdict[bool, list[Any]] = defaultdict(list)
            for group in range(self.groups):
                fate = self.fates[group, place]
                calls[fate.in_thread].append(((group, place, fate.seconds, fate.failures), {}))
            for in_thread, of_kind in calls.items():
                actor = sending.actors.step_in_thread if in_thread else sending.actors.step
                self._note(actor.send_many(of_kind))

    @contextmanager
    def sent_meanwhile(self, sending: Sending, first: int, end: int) -> Iterator[None]:
        """The same, while what is inside goes on."""
        with ThreadPoolExecutor(1, "steps") as thread:
            others = thread.submit(self.send, sending, first, end)
            yield
            others.result(PATIENCE)

    def _note(self, commands: list[JobCommand[Any]]) -> None:
        for command in commands:
            group, place, *_ = command.args
            self.sent[command.job_id] = group, place


def wait_until_ended(site: Site, runs: int) -> None:
    """Wait until so many runs have ended."""
    eventually_sync(lambda: site.journal.ended() >= runs, PATIENCE, f"the end of {runs} runs")
