"""The actors of the library. A worker imports this module: ``jq-actors worker examples.library.jobs``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypedDict

from jq_actors import actor, current_job, jobs

from .text import most_telling, words_of

TOP = 8
"""How many words describe a document or a folder."""
MAX_GROUP = 512
"""The most characters that the name of a group may have."""
MAX_PAGE = 1000
"""The most jobs that one call finds."""


class DocumentEntry(TypedDict):
    """A document's entry in the index."""

    path: str
    words: int
    top: list[str]


class FolderEntry(TypedDict):
    """A folder's entry in the index."""

    path: str
    documents: int
    failed: int
    """How many of the documents could not be indexed."""
    telling: list[str]


def group_of_document(path: Path) -> str:
    """The jobs of a folder are one group: its documents in order, then its summary, which therefore runs last."""
    return group_of_folder(path.parent)


def group_of_folder(folder: Path, documents: object = None) -> str:
    """The group of a folder: its path, or the end of a long one; folders whose paths end alike share a group."""
    return str(folder)[-MAX_GROUP:]


@actor(group=group_of_document, max_retries=1, min_backoff=200, max_backoff=500)
async def index_document(path: Path) -> DocumentEntry:
    """Read and count one document. Async: while the disk is read, the loop runs other jobs.

    A document that is not UTF-8 fails, is retried after a moment, and fails for good, with the reason in its row.
    """
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    words = words_of(text)
    top = sorted(words, key=lambda word: (-words[word], word))[:TOP]
    return DocumentEntry(path=str(path), words=words.total(), top=top)


@actor(group=group_of_folder, max_retries=0)
def summarize_folder(folder: Path, documents: list[Path]) -> FolderEntry:
    """Find the words that describe a folder's documents best. Sync and CPU-bound: it runs in a worker thread.

    The order of the group guarantees that every document has been indexed by now, or has failed for good.
    """
    counted = [words_of(document.read_text(encoding="utf-8", errors="replace")) for document in documents]
    job = current_job()
    job.log("%d documents in %s", len(documents), folder)
    failed = len(jobs.find(state="failed", group=job.group, tags=job.command.tags, limit=MAX_PAGE).jobs)
    return FolderEntry(path=str(folder), documents=len(documents), failed=failed, telling=most_telling(counted, TOP))
