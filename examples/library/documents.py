"""The input: a tree of text files."""

from __future__ import annotations

import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = frozenset({".md", ".rst", ".txt"})
NAMES = frozenset({"metadata", "readme", "license", "copying", "copyright", "authors", "changelog", "news", "notice"})
"""Documents without a suffix. ``METADATA`` is the description of an installed package."""
SYSTEM_DOCUMENTS = Path("/usr/share/doc")
LARGEST = 2_000_000
"""Bytes; a larger file is considered data, not a document."""


def default_folders() -> list[Path]:
    """Folders with documents on any machine that has this project: its own, its installed packages, Debian's."""
    folders = [Path.cwd(), Path(sysconfig.get_paths()["purelib"]), SYSTEM_DOCUMENTS]
    return [folder for folder in folders if folder.is_dir()]


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
            is_document = path.suffix.lower() in SUFFIXES or name.lower() in NAMES
            if is_document and path.is_file() and path.stat().st_size <= LARGEST:
                yield path
