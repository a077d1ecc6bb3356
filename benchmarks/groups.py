"""`python -m benchmarks.groups`: groups without rows, each of which has its own queue on the broker, a lane.

It measures how fast their jobs run, how much memory a lane takes, how fast lanes are served (also after a restart of
the broker), and how long one `send` takes to a new group and to an idle one. Groups with rows have no lanes: they are
rows of `make bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated

import typer

from .alone import alone
from .lane_rows import LANE_ROWS
from .lanes import LivesOfLanes, measure_lanes
from .private_servers import private_rabbitmq
from .report import rows_table, table
from .run import measure_rounds
from .sending import Sendings, measure_sendings
from .settings import Settings


def main(
    lanes: Annotated[int, typer.Option(min=0, help="Lanes that exist at the same time; 0 skips them.")] = 10_000,
    sends: Annotated[int, typer.Option(min=0, help="Jobs of each kind, sent one by one; 0 skips them.")] = 1_000,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the rates; 0 skips them.")] = 3,
    scale: Annotated[float, typer.Option(min=0.001, help="Factor for the jobs of the rates.")] = 1.0,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a quiet machine, each time.")] = 20.0,
) -> None:
    """Run our workers and producers against private RabbitMQ nodes, and print tables."""
    settings = Settings(amqp_url="", database_url="", patience=patience)  # each measurement makes its own broker
    with alone():
        if rounds:
            with private_rabbitmq() as node:
                results = measure_rounds(LANE_ROWS, rounds, scale, replace(settings, amqp_url=node.url))
            print(*rows_table(LANE_ROWS, results), "", sep="\n")
        if lanes:
            print(*table(["", f"{lanes:,} lanes"], _of_lanes(measure_lanes(lanes, settings))), "", sep="\n")
        if sends:
            print(*table(["", "p50 ms", "p99 ms"], _of_sendings(measure_sendings(sends, settings))), sep="\n")


def _of_lanes(lives: LivesOfLanes) -> Iterator[list[str]]:
    yield ["memory of a lane with one job, nobody serves it", f"{lives.bytes_waiting / 1024:,.1f} KiB"]
    yield ["memory of a lane that is served", f"{lives.bytes_served / 1024:,.1f} KiB"]
    yield ["lanes attached", f"{lives.lanes / lives.attach:,.0f}/s"]
    yield ["all served, from the start of the workers", f"{lives.attach_from_start:,.1f} s"]
    yield ["channels with consumers, all workers", f"{lives.channels}"]
    yield ["restart of the broker, until it answers", f"{lives.broker_restart:,.1f} s"]
    yield ["all served again, from then", f"{lives.served_again:,.1f} s"]
    yield ["channels with consumers after that", f"{lives.channels_again}"]


def _of_sendings(all_sendings: Iterable[Sendings]) -> Iterator[list[str]]:
    for sendings in all_sendings:
        print(f"{sendings.title}: {sendings.p50:.1f} ms", file=sys.stderr, flush=True)
        yield [sendings.title, f"{sendings.p50:,.1f}", f"{sendings.p99:,.1f}"]


if __name__ == "__main__":
    typer.run(main)
