"""The worker as a plain class: one result per row whatever happens."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffcolor.artifact import to_bytes
from diffcolor.config import NO_BASE, preset_for
from diffcolor.lab import ab_of
from manifests.read import read_rows
from pipelines.errors import StoreError
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Place, Task
from pipelines.store.store import Store
from pipelines.worker import fits, fitting
from pipelines.worker import worker as worker_module
from pipelines.worker.worker import Worker
from tests.conftest import gray_picture, write_manifest, write_picture
from tests.scans import BAD, GRAY, SKIPPED, encoded


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


def test_bad_images_are_their_own_results_and_their_neighbour_is_finished(worker, tmp_path):
    for kind, content in BAD.items():
        (tmp_path / f"{kind}.png").write_bytes(content)
    write_picture(tmp_path / "good.png", 1)
    given = tasks(tmp_path, [*(row(kind) for kind in BAD), row("good")])
    results = {result.id: result for result in worker.process(given)}
    assert results["good"].status == "ok"
    records = worker.outcomes.ledger.records(given[0].place.plan, 0, 0).values()
    for kind in BAD:
        bad = results[kind]
        assert (bad.error_kind, bad.status) == (kind, "skipped" if kind in SKIPPED else "failed")
        assert not bad.outputs
        assert bad in records


def test_missing_and_changed_inputs_are_named(worker, tmp_path):
    write_picture(tmp_path / "b.png", 1)
    missing, changed = worker.process(tasks(tmp_path, [row("a"), row("b", image_sha256="0" * 64)]))
    assert (missing.error_kind, changed.error_kind) == ("not_found", "input_changed")
    assert "a.png" in missing.error_message


def test_bytes_in_the_manifest_need_no_file(worker, tmp_path):
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


def test_a_known_colour_is_had_where_it_was_given_and_trains_nothing(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1, height=140, width=180)
    (plain,) = worker.process(tasks(tmp_path, [row("a")]))
    places = {
        "color_points": [{"x": 30, "y": 30, "color": "#506890"}],
        "color_boxes": [{"x": 20, "y": 100, "width": 40, "height": 20, "color": "#906048"}],
    }
    (hinted,) = worker.process(tasks(tmp_path, [row("a", **places)]))
    assert hinted.trained_steps == 0
    assert hinted.primary_sha256 == plain.primary_sha256, "stage 1's own colours know of no hint"
    (output,) = hinted.outputs
    assert output.hints == ("30,30,#506890", "20,100,40,20,#906048")
    assert len(output.hints_kept) == 2
    assert min(output.hints_kept) > 0.9
    with Image.open(tmp_path / "out" / output.image) as image:
        pixels = np.asarray(image).astype(np.float32) / 255
    ab = ab_of(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    for (y, x), code in {(30, 30): (0x50, 0x68, 0x90), (110, 40): (0x90, 0x60, 0x48)}.items():
        wanted = ab_of(torch.tensor(code).view(1, 3, 1, 1) / 255).flatten().numpy()
        apart = np.degrees(np.arctan2(*ab[y, x][::-1]) - np.arctan2(*wanted[::-1]))
        assert abs((apart + 180) % 360 - 180) < 5
        assert np.hypot(*ab[y, x]) == pytest.approx(np.hypot(*wanted), rel=0.1)
    record = json.loads((tmp_path / "out" / provenance_key(output.image)).read_text())
    assert record["outcome"]["hints"] == list(output.hints)


def test_a_reference_lends_its_colours_and_trains_nothing(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1, height=140, width=180)
    gray = gray_picture(1, 140, 180)
    green = np.stack([gray * 0.7, gray * 1.1, gray * 0.5], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(green).save(tmp_path / "green.png")
    (plain,) = worker.process(tasks(tmp_path, [row("a")]))
    (done,) = worker.process(tasks(tmp_path, [row("a", reference="green.png")]))
    assert (done.status, done.trained_steps) == ("ok", 0)
    (output,) = done.outputs
    assert output.reference.endswith("green.png")
    assert output.reference_sha256 == hashlib.sha256((tmp_path / "green.png").read_bytes()).hexdigest()
    assert output.reference_likeness == 1
    assert output.key != plain.outputs[0].key

    def mean_ab(result):
        with Image.open(tmp_path / "out" / result.outputs[0].image) as image:
            pixels = np.asarray(image).astype(np.float32) / 255
        return ab_of(torch.from_numpy(pixels).permute(2, 0, 1)[None]).mean((0, 2, 3)).numpy()

    wanted = ab_of(torch.from_numpy(green / np.float32(255)).permute(2, 0, 1)[None]).mean((0, 2, 3)).numpy()
    assert np.linalg.norm(mean_ab(done) - wanted) < 0.6 * np.linalg.norm(mean_ab(plain) - wanted)
    record = json.loads((tmp_path / "out" / provenance_key(output.image)).read_text())
    assert record["outcome"]["reference"] == output.reference


def test_a_reference_that_is_unlike_or_cannot_be_read_is_said_to_be_so(worker, tmp_path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.png", 1, height=140, width=180)
    noise = np.random.default_rng(0).integers(0, 255, (140, 180, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (tmp_path / "text.png").write_text("no picture")
    rows = [row("a", reference="noise.png"), row("b", reference="gone.png"), row("c", reference="text.png")]
    a, b, c = sorted(worker.process(tasks(tmp_path, rows)), key=lambda result: result.id)
    assert a.status == "ok"
    assert a.outputs[0].reference_likeness == 0
    assert any(warning.startswith("reference_unlike") for warning in a.warnings)
    for failed, name in ((b, "gone.png"), (c, "text.png")):
        assert (failed.status, failed.error_kind) == ("failed", "bad_reference")
        assert name in failed.error_message


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_places_are_in_the_files_pixels_however_it_is_turned(worker, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gray_picture(1, 140, 180)).save(tmp_path / "a.png", exif=exif)
    (done,) = worker.process(tasks(tmp_path, [row("a", color_points=[{"x": 20, "y": 120, "color": "#3060a0"}])]))
    with Image.open(tmp_path / "out" / done.outputs[0].image) as image:
        r, _, b = np.asarray(image).astype(int)[120, 20]
    assert b - r > 60


def test_a_place_outside_the_picture_is_the_rows_failure(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (done,) = worker.process(tasks(tmp_path, [row("a", color_points=[{"x": 80, "y": 2, "color": "navy"}])]))
    assert done.error_kind == "place_outside"
    assert "80,2,navy" in done.error_message
    assert "80 x 72" in done.error_message
    write_picture(tmp_path / "b.png", 1, height=200, width=200)
    between = row("b", regions=[[0, 0, 80, 80], [110, 110, 80, 80]], color_points=[{"x": 95, "y": 95, "color": "navy"}])
    (done,) = worker.process(tasks(tmp_path, [between]))
    assert done.error_kind == "place_outside"


def test_a_damaged_artifact_is_fitted_again_and_said(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (first,) = worker.process(tasks(tmp_path, [row("a")]))
    worker.store.write(first.artifact, b"broken")
    (second,) = worker.process(tasks(tmp_path, [row("a", shelf="another plan")]))
    assert second.status == "ok"
    assert second.trained_steps == 9
    assert "artifact_damaged" in second.warnings[0]


def test_a_breakdown_of_the_lockstep_gives_each_row_a_try_alone(worker, tmp_path, monkeypatch):
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", 1)
    real = fitting.fit

    def poisoned(models, scans, *given):
        if any(scan.context_prompt == "poison" for scan in scans):
            raise RuntimeError("poison")
        return real(models, scans, *given)

    monkeypatch.setattr(fitting, "fit", poisoned)
    rows = [row("a", caption="poison"), row("b")]
    a, b = sorted(worker.process(tasks(tmp_path, rows)), key=lambda result: result.id)
    assert (a.status, a.error_kind, b.status) == ("failed", "internal", "ok")
    assert "poison" in a.error_message


def test_a_result_row_survives_its_record(worker, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (one,) = worker.process(tasks(tmp_path, [row("a")]))
    assert ResultRow.from_record({**one.to_record(), "attempt": "x"}, carried=False) == one


# Failures, stops, resumption -----------------------------------------------------------------------------------------


def four(tmp_path) -> list:
    for name in "abcd":
        write_picture(tmp_path / f"{name}.png", ord(name))
    return tasks(tmp_path, [row(name) for name in "abcd"])


def test_out_of_memory_halves_the_lockstep_and_the_worker_remembers(spec, tmp_path, monkeypatch):
    sizes, real = [], fitting.fit

    def small_gpu(models, scans, config, checkpoints=None):
        sizes.append(len(scans))
        if len(scans) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(models, scans, config, checkpoints)

    monkeypatch.setattr(fitting, "fit", small_gpu)
    worker = Worker(replace(spec, images_per_step=4))
    assert {one.status for one in worker.process(four(tmp_path))} == {"ok"}
    assert sizes == [4, 2, 2]
    again = tasks(tmp_path, [row(name, seed=9) for name in "abcd"])
    assert {one.status for one in worker.process(again)} == {"ok"}
    assert sizes == [4, 2, 2, 2, 2]


def test_out_of_memory_while_sampling_trains_nothing_again(spec, tmp_path, monkeypatch):
    sizes, real = [], worker_module.recolor

    def small_gpu(models, requests, config):
        sizes.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(models, requests, config)

    monkeypatch.setattr(worker_module, "recolor", small_gpu)
    worker = Worker(replace(spec, images_per_step=4))
    results = worker.process(four(tmp_path))
    assert {(result.status, result.trained_steps) for result in results} == {("ok", 9)}
    assert sizes == [4, 2, 2]


def test_out_of_memory_alone_is_the_rows_result(worker, tmp_path, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fitting, "fit", no_memory)
    assert {one.error_kind for one in worker.process(four(tmp_path))} == {"oom"}


def test_a_lost_gpu_ends_the_process(worker, tmp_path, monkeypatch):
    class Left(BaseException):
        pass

    def leave(code):
        raise Left(code)

    def broken(*_):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(fitting, "fit", broken)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left):
        worker.process(four(tmp_path))


def test_an_image_that_takes_too_long_fails_and_goes_on_when_given_more_time(spec, tmp_path):
    slow = Worker(replace(spec, timeout_seconds=0.0, checkpoint_seconds=0.0, images_per_step=1))
    (one,) = slow.process(four(tmp_path)[:1])
    assert (one.status, one.error_kind) == ("failed", "timeout")
    assert "color_prior at step 1" in one.error_message
    again = tasks(tmp_path, [row("a", shelf="another plan")])
    slow.checkpoints.wait()
    (two,) = Worker(spec).process(again)
    assert (two.status, two.resumed_at) == ("ok", "color_prior/1")


def test_a_stop_checkpoints_what_cannot_end_and_the_next_worker_goes_on(spec, tmp_path):
    whole = {one.id: one for one in Worker(replace(spec, output=spec.output + "2")).process(four(tmp_path))}
    worker = Worker(spec)
    worker.request_stop(0.0)
    assert worker.process(four(tmp_path)) == []
    assert len(worker.store.list("_engine/checkpoints")) == 2, "one lockstep of two was begun"
    done = {one.id: one for one in Worker(spec).process(four(tmp_path))}
    assert sorted(one.resumed_at or "" for one in done.values()) == ["", "", "color_prior/1", "color_prior/1"]
    assert {one.status for one in done.values()} == {"ok"}
    assert worker.store.list("_engine/checkpoints") == []
    assert done.keys() == whole.keys()


def test_a_stop_lets_end_what_can(spec, tmp_path):
    worker = Worker(spec)
    worker.request_stop(600.0)
    assert len(worker.process(four(tmp_path)[:2])) == 2


def test_a_stop_is_seen_where_nothing_is_trained(spec, tmp_path):
    alone = Worker(replace(spec, base_model=NO_BASE, judge="mini", config=preset_for("balanced", NO_BASE)))
    alone.request_stop(0.0)
    assert alone.process(four(tmp_path)) == []
    alone.request_stop(600.0)
    assert len(alone.process(four(tmp_path))) == 4


def test_k_is_found_out_once_for_each_size_and_only_where_the_job_leaves_it_open(spec, tmp_path, monkeypatch):
    asked = []
    worker = Worker(replace(spec, images_per_step=None))
    monkeypatch.setattr(worker.sizes, "_find", lambda size: asked.append(size) or 1)
    write_picture(tmp_path / "e.png", 5, height=70, width=140)
    sizes, real = [], fitting.fit
    monkeypatch.setattr(
        fitting, "fit", lambda models, scans, *given: sizes.append(len(scans)) or real(models, scans, *given)
    )
    for name in "abcd":
        write_picture(tmp_path / f"{name}.png", ord(name))
    assert {one.status for one in worker.process(tasks(tmp_path, [row(name) for name in "abcde"]))} == {"ok"}
    assert len(asked) == len(set(asked)) == 2
    assert sizes == [1] * 5
    given = Worker(replace(spec, images_per_step=2, output=spec.output + "2"))
    monkeypatch.setattr(given.sizes, "_find", None)
    assert len(given.process(tasks(tmp_path, [row("a")]))) == 1


def test_an_output_store_that_is_gone_is_nobodys_row(worker, tmp_path, monkeypatch):
    def refuse(*_):
        raise StoreError("the store is away")

    monkeypatch.setattr(worker.store, "write", refuse)
    with pytest.raises(StoreError):
        worker.process(four(tmp_path))
    assert worker.store.list("_engine/plans") == []


def test_a_loser_uses_the_winners_artifact(spec, tmp_path, monkeypatch):
    """Two runs that fit one row at once: the second meets the first's artifact when it wants to store its own."""
    (won,) = Worker(spec).process(four(tmp_path)[:1])
    late = Worker(spec)
    find, looks = late.fits.find, []

    def blind_at_first(row):
        looks.append(row)
        return find(row) if len(looks) > 1 else None

    monkeypatch.setattr(late.fits, "find", blind_at_first)
    monkeypatch.setattr(fits, "to_bytes", lambda *given: to_bytes(*given) + b" ")  # as another GPU's would
    (lost,) = late.process(tasks(tmp_path, [row("a", shelf="another plan")]))
    assert len(looks) == 2
    assert (lost.status, lost.artifact_sha256) == ("ok", won.artifact_sha256)
    assert late.store.read(lost.artifact) == Store(spec.output).read(won.artifact)


def test_without_a_base_model_every_row_has_its_picture_and_its_artifact(spec, tmp_path):
    """`--base-model none`: nothing is trained; the rest is as with any model: luma, artifact, record, recolouring."""
    alone = replace(spec, base_model=NO_BASE, judge="mini", config=preset_for("balanced", NO_BASE))
    worker = Worker(alone)
    write_picture(tmp_path / "a.png", 1)
    write_picture(tmp_path / "b.png", 2, height=70, width=140)
    given = tasks(tmp_path, [row("a", target_prompts=["a red barn", "a green barn"]), row("b")])
    results = {one.id: one for one in worker.process(given)}
    assert {key: one.status for key, one in results.items()} == dict.fromkeys("ab", "ok")
    first = results["a"]
    assert (first.base_model, first.trained_steps) == (NO_BASE, 0)
    pictures = [first.primary_image, *(output.image for output in first.outputs)]
    seen = []
    for key in pictures:
        with Image.open(tmp_path / "out" / key) as image, Image.open(tmp_path / "a.png") as scan:
            assert np.array_equal(np.asarray(image.convert("L")), np.asarray(scan))
            seen.append(np.asarray(image))
    assert (seen[1] != seen[2]).any(), "the words decide"
    again = Worker(alone).process(given[:1])
    assert again[0].artifact_sha256 == first.artifact_sha256
    record = json.loads((tmp_path / "out" / provenance_key(first.outputs[0].image)).read_text())
    assert record["method"]["base_model"] == NO_BASE
    assert record["method"]["scheduler"] is None
    assert len(record["method"]["coarse_digest"]) == 64


def test_a_likely_negative_is_warned_of_unless_it_is_declared(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.worker.reading.negative_odds", lambda _coarse, _gray: 9.0)
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", 1)
    results = {one.id: one for one in worker.process(tasks(tmp_path, [row("a"), row("b", negative=True)]))}
    assert [warning.partition(":")[0] for warning in results["a"].warnings].count("likely_negative") == 1
    assert not any("likely_negative" in warning for warning in results["b"].warnings)
