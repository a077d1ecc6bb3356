"""The public names: what may be imported from `jq_actors` and `jq_actors.jobs`. All else may move."""

from __future__ import annotations

import inspect

import jq_actors
from jq_actors import jobs

PACKAGE = {
    "AsyncJobActor",
    "Fail",
    "Group",
    "GroupState",
    "Job",
    "JobActor",
    "JobBroker",
    "JobCommand",
    "JobId",
    "JobMiddleware",
    "JobQueueError",
    "JobState",
    "Place",
    "Retry",
    "RunningJob",
    "Snooze",
    "actor",
    "configure",
    "current_job",
    "jobs",
}
OPERATIONS = {"find", "get", "group", "groups", "move", "pause", "result", "resume", "retry"}


def test_the_names_of_the_package() -> None:
    assert set(jq_actors.__all__) == PACKAGE
    assert all(hasattr(jq_actors, name) for name in PACKAGE)


def test_the_operations_and_their_twins() -> None:
    assert set(jobs.__all__) == OPERATIONS | {f"{name}_async" for name in OPERATIONS}


def test_each_operation_takes_what_its_twin_takes() -> None:
    for name in OPERATIONS:
        operation, twin = getattr(jobs, name), getattr(jobs, f"{name}_async")
        assert inspect.iscoroutinefunction(twin)
        assert not inspect.iscoroutinefunction(operation)
        assert inspect.signature(operation) == inspect.signature(twin)


def test_each_public_name_says_what_it_is() -> None:
    for name in PACKAGE - {"JobId"}:
        assert inspect.getdoc(getattr(jq_actors, name)), name
