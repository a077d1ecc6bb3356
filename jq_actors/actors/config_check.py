"""Applies a configuration to actors: options from YAML, unknown options, priorities on queues that have none."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jq_actors.config.loading import Config, did_you_mean
from jq_actors.errors import ActorOptionError, Problem

from .actor import JobActor
from .options import SENDING_ONLY, check_queue_has_priorities


def apply_config(actor: JobActor[..., Any], config: Config, known_options: Collection[str]) -> list[Problem]:
    """Give ``actor`` its options from ``actors:`` in the configuration, and return what is wrong with them.

    Parameters:
      known_options: the options that the configured middleware knows.
    """
    problems = [*_override(actor, config), *_unknown(actor, known_options)]
    try:
        check_queue_has_priorities(f"Actor {actor.actor_name!r}", actor.queue_name, actor.priority, config.broker)
    except ActorOptionError as error:
        problems.append(Problem(f"actor {actor.actor_name}", str(error)))
    return problems


def _override(actor: JobActor[..., Any], config: Config) -> list[Problem]:
    owner = f"Actor {actor.actor_name!r} in the configuration"
    try:
        actor.set_options(owner, config.actors.get(actor.actor_name, {}))
    except ActorOptionError as error:
        return [Problem(f"actors.{actor.actor_name}", str(error))]
    return []


def _unknown(actor: JobActor[..., Any], known_options: Collection[str]) -> list[Problem]:
    known = set(known_options) - SENDING_ONLY
    return [
        Problem(
            f"actor {actor.actor_name}",
            f"unknown option {name!r}; {did_you_mean(name, known)}. "
            "An option belongs to a middleware: is it in `middleware:`?",
        )
        for name in sorted(set(actor.options) - known)
    ]
