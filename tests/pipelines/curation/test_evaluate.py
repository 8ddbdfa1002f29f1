"""Figures against the truth, held against hand-made pictures whose figures are known."""

import io
import json
import struct
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from typer.testing import CliRunner

from cli import app
from diffcolor.luminance import luma
from manifests.errors import ManifestError
from manifests.read import read_rows
from pipelines.curation.evaluate.evaluate import evaluate
from pipelines.curation.evaluate.figures import against_truth, hint_agreement, hue_of, interval
from pipelines.curation.evaluate.floors import FILE, LEVELS, painted
from pipelines.curation.evaluate.perceptual import KID_SUBSET, Metric, MetricUnavailableError, Perceptual
from pipelines.curation.evaluate.points import true_points, with_hints
from pipelines.curation.evaluate.truths import Truth, truths
from pipelines.curation.evaluate.verdict import verdict
from pipelines.images.icc import rgb_profile
from pipelines.images.rgb import at_most, read_rgb
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.layout import PlanFacts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.task import Place, Task
from pipelines.store.store import Store
from pipelines.worker.worker import Worker
from tests.conftest import write_manifest
from tests.scans import encoded, gamma_profile, srgb_profile


def coloured(a: float, b: float, lightness=60.0, size=(64, 80)) -> np.ndarray:
    lab = np.broadcast_to(np.array([lightness, a, b]), (*size, 3))
    return (lab2rgb(lab) * 255).round().astype(np.uint8)


def test_the_truth_itself_is_without_error_and_gray_is_one():
    truth = coloured(20, -30)
    found = against_truth(truth, truth)
    assert found["ab_error"] == found["ciede2000"] == 0
    assert found["ab_ratio"] == 0
    assert found["ssim"] == pytest.approx(1)
    gray = np.repeat(luma(truth)[..., None], 3, -1)
    assert against_truth(gray, truth)["ab_ratio"] == pytest.approx(1, abs=1e-3)
    assert against_truth(gray, truth)["ab_error"] == pytest.approx(np.hypot(20, 30), abs=0.7)


def test_the_opposite_colour_is_worse_than_gray():
    assert against_truth(coloured(-20, 30), coloured(20, -30))["ab_ratio"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("color", "hue"), [("red", 40), ("yellow", 103), ("green", 136), ("blue", 306)])
def test_hues_of_names(color, hue):
    assert hue_of(color) == pytest.approx(hue, abs=1.5)


def test_a_gray_has_no_hue():
    with pytest.raises(ValueError, match="no hue"):
        hue_of("gray")


def test_hints_are_taken_within_30_degrees_and_bleed_is_what_the_rest_takes():
    inside = np.zeros((64, 80), bool)
    inside[:, :40] = True
    angle = np.radians(hue_of("red") + 20)
    picture = np.where(inside[..., None], coloured(40 * np.cos(angle), 40 * np.sin(angle)), coloured(0, 0))
    found = hint_agreement(picture, inside, "red")
    assert found["hint_taken"] == 1
    assert found["hint_hue_error"] == pytest.approx(20, abs=1)
    assert found["bleed"] < 0.5
    assert hint_agreement(picture, inside, "blue")["hint_taken"] == 0
    red = coloured(40 * np.cos(np.radians(hue_of("red"))), 40 * np.sin(np.radians(hue_of("red"))))
    assert hint_agreement(red, inside, "red")["bleed"] == pytest.approx(40, abs=1)
    assert hint_agreement(coloured(0, 0), inside, "red")["hint_hue_error"] == 180


def test_an_interval_holds_the_mean_and_narrows_with_more_pictures():
    rng = np.random.default_rng(1)
    few, many = rng.normal(5, 1, 10), rng.normal(5, 1, 1000)
    for values in (few, many):
        mean, low, high = interval(values)
        assert low < mean < high
    assert interval(many)[2] - interval(many)[1] < 0.3 * (interval(few)[2] - interval(few)[1])
    assert interval(few) == interval(few)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_folder, judge_folder):
    """Two colour pictures, their gray scans colorized, and a row that failed."""
    from pipelines.job import JobRequest, JobSpec
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "truth").mkdir()
    for name, (a, b) in {"p": (30, 10), "q": (-20, 40)}.items():
        truth = coloured(a, b)
        truth[::7] //= 2
        (folder / "truth" / f"{name}.png").write_bytes(encoded(truth))
        (folder / f"{name}.png").write_bytes(encoded(luma(truth)))
    table = [{"id": one, "image": f"{one}.png", "caption": "a thing", "group_id": "s"} for one in ("p", "q", "gone")]
    rows = list(read_rows(write_manifest(folder / "m.parquet", table)))
    spec = JobSpec(output=str(folder / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY)
    worker = Worker(spec)
    worker.process(
        [
            Task(row=row, row_digest=row.id, place=Place(plan="x", shard=0, generation=0, row=number))
            for number, row in enumerate(rows)
        ]
    )
    ledger = Ledger(Store(spec.output))
    ledger.write_plan("x", PlanFacts(rows=3, shard_rows=1000, settings="s"))
    ledger.write_job(JobFile.of(JobRequest(manifest="m.parquet", spec=spec), 3, worker.identity, "x"))
    # As the driver closes a shard: carried columns come from the manifest.
    ledger.close("x", 0, 0, [replace(row, group_id="s") for row in ledger.current()], pa.schema([]))
    return folder


def test_a_job_is_compared_picture_by_picture(finished):
    found = evaluate(str(finished / "out"), truths(str(finished / "truth")))
    assert [row["id"] for row in found.rows] == ["p", "q"]
    assert all(row["luminance_mismatches"] == 0 for row in found.rows)
    assert found.missing == {"gone": "its status is failed"}
    summary = found.summary()
    assert summary["ab_ratio"][3] == 2
    assert summary["ab_ratio"][1] <= summary["ab_ratio"][0] <= summary["ab_ratio"][2]
    # The truths' mean a*b* are some 58 apart (the darkened rows take off a little), each half of that from the middle.
    assert found.dataset_metrics["series_spread_truth"] == pytest.approx(np.hypot(50, 30) / 2, rel=0.1)
    assert 0 < found.dataset_metrics["series_spread"] < 60
    primary = evaluate(str(finished / "out"), truths(str(finished / "truth")), variant=0)
    assert primary.rows[0]["ab_error"] != found.rows[0]["ab_error"]


def test_what_cannot_be_compared_is_said(finished, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    (tmp_path / "q.png").write_bytes(b"nothing")
    found = evaluate(str(finished / "out"), truths(str(tmp_path)))
    assert "9 x 9" in found.missing["p"]
    assert "no image type" in found.missing["q"] or "text" in found.missing["q"]
    with pytest.raises(ManifestError):
        truths(str(finished / "nothing"))


def test_hints_by_mask_and_box(finished, tmp_path):
    mask = np.zeros((64, 80), np.uint8)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    table = [
        {"id": "p", "hint_color": "red", "hint_mask": "mask.png", "hint_box": None},
        {"id": "q", "hint_color": "blue", "hint_mask": None, "hint_box": [-5.0, 0.0, 35.0, 64.0]},
    ]
    table = [{**row, "image": str(finished / "truth" / f"{row['id']}.png")} for row in table]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "truth.parquet")
    found = evaluate(str(finished / "out"), truths(str(tmp_path / "truth.parquet")))
    store, inside = Store(str(finished / "out")), mask > 0
    for row, one, color in zip(found.rows, Ledger(store).current(), ("red", "blue"), strict=False):
        expected = hint_agreement(np.asarray(Image.open(io.BytesIO(store.read(one.outputs[0].image)))), inside, color)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    nowhere = evaluate(str(finished / "out"), {"p": Truth(table[0]["image"], "red")})
    assert nowhere.missing["p"].startswith("a hint needs")


def test_pictures_are_compared_as_they_look_whatever_their_profile():
    rng = np.random.default_rng(5)
    srgb = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    light = np.where(srgb / 255 <= 0.04045, srgb / 255 / 12.92, ((srgb / 255 + 0.055) / 1.055) ** 2.4)
    codes = np.round(255 * light ** (1 / 1.8)).astype(np.uint8)
    profile = rgb_profile(b"curv" + struct.pack(">IIH", 0, 1, round(1.8 * 256)) + b"\0\0", "gamma 1.8")
    seen = read_rgb(io.BytesIO(encoded(codes, icc_profile=profile)))
    assert np.abs(seen.astype(int) - codes).max() > 15
    assert np.abs(seen.astype(int) - srgb)[srgb > 30].max() <= 3  # dark codes are coarser under the profile
    same = read_rgb(io.BytesIO(encoded(srgb, icc_profile=srgb_profile())))
    assert np.abs(same.astype(int) - srgb).max() <= 1
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = read_rgb(io.BytesIO(encoded(gray, icc_profile=gamma_profile(1.8))))
    assert np.abs(shown[..., 0].astype(int) - gray).max() > 15
    assert np.abs(np.ptp(shown.astype(int), axis=-1)).max() <= 1
    foreign = read_rgb(io.BytesIO(encoded(gray, icc_profile=srgb_profile())))
    assert np.abs(foreign.astype(int) - gray[..., None]).max() <= 1
    with pytest.raises(ValueError, match="profile"):
        read_rgb(io.BytesIO(encoded(srgb, icc_profile=gamma_profile())))


def test_large_pictures_are_compared_smaller():
    large = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    small = at_most(large, 30_000)
    assert small.shape == (150, 200, 3)
    assert np.abs(small - large.reshape(150, 2, 200, 2, 3).mean((1, 3))).max() <= 1
    half = np.zeros((300, 400), bool)
    half[:, :200] = True
    assert at_most(half, 30_000).mean() == 0.5
    assert at_most(large, 120_000) is large


def test_two_judges_of_one_name_are_refused(finished, tmp_path):
    arguments = ["--truth", str(finished / "truth"), "--judge", str(tmp_path / "a/judge"), "--judge", "b/judge/"]
    result = CliRunner().invoke(app, ["evaluate", str(finished / "out"), *arguments])
    assert result.exit_code == 2
    assert "clip_judge" in result.output


def test_the_command_writes_tables(finished):
    given = ["--truth", str(finished / "truth"), "--judge", "mini", "--name", "first"]
    result = CliRunner().invoke(app, ["evaluate", str(finished / "out"), *given])
    assert result.exit_code == 0, result.output
    assert "| ab_ratio (lower is better) |" in result.stdout
    store = Store(str(finished / "out"))
    table = pq.read_table(io.BytesIO(store.read("evaluation/first.parquet")))
    assert table.num_rows == 2
    assert {"ciede2000", "clip_mini_score", "clip_mini_margin"} <= set(table.column_names)
    document = json.loads(store.read("evaluation/first.json"))
    assert document["missing"] == {"gone": "its status is failed"}
    assert document["summary"]["ab_ratio"]["pictures"] == 2
    assert "series_spread" in document["crowd"]
    assert sorted(store.list("evaluation")) == [f"evaluation/first.{ending}" for ending in ("json", "md", "parquet")]


def pairs(count: int, shift: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truths of several colours, and pictures whose colours are off by `shift`."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-30, 30, (count, 2))
    return [(coloured(a + shift, b), coloured(a, b)) for a, b in points]


def test_distances_of_data_sets_are_those_of_their_features(judge_folder):
    from scipy.linalg import sqrtm

    from diffcolor.judge import load_judge

    judge, few = load_judge(str(judge_folder)), pairs(12, 25)
    perceptual = Perceptual([], {"tiny": judge})
    for picture, truth in few:
        perceptual.pair(picture, truth)
    found = perceptual.dataset_metrics()

    def features(pictures) -> np.ndarray:
        stack = torch.stack([torch.from_numpy(one).permute(2, 0, 1) for one in pictures]).float()
        square = (
            torch.nn.functional.interpolate(stack, (299, 299), mode="bicubic", antialias=True).round().clamp(0, 255)
        )
        with torch.no_grad():
            return judge.image_features(square / 255).double().numpy()

    fake, real = features([picture for picture, _ in few]), features([truth for _, truth in few])
    spread = np.cov(fake.T) + np.cov(real.T) - 2 * sqrtm(np.cov(fake.T) @ np.cov(real.T)).real
    expected = ((fake.mean(0) - real.mean(0)) ** 2).sum() + np.trace(spread)
    assert found["fid_tiny"] == pytest.approx(expected, rel=0.02, abs=1e-5)
    same = Perceptual([], {"tiny": judge})
    for _, truth in few:
        same.pair(truth, truth)
    assert same.dataset_metrics()["fid_tiny"] == pytest.approx(0, abs=1e-5)
    assert same.dataset_metrics()["kid_tiny"] < found["kid_tiny"]


def test_one_picture_is_no_data_set(judge_folder):
    from diffcolor.judge import load_judge

    perceptual = Perceptual([], {"tiny": load_judge(str(judge_folder))})
    perceptual.pair(*pairs(1, 5)[0])
    assert perceptual.dataset_metrics() == {}


def test_the_kernel_distance_is_the_same_twice_and_leaves_the_random_state_alone(judge_folder):
    from diffcolor.judge import load_judge

    judge, found = load_judge(str(judge_folder)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        perceptual = Perceptual([], {"tiny": judge})
        for picture, truth in pairs(KID_SUBSET + 5, 25):
            perceptual.pair(picture[::4, ::4], truth[::4, ::4])
        before = torch.get_rng_state()
        found.append(perceptual.dataset_metrics()["kid_tiny"])
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("metric", "file"),
    [(Metric.lpips, "alexnet-owt-7be5be79.pth"), (Metric.fid, "weights-inception-2015-12-05-6726825d.pth")],
)
def test_a_network_that_brings_code_is_refused(metric, file, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "checkpoints").mkdir()
    torch.save({"weight": Bomb()}, tmp_path / "checkpoints" / file)
    with pytest.raises(MetricUnavailableError, match=file):
        Perceptual([metric], {}, tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_lpips_takes_its_network_from_a_hub_folder(tmp_path):
    from torchvision.models import alexnet

    torch.manual_seed(0)
    weights = {  # the classifier is not used: one number, expanded, keeps the file small
        name: one.half() if name.startswith("features") else torch.zeros(1).expand(one.shape)
        for name, one in alexnet().state_dict().items()
    }
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    before = torch.hub.get_dir()
    perceptual = Perceptual([Metric.lpips], {}, tmp_path)
    assert torch.hub.get_dir() == before
    picture, truth = pairs(1, 40)[0]
    assert perceptual.pair(truth, truth)["lpips"] == pytest.approx(0, abs=1e-6)
    assert perceptual.pair(picture, truth)["lpips"] > 0
    assert perceptual.pair(picture[:40], truth[:40]) == {}  # too small for the network
    large = [np.tile(one, (40, 40, 1)) for one in (picture, truth)]  # compared no larger than _LPIPS_SIDE
    assert perceptual.pair(*large)["lpips"] > 0


@pytest.mark.parametrize("metric", Metric)
def test_a_network_that_cannot_be_had_is_named_with_its_remedy(metric, finished, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    arguments = ["--truth", str(finished / "truth"), "--metric", metric.value, "--hub-folder", str(tmp_path)]
    result = CliRunner().invoke(app, ["evaluate", str(finished / "out"), *arguments])
    assert result.exit_code == 5
    for expected in (".pth", "no route to host", "https://", "--hub-folder", "checkpoints/"):
        assert expected in result.output


def test_a_metric_that_does_not_exist_is_refused(finished):
    arguments = ["--truth", str(finished / "truth"), "--metric", "beauty"]
    result = CliRunner().invoke(app, ["evaluate", str(finished / "out"), *arguments])
    assert result.exit_code == 2
    assert "beauty" in result.output


def of_photographs(colorize) -> list[dict]:
    """Figures of a dozen varied truths, colorized by a function of the truth."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cells = Image.fromarray(rng.integers(40, 220, (6, 8, 3), np.uint8))
        truth = np.asarray(cells.resize((64, 48), Image.Resampling.BICUBIC))
        found.append(against_truth(colorize(truth), truth))
    return found


def recolored(truth: np.ndarray, ab: np.ndarray) -> np.ndarray:
    return painted(luma(truth), ab)


def of_things(seed: int) -> np.ndarray:
    """Eight things side by side, each of one colour and of a gray of its own."""
    rng = np.random.default_rng(seed)
    grays = rng.permutation(np.linspace(60, 200, 8)).round().reshape(2, 4)
    gray = np.kron(grays, np.ones((32, 24))) + rng.normal(0, 1, (64, 96))
    colors = np.kron(rng.uniform(-25, 25, (2, 4, 2)), np.ones((32, 24, 1)))
    return painted(gray.round().astype(np.uint8), colors)


def test_true_points_bring_a_picture_nearer_to_the_truth():
    def error(count: int) -> float:
        ratios = []
        for seed in range(6):
            truth = of_things(seed)
            made = gray = np.repeat(luma(truth)[..., None], 3, -1)
            if count:
                made = with_hints(gray, true_points(truth, count))
            assert np.array_equal(luma(made), luma(truth))
            ratios.append(against_truth(made, truth)["ab_ratio"])
        return float(np.mean(ratios))

    errors = [error(count) for count in (0, 2, 6, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.25


def test_the_command_simulates_points(finished):
    given = ["--truth", str(finished / "truth"), "--json"]
    plain, pointed = (
        CliRunner().invoke(app, ["evaluate", str(finished / "out"), *given, "--name", name, *more])
        for name, more in (("plain", []), ("pointed", ["--simulate-points", "10"]))
    )
    assert pointed.exit_code == 0, pointed.output
    before, after = (json.loads(one.stdout)["summary"]["ab_error"] for one in (plain, pointed))
    assert before != after


def test_floors_know_nothing_and_oracles_ever_more():
    rows = of_photographs(lambda truth: np.repeat(luma(truth)[..., None], 3, -1))
    for row in rows:
        assert row["ab_error"] == pytest.approx(row["gray_error"], abs=0.5)
        assert row["truth_8x8_error"] < row["truth_4x4_error"] < row["truth_2x2_error"] < row["own_tint_error"]
        assert row["gray_colorfulness"] == 0
        assert 0 < row["tint_colorfulness"] < row["table_colorfulness"] + 5
        assert row["truth_8x8_colorfulness"] < row["colorfulness_truth"]


def test_the_tables_floor_is_its_own_figure():
    """A picture painted by the table is, by its own figures, the floor."""
    table = np.array(json.loads(FILE.read_text())["table"])

    def by_table(truth: np.ndarray) -> np.ndarray:
        return recolored(truth, table[luma(truth).astype(int) * LEVELS // 256])

    for row in of_photographs(by_table):
        assert row["ab_error"] == pytest.approx(row["table_error"], abs=0.6)
        assert row["colorfulness"] == pytest.approx(row["table_colorfulness"], abs=1e-9)
    assert verdict(of_photographs(by_table)).sentence().startswith(("NOT", "WORSE"))


def test_a_result_is_said_to_be_what_it_is_against_the_table():
    true = verdict(of_photographs(lambda truth: truth))
    assert true.beats_table
    assert true.sentence().startswith("better")
    assert (true.nearer, true.hue_agreement.value) == (1.0, 1.0)
    ours = next(line for line in true.lines if line.name == "ours")
    assert (ours.error.value, ours.colorfulness.value) == (0.0, 1.0)
    opposite = verdict(of_photographs(lambda truth: recolored(truth, -rgb2lab(truth)[..., 1:])))
    assert not opposite.beats_table
    assert opposite.sentence().startswith("WORSE")
    assert opposite.hue_agreement.value < 0.1
    assert opposite.against_table.low > 0


def test_intervals_are_over_groups():
    rows = of_photographs(lambda truth: truth // 2 + 64)
    alone, together = verdict(rows), verdict(rows, [n // 6 for n in range(12)])
    assert alone.against_table.value == together.against_table.value
    assert verdict(rows * 2, [n % 12 for n in range(24)]).against_table.low == pytest.approx(alone.against_table.low)
