"""The driver with real Ray workers: one result per row, and nothing done twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcolor.config import Start, preset_for
from manifests.color_places import ColorPlace
from manifests.errors import ManifestError
from manifests.read import RecolorRequest
from pipelines.curation import recolor
from pipelines.curation.evaluate.figures import mean_ab
from pipelines.curation.recolor import Recolorer
from pipelines.curation.verify import verify
from pipelines.driver import cluster
from pipelines.driver.run import run_job
from pipelines.errors import JobError, RecolorError
from pipelines.job import JobRequest, JobSpec
from pipelines.operations.status import status
from pipelines.store.retry import Patience
from pipelines.store.store import Store
from tests.conftest import TINY, write_manifest, write_picture
from tests.pipelines.jobs import published, request, rows
from tests.processes import ROOT
from tests.scans import BAD


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
    found = status(Store(spec.output))
    assert (found.rows, found.ok, found.pending, found.state) == (3, 3, 0, "finished")


def test_a_finished_job_on_a_base_model_in_a_folder_has_nothing_to_do(local_ray, pictures, spec, monkeypatch):
    monkeypatch.setattr("pipelines.driver.idle.software", lambda: "diffcolor-batch 1.0")
    monkeypatch.setattr("pipelines.ledger.job_file.software", lambda: "diffcolor-batch 1.0")
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    run_job(request(manifest, spec))
    monkeypatch.setattr(cluster, "start_workers", None)
    assert run_job(request(manifest, spec)).ok == 1


def test_the_embedded_model_gives_the_flower_the_colour_that_is_asked_for(local_ray, tmp_path):
    """The default models on a demo picture, and months later another colour from the artifact."""
    flower = {"id": "flower", "image": str(ROOT / "manifests/demo/images/flower.png"), "caption": "a white flower"}
    manifest = write_manifest(tmp_path / "m.parquet", [{**flower, "target_prompts": ["a pink flower"]}])
    spec = JobSpec(output=str(tmp_path / "out"), base_model="mini", judge="mini", config=preset_for("draft"))
    run_job(request(manifest, spec))
    list(Recolorer(spec.output).recolor_all([RecolorRequest(id="flower", prompts=("a yellow flower",))]))
    (row,) = published(spec)
    colors = {}
    for output in row["outputs"]:
        picture = np.asarray(Image.open(tmp_path / "out" / output["image"]))
        height, width = picture.shape[:2]
        flower_box = picture[height // 3 : height * 2 // 3, width // 3 : width * 2 // 3]
        colors[output["prompt"]] = mean_ab(flower_box)
    (pink_a, pink_b), (yellow_a, yellow_b) = colors["a pink flower"], colors["a yellow flower"]
    assert pink_a > 10 > pink_b
    assert yellow_b > 10 > yellow_a
    assert not verify(spec.output).differences


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


def test_what_verify_finds_damaged_is_made_again_when_asked(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(3))
    run_job(request(manifest, spec))
    before = published(spec)
    lost, cut = before[0]["outputs"][0], before[1]["artifact"]
    (Path(spec.output) / lost["image"]).unlink()
    (Path(spec.output) / cut).write_bytes((Path(spec.output) / cut).read_bytes()[:-9])
    assert len(verify(spec.output).differences) == 2
    run_job(request(manifest, spec))
    assert published(spec) == before, "nothing was asked for"
    assert run_job(request(manifest, spec, retry_failed=True)).ok == 3
    again = published(spec)
    assert (again[0]["outputs"][0]["image"], again[0]["outputs"][0]["sha256"]) == (lost["image"], lost["sha256"])
    assert trained(spec) == {"r0": 0, "r1": 9, "r2": 9}
    assert again[2] == before[2]
    assert not verify(spec.output).differences
    run_job(request(manifest, spec, retry_failed=True))
    assert published(spec) == again


def test_a_submit_that_cannot_run_leaves_the_output_as_it_was(local_ray, pictures, spec):
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    run_job(request(manifest, spec))
    job = (Path(spec.output) / "job.json").read_text()
    with pytest.raises(JobError):
        run_job(request(manifest, replace(spec, base_model="/no-such-model")))
    more = write_manifest(pictures / "more.parquet", rows(2))  # else there is nothing to do
    with pytest.raises(JobError, match="no machine has"):
        run_job(JobRequest(manifest=more, spec=spec, cpus_per_worker=999))
    assert (Path(spec.output) / "job.json").read_text() == job


def test_no_secret_of_a_uri_is_stored(local_ray, pictures, spec):
    uri = f"file://{pictures}/p0.png"
    presigned = "https://127.0.0.1:9/p.png?X-Amz-Signature=hunter2"
    table = [{**rows(1)[0], "image": uri}, {**rows(1)[0], "id": "signed", "image": presigned}]
    hurried = replace(spec, patience=Patience(total=1.0))
    assert run_job(request(write_manifest(pictures / "m.parquet", table), hurried)).failed == 1
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


# Reading a finished store -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_once(local_ray, tmp_path_factory, base_folder, judge_folder):
    """Three rows, done."""
    folder = tmp_path_factory.mktemp("finished")
    for number in range(3):
        write_picture(folder / f"p{number}.png", number)
    models = {"base_model": str(base_folder), "judge": str(judge_folder)}
    spec = JobSpec(output=str(folder / "out"), config=TINY, images_per_step=2, **models)
    run_job(request(write_manifest(folder / "m.parquet", rows()), spec))
    return spec


@pytest.fixture
def finished(finished_once, tmp_path):
    """A copy of it, to be spoilt; the inputs stand where they stood."""
    spec = replace(finished_once, output=str(tmp_path / "out"))
    shutil.copytree(finished_once.output, spec.output)
    return spec


@pytest.fixture
def no_inputs(finished_once):
    """The inputs are gone for a while."""
    folder = Path(finished_once.output).parent
    pictures = list(folder.glob("*.png"))
    for path in pictures:
        path.rename(path.with_suffix(".gone"))
    yield
    for path in pictures:
        path.with_suffix(".gone").rename(path)


def test_verify_finds_each_kind_of_damage(finished):
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
    assert named == {("r0", "sha256"), ("r0", "luminance"), ("r0", "the"), ("r1", "cannot"), ("r2", "sha256")}
    assert any("x=4, y=3" in difference.what for difference in found.differences)


def test_verify_works_when_the_inputs_are_gone(finished, no_inputs):
    found = verify(finished.output)
    assert (found.pictures, found.against_input, found.differences) == (6, 0, [])


def test_recolor_needs_no_input_and_no_training(finished, no_inputs):
    fits = artifacts(finished)
    recolorer = Recolorer(finished.output)
    ((_, made),) = recolorer.recolor_all(
        [
            RecolorRequest(
                id="r1",
                prompts=("a blue barn", "a red barn"),
            )
        ]
    )
    assert [one.prompt for one in made] == ["a blue barn", "a red barn"]
    assert [one.source for one in made] == ["recolor", "manifest"]
    (row,) = [row for row in published(finished) if row["id"] == "r1"]
    assert [output["prompt"] for output in row["outputs"]] == ["a red barn", "a blue barn"]
    assert artifacts(finished) == fits
    assert not verify(finished.output).differences


def test_recolor_takes_known_colours(finished, no_inputs):
    navy, red = ColorPlace(x=10, y=10, color="navy"), ColorPlace(x=40, y=50, color="#a04020")
    ((_, (first,)),) = Recolorer(finished.output).recolor_all([RecolorRequest(id="r1", places=(navy,))])
    assert (first.prompt, first.hints) == ("a red barn", ("10,10,navy",))
    request = RecolorRequest(id="r1", prompts=("a blue barn",), places=(navy, red))
    ((_, (second,)),) = Recolorer(finished.output).recolor_all([request])
    (row,) = [row for row in published(finished) if row["id"] == "r1"]
    assert [(output["prompt"], tuple(output["hints"])) for output in row["outputs"]] == [
        ("a red barn", ()),
        ("a red barn", first.hints),
        ("a blue barn", second.hints),
    ]
    ((_, (again,)),) = Recolorer(finished.output).recolor_all([request])
    assert again.image == second.image, "it was there"
    outside = RecolorRequest(id="r1", places=(ColorPlace(x=4000, y=1, color="navy"),))
    ((_, problem),) = Recolorer(finished.output).recolor_all([outside])
    assert "4000,1,navy" in str(problem)
    assert not verify(finished.output).differences


def test_a_rows_own_prompt_and_colours_stay_its_own_when_it_is_sampled_again(tmp_path, finished):
    navy = ColorPlace(x=10, y=10, color="navy")
    ((_, (again,)),) = Recolorer(finished.output).recolor_all(
        [RecolorRequest(id="r0", prompts=("a red barn",))], again=True
    )
    assert again.source == "manifest"
    ((_, (pointed,)),) = Recolorer(finished.output).recolor_all([RecolorRequest(id="r0", places=(navy,))])
    assert (pointed.prompt, pointed.hints, pointed.source) == ("a red barn", ("10,10,navy",), "recolor")


def test_recolor_takes_the_jobs_configuration_unless_told_otherwise(finished):
    assert Recolorer(finished.output).config == TINY
    assert Recolorer(finished.output, etas=[1.5]).config == replace(TINY, etas=(1.5,))
    assert Recolorer(finished.output, start=Start.coarse).config.sample.start == "coarse"
    assert Recolorer(finished.output, preset="draft").config == preset_for("draft", finished.base_model)


def test_recolor_halves_its_prompts_until_they_fit_into_memory(finished, monkeypatch):
    sizes, real = [], recolor.sample_prompts

    def small_gpu(models, requests, config):
        sizes.append(len(requests))
        if len(requests) > fits[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(models, requests, config)

    monkeypatch.setattr(recolor, "sample_prompts", small_gpu)
    recolorer, prompts = Recolorer(finished.output), tuple(f"a barn of colour {number}" for number in range(5))
    fits = [2]
    ((_, made),) = recolorer.recolor_all([RecolorRequest(id="r2", prompts=prompts)])
    assert [output.prompt for output in made] == list(prompts)
    assert sizes == [5, 2, 2, 1]
    ((_, _),) = recolorer.recolor_all([RecolorRequest(id="r2", prompts=prompts[:3])], again=True)
    assert sizes[4:] == [2, 1], "it remembers"
    fits[0] = 0
    ((_, problem),) = recolorer.recolor_all([RecolorRequest(id="r2", prompts=prompts[:2])], again=True)
    assert "out of memory with one prompt alone" in str(problem)


def test_recolor_of_the_rows_own_prompt_gives_the_submitted_pixels(finished):
    """The artifact alone repeats what the fit sampled: the name of a picture is the hash of its content."""
    before = published(finished)[0]["outputs"][0]
    recolorer = Recolorer(finished.output)
    ((_, (made,)),) = recolorer.recolor_all([RecolorRequest(id="r0", prompts=("a red barn",))], again=True)
    assert made.source == "manifest", "its prompt still is"
    assert made.sha256 == before["sha256"]


def test_recolor_names_what_is_in_the_way_of_each_row(finished):
    made = dict(
        Recolorer(finished.output).recolor_all(
            [RecolorRequest(id="nobody", prompts=("x",)), RecolorRequest(id="r2", prompts=("a blue barn",))]
        )
    )
    assert isinstance(made["nobody"], RecolorError)
    assert "no such id" in str(made["nobody"])
    assert made["r2"][0].prompt == "a blue barn"
