"""Claims and settlements: what is plain goes first, by statements that are committed one by one; then the rest.

Nearly all are plain. A transaction around one statement costs two round trips more, and keeps rows locked meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from jq_actors.errors import StoreError, StoreUnavailableError, StoreUnknownError

from .claims import Claims
from .database import Database
from .judging import Claimed
from .records import ClaimRequest, Settlement
from .settles import SettledBatch, Settles


class Commits:
    """Commits batches of them. ``again``: an earlier try may have been committed, wholly or in part."""

    def __init__(self, database: Database, claims: Claims, settles: Settles) -> None:
        self._database, self._claims, self._settles = database, claims, settles

    async def claims(self, requests: Sequence[ClaimRequest], now: datetime, *, again: bool) -> Claimed:
        """See `Claims.write`. Raises as `Database.write` does."""
        plain = Claimed()
        if self._database.dialect.nests_writes and not again:
            again = not await self._database.try_alone(lambda c: self._claims.write_plain(c, requests, now, plain))
        rest = plain.unanswered(requests)
        if not rest:
            return plain
        with _perhaps_written(again or bool(plain.answers)):
            claimed = await self._database.write(lambda c: self._claims.write(c, rest, now, again=again))
        claimed.answers |= plain.answers
        return claimed

    async def settlements(
        self, settlements: Sequence[Settlement], now: datetime, lease: datetime, *, again: bool
    ) -> SettledBatch:
        """See `Settles.write`. Raises as `Database.write` does, and when an outcome has no stored form."""
        plain = SettledBatch()
        if self._database.dialect.nests_writes and not again:
            again = not await self._database.try_alone(
                lambda c: self._settles.write_plain(c, settlements, now, lease, plain)
            )
        rest = [settlement for settlement in settlements if settlement.run_token not in plain.written]
        if not rest:
            return plain
        with _perhaps_written(again or bool(plain.written)):
            settled = await self._database.write(lambda c: self._settles.write(c, rest, now, lease, again=again))
        return plain.joined(settled)


@contextmanager
def _perhaps_written(is_so: bool) -> Iterator[None]:
    """When the rest is refused after a part was committed, the next try of that part has to know it."""
    try:
        yield
    except StoreUnavailableError:
        raise
    except StoreError as error:
        if is_so:
            raise StoreUnknownError(f"A part may be written; the rest is refused: {error}") from error
        raise
