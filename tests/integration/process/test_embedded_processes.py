"""One machine, many processes, no server: what lies in the lane of a process that is killed is not lost."""

from __future__ import annotations

from pathlib import Path

from jq_actors import jobs
from tests.integration.site import Site, StartWorker
from tests.support.application import Place, running

SENDS_TO_ITSELF = """

@actor
def sends(count: int) -> None:
    sleeps_sync.send_many([((str(number), 0.05), {}) for number in range(count)])
    note("sent")
    time.sleep(60)
"""


def test_a_killed_process_loses_nothing_of_its_lane(
    embedded_rows: Place, tmp_path: Path, start_worker: StartWorker
) -> None:
    site = Site(embedded_rows, tmp_path, start_worker)
    module = site.folder / "myjobs.py"
    module.write_text(module.read_text() + SENDS_TO_ITSELF)
    with running(embedded_rows.configuration) as app:
        sends = site.actors()["sends"]
        first = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1")
        sends.send(10)
        site.wait_for_note("sent")  # its only thread is taken: the ten wait in its lane, or in their rows
        app.wait(lambda: len(jobs.find(actor="sleeps_sync", state="queued").jobs) == 10, "ten rows")
        ids = {job.id for job in jobs.find(actor="sleeps_sync").jobs}
        first.kill()
        first.wait()
        app.wait(lambda: not first.running, "its end")

        second = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "4")
        app.wait(lambda: ids <= {job.id for job in jobs.find(state="succeeded").jobs}, "the ends of these ten", 60)
        second.kill()
        second.wait()
