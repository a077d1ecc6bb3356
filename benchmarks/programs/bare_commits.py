"""What one connection to PostgreSQL can commit: `python -m benchmarks.programs.bare_commits URL COUNT`.

Updates one row, one transaction after the other, and prints the seconds. Nothing that writes down each job by itself
can be faster.
"""

from __future__ import annotations

import sys
import time

import asyncpg  # type: ignore[import-untyped]  # it has no types
import uvloop


async def main(url: str, count: int) -> None:
    """Make the row, update it ``count`` times."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE counter (n bigint NOT NULL)")
    await connection.execute("INSERT INTO counter VALUES (0)")
    update = await connection.prepare("UPDATE counter SET n = n + 1")
    await update.fetch()
    began = time.perf_counter()
    for _ in range(count):
        await update.fetch()
    print(time.perf_counter() - began)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
