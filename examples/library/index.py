"""The beginning and the end of the library: send the jobs, and collect their results in an index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jq_actors import Job, jobs

from .documents import by_folder
from .jobs import index_document, summarize_folder

SMALLEST_FOLDER = 2
"""How many documents a folder needs in order to get a summary."""


def send_all(documents: Sequence[Path], *, tags: Sequence[str] = ()) -> int:
    """Send a job for each document, and one for each folder with enough of them; returns how many jobs.

    Each ``send_many`` is one transaction, which stores all of its jobs or none.
    """
    folders = {folder: inside for folder, inside in by_folder(documents).items() if len(inside) >= SMALLEST_FOLDER}
    index_document.send_many([((document,), {}) for document in documents], tags=tags)
    summarize_folder.send_many([((folder, inside), {}) for folder, inside in folders.items()], tags=tags)
    return len(documents) + len(folders)


def write_index(target: Path, *, tags: Sequence[str] = ()) -> dict[str, Any]:
    """Write the results of the succeeded jobs to ``target`` as JSON, and return them."""
    index = {
        "documents": _sorted_results("index_document", tags),
        "folders": _sorted_results("summarize_folder", tags),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return index


def all_jobs(**where: Any) -> Iterator[Job]:
    """All jobs that match the filters of ``jobs.find``, read page by page."""
    after = None
    while True:
        page = jobs.find(**where, limit=500, after=after)
        yield from page.jobs
        after = page.cursor
        if after is None:
            return


def _sorted_results(actor: str, tags: Sequence[str]) -> list[Any]:
    results = {job.result["path"]: job.result for job in all_jobs(state="succeeded", actor=actor, tags=tags)}
    return [results[path] for path in sorted(results)]
