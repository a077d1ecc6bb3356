"""``jq-actors demo``: run `examples/library` on real documents in one process, with progress and a summary."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jq_actors.clock import SystemClock
from jq_actors.errors import JobQueueError
from jq_actors.events import JobFinished
from jq_actors.model.job import FINAL_STATES, Job, JobState, new_job_ids
from jq_actors.model.printable import escape
from jq_actors.process.installed import configure, installed_broker

THREADS = 4
SHOWN = 5
"""How many of the slowest and of the failed jobs the summary lists."""
LOOK_EVERY = 0.1
"""Seconds between two updates of the progress bar."""


class Demo:
    """One run of the library. All its jobs carry the run's tag, so that the next start can continue an interrupted run.

    Parameters:
      app: the package with the library.
      folders: where to look for documents; empty: the library's default folders.
      home: the folder for database, index, log and the run's tag.
      console: where progress and summary are printed.
    """

    def __init__(self, app: str, folders: list[Path], home: Path, console: Console) -> None:
        self._documents = importlib.import_module(f"{app}.documents")
        self._index = importlib.import_module(f"{app}.index")
        self._config = Path(self._documents.__file__ or "").with_name("library.yaml")
        self._folders = folders or self._documents.default_folders()
        self._home, self._console, self._clock = home, console, SystemClock()
        self._run_file = home / "run"
        self._stop = threading.Event()
        self._done = 0

    def run(self) -> int:
        """Send the jobs, run them and report; returns the exit code: 0, or 130 when interrupted."""
        self._home.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(filename=self._home / "demo.log", level=logging.INFO, force=True)
        configure(self._config)
        tag, total = self._begin()
        started = self._clock.monotonic()
        with self._interruptible(), self._worker():
            self._watch(tag, total)
        seconds = self._clock.monotonic() - started
        jobs = list(self._index.all_jobs(tags=[tag]))
        self._report(jobs, seconds, tag)
        installed_broker().close()
        return 130 if self._stop.is_set() else 0

    def _begin(self) -> tuple[str, int]:
        """The tag of the run to continue, or of a new one, and how many of its jobs are unfinished."""
        if self._run_file.exists():
            tag = self._run_file.read_text().strip()
            left = sum(not job.state.is_final for job in self._index.all_jobs(tags=[tag]))
            if left:
                self._console.print(f"Continuing an interrupted run: {left} jobs are left.")
                return tag, left
        tag = f"run-{new_job_ids(self._clock, 1)[0]}"
        documents = self._documents.find_documents([*self._folders, self._broken_document()])
        self._run_file.write_text(tag)
        total: int = self._index.send_all(documents, tags=[tag])
        self._console.print(f"{len(documents)} documents found, {total} jobs sent.")
        return tag, total

    def _broken_document(self) -> Path:
        """Create a folder with a document that cannot be read, to show what happens to a job that fails."""
        folder = self._home / "broken"
        folder.mkdir(exist_ok=True)
        (folder / "broken.txt").write_bytes(b"This is no UTF-8: \xff\xfe")
        return folder

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        def interrupt(*_: object) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt  # the second Ctrl-C does not wait for the drain
            self._stop.set()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def _worker(self) -> Iterator[None]:
        broker = installed_broker()
        unsubscribe = broker.events.subscribe(JobFinished, self._count)
        worker = dramatiq.Worker(broker, worker_threads=THREADS, worker_timeout=100)
        worker.start()
        try:
            yield
        finally:
            if self._stop.is_set():
                self._console.print("Draining: waiting for the running jobs to finish …")
            worker.stop()
            unsubscribe()

    def _count(self, event: JobFinished) -> None:
        self._done += event.state in FINAL_STATES

    def _watch(self, tag: str, total: int) -> None:
        columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("indexing", total=total)
            while not self._stop.wait(LOOK_EVERY):
                progress.update(bar, completed=self._done)
                if self._done >= total and not self._unfinished(tag):
                    return

    def _unfinished(self, tag: str) -> bool:
        states = [state.value for state in JobState if not state.is_final]
        return next(iter(self._index.all_jobs(tags=[tag], state=states)), None) is not None

    # -- the summary

    def _report(self, jobs: list[Job], seconds: float, tag: str) -> None:
        index = self._index.write_index(self._home / "index.json", tags=[tag])
        states = Counter(job.state for job in jobs)
        table = Table(title="Jobs", title_justify="left")
        table.add_column("state")
        table.add_column("jobs", justify="right")
        for state, count in sorted(states.items()):
            table.add_row(state.value, str(count))
        self._console.print(table)
        self._console.print(f"{self._done} jobs in {seconds:.1f} s: {self._done / max(seconds, 1e-9):.0f} jobs/s")
        self._console.print(self._slowest(jobs))
        self._print_failures([job for job in jobs if job.state is JobState.FAILED])
        found = f"{len(index['documents'])} documents and {len(index['folders'])} folders"
        self._console.print(f"{found} are in {self._home / 'index.json'}; the log is {self._home / 'demo.log'}")
        if self._stop.is_set():
            left = sum(not job.state.is_final for job in jobs)
            self._console.print(f"Interrupted: {left} jobs are left; run it again to continue.")

    def _slowest(self, jobs: list[Job]) -> Table:
        table = Table(title="Slowest", title_justify="left")
        for heading in ("actor", "argument", "seconds"):
            table.add_column(heading)
        for job in sorted(jobs, key=_run_time, reverse=True)[:SHOWN]:
            table.add_row(job.actor, _argument(job), f"{_run_time(job).total_seconds():.3f}")
        return table

    def _print_failures(self, failed: list[Job]) -> None:
        if not failed:
            return
        table = Table(title=f"Failed: {len(failed)}", title_justify="left")
        for heading in ("actor", "argument", "attempts", "reason"):
            table.add_column(heading)
        for job in failed[:SHOWN]:
            table.add_row(job.actor, _argument(job), str(job.attempt), str(escape(job.reason or "")))
        self._console.print(table)


def _run_time(job: Job) -> timedelta:
    return job.finished_at - job.started_at if job.finished_at and job.started_at else timedelta()


def _argument(job: Job) -> str:
    first: Any = job.args[0] if job.args else ""
    text = str(escape(str(first)))
    return text if len(text) <= 60 else f"…{text[-59:]}"


def run_demo(folders: list[Path], home: Path, app: str = "examples.library") -> int:
    """Run the demo and return its exit code. An expected error is printed on stderr, and gives exit code 1."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return Demo(app, folders, home, Console()).run()
    except ModuleNotFoundError as error:
        print(f"The demo needs {app} of the source repository ({error}). Run it there.", file=sys.stderr)  # noqa: T201
    except JobQueueError as error:
        print(error, file=sys.stderr)  # noqa: T201
    return 1
