"""Who a worker is, and whether it still lives: asked of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from jq_actors.clock import SystemClock
from jq_actors.model.worker_identity import identify, is_known_dead, process_start
from tests.support.clock import FakeClock
from tests.support.waiting import eventually_sync


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def test_an_identity_is_of_this_boot_of_this_process() -> None:
    one, other = identify(SystemClock()), identify(SystemClock())
    assert one.id != other.id
    assert (one.pid, one.process_started) == (os.getpid(), process_start(os.getpid()))
    assert one.name.endswith(f":{os.getpid()}")
    assert identify(SystemClock(), "worker_1").name == "worker_1"


def test_the_id_has_a_fixed_width_whatever_chance_gives() -> None:
    class Low(FakeClock):
        def random_bits(self, bits: int) -> int:
            return 1

    assert identify(Low()).id == "0000000000000001"


def test_a_living_process_is_not_dead() -> None:
    me = identify(SystemClock())
    assert not is_known_dead(me.host, me.pid, me.process_started)


def test_a_killed_process_is_dead_as_a_zombie_and_when_it_is_gone(child: subprocess.Popen[bytes]) -> None:
    host = identify(SystemClock()).host
    started = process_start(child.pid)
    assert started is not None
    assert not is_known_dead(host, child.pid, started)
    child.send_signal(signal.SIGKILL)
    eventually_sync(lambda: is_known_dead(host, child.pid, started), 5, "the unreaped child to count as dead")
    child.wait()
    assert is_known_dead(host, child.pid, started)


def test_a_stopped_process_is_not_dead(child: subprocess.Popen[bytes]) -> None:
    process = psutil.Process(child.pid)
    process.suspend()
    eventually_sync(lambda: process.status() == psutil.STATUS_STOPPED, 5, "the child to stop")
    assert not is_known_dead(identify(SystemClock()).host, child.pid, process_start(child.pid) or 0.0)


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    me = identify(SystemClock())
    assert is_known_dead(me.host, me.pid, me.process_started - 60)


def test_of_another_host_nothing_is_known() -> None:
    me = identify(SystemClock())
    assert not is_known_dead("elsewhere/pid:[1]", me.pid, me.process_started - 60)


def test_a_step_of_the_clock_makes_nobody_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    me = identify(SystemClock())
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    assert not is_known_dead(me.host, me.pid, me.process_started)
