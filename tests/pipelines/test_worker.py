"""The worker as a plain class: one result per row whatever happens."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from manifests.read import read_rows
from pipelines.jobspec import Place, Task
from pipelines.results import ResultRow
from pipelines.worker import Worker
from tests.conftest import write_manifest, write_picture
from tests.pipelines.test_imagefile import BAD, GRAY


@pytest.fixture
def worker(spec):
    return Worker(spec)


def tasks(path, rows):
    manifest = write_manifest(path / "m.parquet", rows)
    plan = hashlib.sha256(repr(rows).encode()).hexdigest()[:8]  # other rows, another plan
    return [
        Task(row=row, row_digest=row.id, place=Place(plan=plan, shard=0, generation=0, row=number))
        for number, row in enumerate(read_rows(manifest))
    ]


def row(row_id, **more):
    return {"id": row_id, "image": f"{row_id}.png", "caption": "a photo of a barn", **more}


def test_rows_of_several_sizes_and_prompts_are_finished_together(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    write_picture(tmp_path / "b.png", 2, height=70, width=140)
    write_picture(tmp_path / "c.png", 3)
    rows = [row("a", target_prompts=["a red barn", "a green barn"]), row("b"), row("c", seed=5)]
    results = {one.id: one for one in worker.process(tasks(tmp_path, rows))}
    assert {key: one.status for key, one in results.items()} == dict.fromkeys("abc", "ok")
    assert [output.prompt for output in results["a"].outputs] == ["a red barn", "a green barn"]
    assert (results["b"].width, results["b"].height) == (140, 70)
    for one in results.values():
        with Image.open(tmp_path / one.image.removeprefix(f"file://{tmp_path}/")) as scan:
            gray = np.asarray(scan)
        for key in (one.primary_image, *(output.image for output in one.outputs)):
            with Image.open(tmp_path / "out" / key) as image:
                assert np.array_equal(np.asarray(image.convert("L")), gray)
                assert np.asarray(image).std(axis=-1).max() > 0, "no colour at all"


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_its_own_result_and_its_neighbour_is_finished(worker, tmp_path, kind):
    (tmp_path / "bad.png").write_bytes(BAD[kind])
    write_picture(tmp_path / "good.png", 1)
    bad, good = sorted(worker.process(tasks(tmp_path, [row("bad"), row("good")])), key=lambda one: one.id)
    assert good.status == "ok"
    assert bad.status in ("failed", "skipped")
    assert bad.error_kind == kind
    assert not bad.outputs
    assert bad in worker.ledger.records(tasks(tmp_path, [row("bad"), row("good")])[0].place.plan, 0, 0).values()


def test_missing_and_changed_inputs_are_named(worker, tmp_path):
    write_picture(tmp_path / "b.png", 1)
    missing, changed = worker.process(tasks(tmp_path, [row("a"), row("b", image_sha256="0" * 64)]))
    assert (missing.error_kind, changed.error_kind) == ("not_found", "input_changed")
    assert "a.png" in missing.error_message


def test_bytes_in_the_manifest_need_no_file(worker, tmp_path):
    from tests.pipelines.test_imagefile import encoded

    content = encoded(GRAY)
    rows = [{"id": "a", "image_bytes": content, "caption": "a barn"}]
    (one,) = worker.process(tasks(tmp_path, rows))
    assert one.status == "ok"
    assert one.input_sha256 == hashlib.sha256(content).hexdigest()


def test_another_target_prompt_trains_nothing(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (first,) = worker.process(tasks(tmp_path, [row("a", target_prompts=["a red barn"])]))
    (second,) = worker.process(tasks(tmp_path, [row("a", target_prompts=["a red barn", "a blue barn"])]))
    assert first.trained_steps == 9
    assert second.trained_steps == 0
    assert second.artifact == first.artifact
    assert second.outputs[0].sha256 == first.outputs[0].sha256


def test_a_damaged_artifact_is_fitted_again_and_said(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (first,) = worker.process(tasks(tmp_path, [row("a")]))
    worker.store.write(first.artifact, b"broken")
    (second,) = worker.process(tasks(tmp_path, [row("a", group_id="another plan")]))
    assert second.status == "ok"
    assert second.trained_steps == 9
    assert "artifact_damaged" in second.warnings[0]


def test_a_breakdown_of_the_lockstep_gives_each_row_a_try_alone(worker, tmp_path, monkeypatch):
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", 1)
    real = worker._fit

    def poisoned(jobs):
        if any(job.task.row.id == "a" for job in jobs):
            raise RuntimeError("poison")
        return real(jobs)

    monkeypatch.setattr(worker, "_fit", poisoned)
    a, b = sorted(worker.process(tasks(tmp_path, [row("a"), row("b")])), key=lambda one: one.id)
    assert (a.status, a.error_kind, b.status) == ("failed", "internal", "ok")
    assert "poison" in a.error_message


def test_a_result_row_survives_its_record(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (one,) = worker.process(tasks(tmp_path, [row("a")]))
    assert ResultRow.from_record({**one.to_record(), "attempt": "x"}, carried=False) == one
