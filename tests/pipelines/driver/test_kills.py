"""kill -9 of workers, of the driver, of everything, at random moments; then again until it is done.

The schedules are seeded. `pytest -m slow` runs 200 kills more.
"""

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from diffcolor.checkpoint import from_bytes
from diffcolor.config import STAGES
from pipelines.curation.verify import verify
from pipelines.ledger.ledger import Ledger
from pipelines.operations.status import status
from pipelines.store.store import Store
from tests.check_store import check_store, check_visible, results
from tests.conftest import write_manifest, write_picture
from tests.pipelines.jobs import done, drive, ids, manifest, submitted
from tests.processes import Processes, descendants, ended, finish, kill, kill_everything, until

ROWS = 40


def kill_the_driver(driver: subprocess.Popen) -> None:
    driver.kill()
    driver.communicate()
    until(lambda: not descendants(driver.pid, "ray::WorkerActor"))


def kill_at_random(processes: Processes, tmp_path, place: str, seed: int, kills: int, way) -> Counter:
    """Drivers that are killed after random times, and one that is let be; how often each row was begun."""
    rng, table, log = random.Random(seed), manifest(tmp_path, {}, ROWS), tmp_path / "log"
    environment = {"QUICK_LOG": str(log), "QUICK_SECONDS": "0.15"}
    for _ in range(kills):
        before, driver = done(place) if Path(place).exists() else 0, drive(processes, table, place, environment)
        until(lambda before=before, driver=driver: driver.poll() is not None or done(place) > min(before, ROWS - 1))
        time.sleep(rng.uniform(0, 0.5))
        way(driver)
        check_visible(place)
        assert status(Store(place)).state in ("interrupted", "finished")
    finish(drive(processes, table, place, environment, retry_failed=True), 0)
    check_store(ids(ROWS), place)
    return Counter(log.read_text().split())


@pytest.mark.parametrize("way", [kill_the_driver, kill_everything])
def test_whatever_is_killed_the_next_submit_goes_on(processes, tmp_path, out, way):
    begun = kill_at_random(processes, tmp_path, out, 1, 3, way)
    assert sum(begun.values()) <= ROWS + 3 * 4, "a kill costs the two rows in hand of each of two workers"


def test_without_rays_control_service_the_run_ends_with_a_word(processes, tmp_path, out):
    """Ray by itself would end the process after a minute, with a page of its own."""
    table = manifest(tmp_path, {39: "is slow"}, ROWS)
    driver = drive(processes, table, out, {"QUICK_SECONDS": "0.3"})
    until(lambda: done(out) >= 2)
    kill(descendants(driver.pid, "gcs_server"))
    said = finish(driver, 5)
    assert "control service" in said
    assert "submit again" in said
    assert "Traceback" not in said
    finish(drive(processes, table, out, on_running="wait"), 0)
    check_store(ids(ROWS), out)


def kill_workers_at_random(processes: Processes, tmp_path, place: str, seed: int, kills: int) -> int:
    rng, table = random.Random(seed), manifest(tmp_path, {}, ROWS)
    driver, killed = drive(processes, table, place, {"QUICK_SECONDS": "1.0"}), 0
    while driver.poll() is None and killed < kills:
        time.sleep(rng.uniform(0.3, 1.2))
        workers = descendants(driver.pid, "ray::WorkerActor")
        if workers and Path(place, "job.json").exists() and done(place):
            kill([rng.choice(workers)])
            killed += 1
    code, said = ended(driver)
    assert code in (0, 3), said[-3000:]  # a row that was hit twice is quarantined
    assert [row["id"] for row in results(place)] == ids(ROWS)
    assert {row["error_kind"] for row in results(place)} <= {None, "process_died"}
    finish(drive(processes, table, place, retry_failed=True), 0)
    check_store(ids(ROWS), place)
    return killed


def test_killed_workers_come_back_and_no_row_is_lost(processes, tmp_path, out):
    assert kill_workers_at_random(processes, tmp_path, out, 2, 15) >= 14


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_two_hundred_kills_more(processes, tmp_path, seed):
    for number, way in enumerate((kill_the_driver, kill_everything)):
        (tmp_path / str(number)).mkdir()
        kill_at_random(processes, tmp_path / str(number), str(tmp_path / f"out{number}"), seed, 6, way)
    (tmp_path / "w").mkdir()
    kill_workers_at_random(processes, tmp_path / "w", str(tmp_path / "outw"), seed, 8)


# The real worker ----------------------------------------------------------------------------------------------------


def checkpoint_of(place) -> str | None:
    """The furthest stage of a saved training state."""
    paths = Path(place).glob("_engine/checkpoints/*/*/*.checkpoint")
    stages = [from_bytes(path.read_bytes(), path.parent.name).stage for path in paths]
    return max(stages, key=STAGES.index, default=None)


def killed_in(driver: subprocess.Popen, place, stage: str) -> bool:
    """Kills everything once the image is in a stage; False where it passed the stage unseen, as on a busy machine."""
    until(lambda: driver.poll() is not None or checkpoint_of(place) == stage, 240)
    seen = driver.poll() is None
    kill_everything(driver)
    return seen


def test_an_image_that_was_interrupted_goes_on_and_ends_with_the_same_pixels(processes, tmp_path, spec):
    write_picture(tmp_path / "p.png", 1)
    row = {"id": "a", "image": "p.png", "caption": "a photo of a barn", "target_prompts": ["a red barn"]}
    table = write_manifest(tmp_path / "m.parquet", [row])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(submitted(processes, table, whole, spec), 0, 240)
    stages = ("color_prior", "in_context")  # the second interruption is of what was resumed
    for _ in range(5):
        if all(killed_in(submitted(processes, table, broken, spec), broken, stage) for stage in stages):
            break
        shutil.rmtree(broken)
    assert check_visible(str(broken)) == []
    finish(submitted(processes, table, broken, spec), 0, 240)
    (undisturbed,), (resumed,) = check_store(["a"], str(whole)), check_store(["a"], str(broken))
    assert undisturbed["resumed_at"] is None
    assert resumed["resumed_at"].startswith("in_context")
    assert resumed["trained_steps"] < undisturbed["trained_steps"]
    for name in ("primary_sha256", "artifact_sha256"):
        assert resumed[name] == undisturbed[name]
    assert resumed["outputs"][0]["sha256"] == undisturbed["outputs"][0]["sha256"]


def test_sigterm_checkpoints_the_image_and_the_next_submit_goes_on(processes, tmp_path, spec):
    rows = []
    for number in range(4):
        write_picture(tmp_path / f"p{number}.png", number)
        rows.append({"id": f"r{number}", "image": f"p{number}.png", "caption": "a photo of a barn"})
    table, place = write_manifest(tmp_path / "m.parquet", rows), tmp_path / "out"
    driver = submitted(processes, table, place, spec, "--grace", "2")
    until(lambda: checkpoint_of(place) and len(list(Ledger(Store(str(place))).current())) >= 1, 120)
    driver.send_signal(signal.SIGTERM)
    said = finish(driver, 4, 60)
    assert "submit again to resume" in said
    pending = status(Store(str(place))).pending
    assert 1 <= pending <= 3
    finish(submitted(processes, table, place, spec), 0, 240)
    rows = check_store([f"r{number}" for number in range(4)], str(place))
    assert not verify(str(place)).differences
    assert sum(row["resumed_at"] is not None for row in rows) <= 1
