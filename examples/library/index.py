"""Sends a job for every document and folder, and collects what the jobs returned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jq_actors import Job, jobs

from .documents import by_folder
from .jobs import index_document, summarize_folder

SMALLEST_FOLDER = 2
"""A folder with fewer documents needs no summary."""


def send_all(documents: Sequence[Path], *, tags: Sequence[str] = ()) -> int:
    """Send a job for each document and each folder; returns how many.

    Each ``send_many`` is one transaction: all of its jobs are stored, or none.
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
    """Every matching job, page by page."""
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
