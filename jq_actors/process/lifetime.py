"""The two ends of a process that a broker has to know of: the interpreter's exit, and a fork's child."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import weakref
from multiprocessing.util import Finalize
from typing import Protocol

_log = logging.getLogger("jq_actors")


class Mortal(Protocol):
    """Who is told."""

    def close(self) -> None:
        """The interpreter ends: bring to its end what is under way."""
        ...

    def forget(self) -> None:
        """This is a forked child: what the parent runs is not here. Must not raise, and touch nothing of it."""
        ...


def watch(mortal: Mortal) -> None:
    """Tell ``mortal``, as long as it is alive itself."""
    _WATCHED.add(mortal)


def close_with_child() -> None:
    """See to it that a child of ``multiprocessing``, which ends without ``atexit``, closes what is watched, too.

    Dramatiq's worker processes are such: what runs there when a second signal forces their end is given back.
    """
    if multiprocessing.parent_process() is not None and os.getpid() not in _CHILDREN:
        _CHILDREN.add(os.getpid())
        Finalize(None, _close_all, exitpriority=0)


def leave_uncollected(thing: object) -> None:
    """Keep ``thing``, the parent's, for as long as this forked child lives: to collect it would close its sockets."""
    _LEFT_BY_FORK.append(thing)


_LEFT_BY_FORK: list[object] = []
_CHILDREN: set[int] = set()
_WATCHED: weakref.WeakSet[Mortal] = weakref.WeakSet()


def _close_all() -> None:
    for mortal in tuple(_WATCHED):
        try:
            mortal.close()
        except Exception:  # noqa: BLE001 - the others are to be closed, too
            _log.exception("%r could not be closed at the end of the process.", mortal)


def _forget_all() -> None:
    for mortal in tuple(_WATCHED):
        mortal.forget()


os.register_at_fork(after_in_child=_forget_all)
# Registered when this module is imported: what an application registers later runs before it, and can still send.
atexit.register(_close_all)
