"""Look at jobs, wait for their results, and steer them and their groups: ``from jq_actors import jobs``.

Every function has an ``_async`` twin. All of them need the `persistence` middleware: without it no job has a row.
"""

from .groups import group, group_async, groups, groups_async, pause, pause_async, resume, resume_async
from .reading import find, find_async, get, get_async
from .results import result, result_async
from .steering import move, move_async, retry, retry_async

__all__ = [
    "find",
    "find_async",
    "get",
    "get_async",
    "group",
    "group_async",
    "groups",
    "groups_async",
    "move",
    "move_async",
    "pause",
    "pause_async",
    "result",
    "result_async",
    "resume",
    "resume_async",
    "retry",
    "retry_async",
]
