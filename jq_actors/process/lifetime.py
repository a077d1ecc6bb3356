"""The two process events that a broker has to handle: the interpreter's exit, and a fork's child."""

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
    """An object that handles the interpreter's exit and a fork."""

    def close(self) -> None:
        """The interpreter exits: finish the work in progress."""
        ...

    def forget(self) -> None:
        """This is a forked child without the parent's threads. Must not raise, nor touch what the parent runs."""
        ...


def watch(mortal: Mortal) -> None:
    """Call ``mortal`` at exit and after a fork, for as long as it exists; it is referenced weakly."""
    _WATCHED.add(mortal)


def close_with_child() -> None:
    """Make a child of ``multiprocessing``, which exits without ``atexit``, close the watched objects, too.

    Dramatiq's worker processes are such children: jobs that run when a second signal ends them are given back.
    """
    if multiprocessing.parent_process() is not None and os.getpid() not in _CHILDREN:
        _CHILDREN.add(os.getpid())
        Finalize(None, _close_all, exitpriority=0)


def leave_uncollected(thing: object) -> None:
    """Keep the parent's ``thing`` for as long as this forked child lives: collecting it would close its sockets."""
    _LEFT_BY_FORK.append(thing)


_LEFT_BY_FORK: list[object] = []
_CHILDREN: set[int] = set()
_WATCHED: weakref.WeakSet[Mortal] = weakref.WeakSet()


def _close_all() -> None:
    for mortal in tuple(_WATCHED):
        try:
            mortal.close()
        except Exception:  # noqa: BLE001 - the others must be closed, too
            _log.exception("%r could not be closed at the end of the process.", mortal)


def _forget_all() -> None:
    for mortal in tuple(_WATCHED):
        mortal.forget()


os.register_at_fork(after_in_child=_forget_all)
# Registered when this module is imported: what an application registers later runs before it, and can still send.
atexit.register(_close_all)
