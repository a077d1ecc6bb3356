"""Claims and settlements: what is plain goes first, by statements that are committed one by one; then the rest.

Nearly all are plain. A transaction around one statement costs two round trips more, and keeps rows locked meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jq_actors.store.database.database import Database
from jq_actors.store.records import ClaimRequest, Settlement

from .claim_followups import Claimed
from .claims import Claims
from .settles import SettledBatch, Settles


class Commits:
    """Commits batches of them. ``again``: an earlier try may have been committed, wholly or in part.

    What raises may have been committed in part, whatever the error: the next try has to say so.
    """

    def __init__(self, database: Database, claims: Claims, settles: Settles) -> None:
        self._database, self._claims, self._settles = database, claims, settles

    async def claims(self, requests: Sequence[ClaimRequest], now: datetime, *, again: bool) -> Claimed:
        """See `Claims.write`. Raises as `Database.write` does."""
        plain = Claimed()
        if self._database.dialect.nests_writes and not again:
            again = not await self._database.try_alone(
                "claim", lambda line: self._claims.write_plain(line, requests, now, plain)
            )
        rest = plain.unanswered(requests)
        if not rest:
            return plain
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
                "settle", lambda line: self._settles.write_plain(line, settlements, now, lease, plain)
            )
        rest = [settlement for settlement in settlements if settlement.run_token not in plain.written]
        if not rest:
            return plain
        settled = await self._database.write(lambda c: self._settles.write(c, rest, now, lease, again=again))
        return plain.joined(settled)
