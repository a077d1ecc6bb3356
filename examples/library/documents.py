"""The input: text files in a tree."""

from __future__ import annotations

import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = frozenset({".md", ".rst", ".txt"})
LARGEST = 2_000_000
"""Bytes; a larger file is data rather than a document."""


def default_folders() -> list[Path]:
    """The documents that every machine with this project has: its own, and those of the installed packages."""
    return [Path.cwd(), Path(sysconfig.get_paths()["purelib"])]


def find_documents(folders: Iterable[Path]) -> list[Path]:
    """All documents below ``folders``, each once, in the order of their paths."""
    return sorted({path for folder in folders for path in _walk(folder.resolve())})


def by_folder(documents: Iterable[Path]) -> dict[Path, list[Path]]:
    """The documents of each folder."""
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for document in documents:
        folders[document.parent].append(document)
    return dict(folders)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, children, names in os.walk(folder):
        children[:] = [child for child in children if not child.startswith(".") and child != "node_modules"]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and path.stat().st_size <= LARGEST:
                yield path
