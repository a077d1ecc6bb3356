"""The broker that this process uses: Dramatiq's global broker, when it is one of ours."""

from __future__ import annotations

import dramatiq

from jq_actors.config.loading import Source
from jq_actors.errors import RuntimeStateError

from .broker import JobBroker


def install() -> JobBroker:
    """Make a `JobBroker` Dramatiq's global broker; ``import jq_actors`` calls this. Reads no configuration."""
    broker = JobBroker()
    dramatiq.set_broker(broker)
    return broker


def installed_broker() -> JobBroker:
    """The global broker.

    Raises:
      RuntimeStateError: another kind of broker has been set since.
    """
    broker = dramatiq.get_broker()
    if not isinstance(broker, JobBroker):
        raise RuntimeStateError(f"The global broker is a {type(broker).__name__}, not the JobBroker of jq_actors.")
    return broker


def configure(source: Source) -> None:
    """Configure the global broker: a path, a mapping or a `Config`; for tests and frameworks.

    Raises:
      ConfigError: all problems at once.
      RuntimeStateError: it is running already.
    """
    installed_broker().configure(source)
