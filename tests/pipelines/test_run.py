"""The driver with real Ray workers: one result per row, and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.errors import ManifestError
from pipelines.errors import JobError, RecolorError
from pipelines.ledger import Ledger
from pipelines.recolor import Recolorer
from pipelines.run import JobRequest, run_job
from pipelines.store import Store
from pipelines.verify import verify
from tests.conftest import TINY, write_manifest, write_picture
from tests.pipelines.test_imagefile import BAD

ROOT = Path(__file__).parents[2]


def rows(count=3, **more):
    return [
        {"id": f"r{k}", "image": f"p{k}.png", "caption": "a photo of a barn", "target_prompts": ["a red barn"], **more}
        for k in range(count)
    ]


def request(manifest, spec, **more) -> JobRequest:
    return JobRequest(manifest=manifest, spec=spec, cpus_per_worker=1, **more)


def published(spec) -> list[dict]:
    return pq.read_table(Path(spec.output) / "results").to_pylist()


def trained(spec) -> dict[str, int]:
    return {row["id"]: row["trained_steps"] for row in published(spec)}


def artifacts(spec) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(spec.output).glob("artifacts/*/*")}


def test_a_manifest_becomes_the_promised_output(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", [{**row, "shelf": 7 + k} for k, row in enumerate(rows())])
    seen = []
    snapshot = run_job(request(manifest, spec), seen.append)
    assert (snapshot.ok, snapshot.failed, snapshot.rows) == (3, 0, 3)
    assert seen[-1].done == 3
    results = published(spec)
    assert [row["id"] for row in results] == ["r0", "r1", "r2"]
    assert [row["shelf"] for row in results] == [7, 8, 9]
    for row in results:
        assert row["status"] == "ok"
        assert row["luminance_mismatches"] == 0
        assert row["seconds"] > 0
        (output,) = row["outputs"]
        assert output["image"].startswith(f"images/{row['id']}/1-a-red-barn-{output['sha256'][:8]}")
        assert {one["eta"] for one in output["candidates"]} == set(TINY.etas)
    found = verify(spec.output)
    assert (found.pictures, found.against_input, found.luminance_mismatches, found.differences) == (6, 6, 0, [])
    status = Ledger(Store(spec.output)).status()
    assert (status["rows"], status["ok"], status["pending"], status["state"]) == (3, 3, 0, "finished")


def test_submitting_again_trains_nothing_and_a_new_prompt_samples_that_row_only(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows())
    run_job(request(manifest, spec))
    before, fits = {row["id"]: row for row in published(spec)}, artifacts(spec)
    run_job(request(manifest, spec))
    assert {row["id"]: row for row in published(spec)} == before
    changed = rows()
    changed[1]["target_prompts"] = ["a green barn"]
    run_job(request(write_manifest(pictures / "m.parquet", changed), spec))
    after = {row["id"]: row for row in published(spec)}
    assert artifacts(spec) == fits
    assert trained(spec)["r1"] == 0
    assert after["r1"]["outputs"][0]["prompt"] == "a green barn"
    assert {key: after[key] for key in ("r0", "r2")} == {key: before[key] for key in ("r0", "r2")}


def test_rows_added_later_are_the_only_ones_run(local_ray, pictures, spec):
    run_job(request(write_manifest(pictures / "m.parquet", rows(2)), spec))
    before = artifacts(spec)
    run_job(request(write_manifest(pictures / "m.parquet", rows(3)[::-1]), spec))
    assert [row["id"] for row in published(spec)] == ["r2", "r1", "r0"]
    assert {path: at for path, at in artifacts(spec).items() if path in before} == before


def test_bad_images_are_results_and_the_others_are_finished(local_ray, pictures, spec):
    for kind, content in BAD.items():
        (pictures / f"{kind}.png").write_bytes(content)
    bad = [{"id": kind, "image": f"{kind}.png", "caption": "a barn"} for kind in BAD]
    bad.append({"id": "not_found", "image": "nowhere.png", "caption": "a barn"})
    manifest = write_manifest(pictures / "m.parquet", [*rows(2), *bad])
    snapshot = run_job(request(manifest, spec))
    assert snapshot.ok == 2
    assert snapshot.ok + snapshot.failed + snapshot.skipped == snapshot.rows == 2 + len(bad)
    errors = {row["id"]: row["error_kind"] for row in published(spec) if row["status"] != "ok"}
    assert errors == {kind: kind for kind in errors}
    assert len(errors) == len(bad)


def test_failed_rows_run_again_only_when_asked(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), {**rows(1)[0], "id": "late", "image": "late.png"}])
    assert run_job(request(manifest, spec)).failed == 1
    write_picture(pictures / "late.png", 8)
    assert run_job(request(manifest, spec)).failed == 1
    assert run_job(request(manifest, spec, retry_failed=True)).ok == 2


def test_a_retry_that_is_killed_half_way_keeps_what_it_repaired(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", [{**rows(1)[0], "image": "late.png"}])
    run_job(request(manifest, spec))
    ledger = Ledger(Store(spec.output))
    (failed,) = ledger.published()
    ledger.commit(replace(failed, status="ok", error_kind=None, error_message=None))
    assert run_job(request(manifest, spec)).ok == 1
    assert published(spec)[0]["status"] == "ok"


def test_going_back_to_old_settings_finds_the_old_results(local_ray, pictures, spec):
    first, second = rows(1), [{**rows(1)[0], "seed": 5}]
    run_job(request(write_manifest(pictures / "m.parquet", first), spec))
    before = published(spec)
    run_job(request(write_manifest(pictures / "m.parquet", second), spec))
    assert published(spec) != before
    run_job(request(write_manifest(pictures / "m.parquet", first), spec))
    assert published(spec) == before


def test_a_lost_picture_is_made_again_without_training(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(2))
    run_job(request(manifest, spec))
    lost = published(spec)[0]["outputs"][0]
    (Path(spec.output) / lost["image"]).unlink()
    run_job(request(manifest, spec))
    again = published(spec)[0]["outputs"][0]
    assert (again["image"], again["sha256"]) == (lost["image"], lost["sha256"])
    assert trained(spec) == {"r0": 0, "r1": 9}
    assert not verify(spec.output).differences


def test_a_submit_that_cannot_run_leaves_the_output_as_it_was(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    run_job(request(manifest, spec))
    job = (Path(spec.output) / "job.json").read_text()
    with pytest.raises(JobError):
        run_job(request(manifest, replace(spec, base_model="/no-such-model")))
    with pytest.raises(JobError, match="no machine has"):
        run_job(JobRequest(manifest=manifest, spec=spec, cpus_per_worker=999))
    assert (Path(spec.output) / "job.json").read_text() == job


def test_more_workers_than_places_is_no_deadlock(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(2))
    assert run_job(request(manifest, spec, workers=4)).ok == 2


def test_no_secret_of_a_uri_is_stored(local_ray, pictures, spec):
    uri = f"file://{pictures}/p0.png"
    presigned = "https://user:hunter2@127.0.0.1:9/p.png?X-Amz-Signature=hunter2"
    table = [{**rows(1)[0], "image": uri}, {**rows(1)[0], "id": "signed", "image": presigned}]
    assert run_job(request(write_manifest(pictures / "m.parquet", table), spec)).failed == 1
    stored = [path.read_bytes() for path in Path(spec.output).rglob("*") if path.is_file()]
    assert stored
    assert not any(b"hunter2" in content for content in stored)


def test_nothing_starts_on_a_bad_manifest(pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), *rows(1)])
    with pytest.raises(ManifestError):
        run_job(request(manifest, spec))
    assert not Path(spec.output).exists()


def test_a_model_that_cannot_be_loaded_ends_the_job_with_its_name(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    with pytest.raises(JobError, match="no-such-model"):
        run_job(request(manifest, replace(spec, base_model="/no-such-model")))


def test_a_row_that_kills_its_worker_is_quarantined_and_the_others_are_finished(local_ray, pictures, spec, monkeypatch):
    """The poison is in the worker process itself: it dies, without an exception, whenever it reads r1."""
    from pipelines import run, worker

    class Mortal(worker.Worker):
        def _prepare(self, task):
            if task.row.id == "r1":
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._prepare(task)

    class MortalActor(Mortal):
        @local_ray.method(concurrency_group="control")
        def progress(self):
            return super().progress()

    monkeypatch.setattr(run, "WorkerActor", local_ray.remote(concurrency_groups={"control": 1})(MortalActor))
    snapshot = run_job(request(write_manifest(pictures / "m.parquet", rows()), spec))
    assert (snapshot.ok, snapshot.failed) == (2, 1)
    (dead,) = [row for row in published(spec) if row["status"] == "failed"]
    assert (dead["id"], dead["error_kind"]) == ("r1", "process_died")


def cli(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_a_killed_driver_loses_no_finished_row(pictures, spec):
    for number in range(6):
        write_picture(pictures / f"p{number}.png", number)
    manifest = write_manifest(pictures / "m.parquet", rows(6))
    arguments = ("submit", manifest, "--output", spec.output, "--preset", "draft", "-k", 1)
    models = ("--base-model", spec.base_model, "--judge", spec.judge)
    driver = cli(*arguments, *models)
    records = Path(spec.output) / "_engine" / "rows"
    deadline = time.monotonic() + 120
    while len(list(records.glob("*/*.json"))) < 2 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    finished = {path: json.loads(path.read_text()) for path in records.glob("*/*.json")}
    pictures_done = {row["id"]: row["outputs"][0] for row in finished.values()}
    fits = artifacts(spec)
    assert 2 <= len(finished) < 6
    assert Ledger(Store(spec.output)).status()["pending"] == 6 - len(finished)
    assert not verify(spec.output).differences
    again = cli(*arguments, *models)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    again_done = {row["id"]: row for row in published(spec)}
    for row in finished.values():
        assert again_done[row["id"]]["seconds"] == row["seconds"], "a finished row was done again"
        assert again_done[row["id"]]["outputs"][0]["sha256"] == pictures_done[row["id"]]["sha256"]
    assert {path: at for path, at in artifacts(spec).items() if path in fits} == fits
    assert [row["status"] for row in published(spec)] == ["ok"] * 6
    assert not verify(spec.output).differences


# Reading a finished store -------------------------------------------------------------------------------------------


@pytest.fixture
def finished(local_ray, pictures, spec):
    run_job(request(write_manifest(pictures / "m.parquet", rows()), spec))
    return spec


def test_verify_finds_each_kind_of_damage(finished, pictures):
    import io

    import numpy as np
    from PIL import Image

    store = Store(finished.output)
    by_id = {row["id"]: row for row in published(finished)}
    key = by_id["r0"]["outputs"][0]["image"]
    pixels = np.array(Image.open(io.BytesIO(store.read(key))))
    pixels[3, 4] ^= 8
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    store.write(key, buffer.getvalue())
    store.delete(by_id["r1"]["outputs"][0]["image"])
    store.write(by_id["r2"]["artifact"], b"x")
    found = verify(finished.output)
    assert found.luminance_mismatches == 1
    named = {(difference.id, difference.what.split()[0]) for difference in found.differences}
    assert named == {("r0", "sha256"), ("r0", "luminance"), ("r1", "cannot"), ("r2", "sha256")}
    assert any("x=4, y=3" in difference.what for difference in found.differences)


def test_verify_works_when_the_inputs_are_gone(finished, pictures):
    for path in pictures.glob("*.png"):
        path.unlink()
    found = verify(finished.output)
    assert (found.pictures, found.against_input, found.differences) == (6, 0, [])


def test_recolor_needs_no_input_and_no_training(finished, pictures):
    for path in pictures.glob("*.png"):
        path.unlink()
    fits = artifacts(finished)
    recolorer = Recolorer(finished.output, config=TINY)
    made = recolorer.recolor("r1", ["a blue barn", "a red barn"])
    assert [one.prompt for one in made] == ["a blue barn", "a red barn"]
    assert [one.source for one in made] == ["recolor", "manifest"]
    (row,) = [row for row in published(finished) if row["id"] == "r1"]
    assert [output["prompt"] for output in row["outputs"]] == ["a red barn", "a blue barn"]
    assert artifacts(finished) == fits
    assert not verify(finished.output).differences


def test_recolor_of_the_rows_own_prompt_gives_the_submitted_pixels(finished):
    """The artifact alone repeats what the fit sampled: the name of a picture is the hash of its content."""
    recolorer = Recolorer(finished.output, config=TINY)
    row = recolorer.rows["r0"]
    recolorer.rows["r0"] = replace(row, outputs=())
    (made,) = recolorer.recolor("r0", ["a red barn"])
    assert made.sha256 == row.outputs[0].sha256


def test_recolor_of_an_unknown_id_is_named(finished):
    with pytest.raises(RecolorError, match="no such id"):
        Recolorer(finished.output, config=TINY).recolor("nobody", ["x"])
