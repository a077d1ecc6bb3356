"""The report as Markdown: the table, the numbers behind it, the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .result import Metric, Results, Rounds, middle, spread
from .row import Row
from .subject import Subject

NOTHING = "—"


def render(rows: Sequence[Row], results: Results, facts: Mapping[str, str]) -> str:
    """The whole report."""
    parts = [*rows_table(rows, results), "", "## Numbers", ""]
    parts += [*table(["subject", *Metric, "note"], _numbers(results)), "", "## Machine", ""]
    parts += table(["fact", "value"], [[*fact] for fact in facts.items()])
    return "\n".join(parts) + "\n"


def rows_table(rows: Iterable[Row], results: Results) -> Iterator[str]:
    """The lines of the table itself."""
    yield from table(["row", "ours", "peer", "ratio", "target", ""], (_row(row, results) for row in rows))


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of one table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in body:
        # A note may hold the last lines of a log; a table's cell is one line.
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ⏎ ") for cell in row) + " |"


def _row(row: Row, results: Results) -> Sequence[str]:
    peer = NOTHING if row.peer is None else f"{row.peer.title}: {_value(row, row.peer, results)}"
    ratio = row.ratio(results)
    return [
        row.title,
        _value(row, row.ours, results),
        peer,
        NOTHING if ratio is None else f"{ratio:.2f} ×",
        NOTHING if row.target is None else row.target.shown(row.metric),
        _verdict(row, results),
    ]


def _value(row: Row, subject: Subject, results: Results) -> str:
    value = row.value(subject, results)
    return NOTHING if value is None else row.metric.shown(value)


def _verdict(row: Row, results: Results) -> str:
    missing = [subject for subject in row.subjects if row.value(subject, results) is None]
    met = row.is_met(results)
    words = [] if row.target is None else [{True: "met", False: "**not met**", None: "not measured"}[met]]
    words += [note for subject in missing for note in _notes(results.get(subject.title, ()))]
    return "; ".join(words)


def _numbers(results: Results) -> Iterator[Sequence[str]]:
    for title, rounds in results.items():
        yield [title, *(_number(rounds, metric) for metric in Metric), "; ".join(_notes(rounds))]


def _number(rounds: Rounds, metric: Metric) -> str:
    value, limits = middle(rounds, metric), spread(rounds, metric)
    if value is None or limits is None:
        return ""
    return f"{metric.bare(value)} [{metric.bare(limits[0])} … {metric.bare(limits[1])}]"


def _notes(rounds: Rounds) -> Iterable[str]:
    return dict.fromkeys(measurement.note for measurement in rounds if measurement.note)
