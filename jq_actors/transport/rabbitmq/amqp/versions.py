"""Which versions of the client libraries this adapter works with.

aio-pika is used by its public API, but `client` also leans on what is below it, and that changes between minor
versions. A version that was not tested with is refused at start: it could lose frames without an error.
"""

from __future__ import annotations

from importlib.metadata import version

from jq_actors.errors import TransportError

SUPPORTED = {
    "aio-pika": ("10.2.1", "10.3"),
    "aiormq": ("7.2.4", "7.3"),
    "pamqp": ("4.0.1", "4.1"),
}
"""The first version that works, and the first one that was not tested. The dependencies in pyproject.toml say the
same."""
INSTALLED = {name: version(name) for name in SUPPORTED}
"""Found when this module is imported: that reads files, which must not happen on a loop."""


class ClientVersionError(TransportError):
    """A client library is installed in a version that this adapter was not tested with."""


def check_versions() -> None:
    """Refuse client libraries that this adapter was not tested with.

    Raises:
      ClientVersionError: one of them is too old or too new.
    """
    for name, (first, below) in SUPPORTED.items():
        found = INSTALLED[name]
        if not _numbers(first) <= _numbers(found) < _numbers(below):
            raise ClientVersionError(
                f"{name} {found} is installed, and RabbitMQ is supported with {name}>={first},<{below} only."
            )


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version; a suffix such as ``rc1`` is ignored."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
