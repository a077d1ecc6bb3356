"""The library with separate producer and workers: ``python -m examples.library send FOLDER …`` and ``… report``.

Workers: ``jq-actors worker -p 2 -t 4`` with ``JQ_CONFIG=examples/library/library.yaml``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import jq_actors

from .documents import default_folders, find_documents
from .index import all_jobs, send_all, write_index


def main() -> None:
    """Send the jobs, or report on them."""
    parser = argparse.ArgumentParser(prog="python -m examples.library", description=__doc__)
    parser.add_argument("command", choices=["send", "report"])
    parser.add_argument(
        "folders", nargs="*", type=Path, help="for send; default: this project and the installed packages"
    )
    parser.add_argument("--index", type=Path, default=Path(".demo/index.json"), help="for report: the file to write")
    options = parser.parse_args()
    jq_actors.configure(Path(__file__).with_name("library.yaml"))
    if options.command == "send":
        documents = find_documents(options.folders or default_folders())
        print(f"{send_all(documents)} jobs sent for {len(documents)} documents")
    else:
        states = Counter(job.state.value for job in all_jobs())
        index = write_index(options.index)
        print(", ".join(f"{count} {state}" for state, count in sorted(states.items())))
        print(f"{len(index['documents'])} documents and {len(index['folders'])} folders in {options.index}")


main()
