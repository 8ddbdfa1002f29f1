"""Scans of every format through `submit` on the tiny models: what an archive gets back."""

import io
from dataclasses import fields, replace

import numpy as np
import pyarrow.parquet as pq
import pyexiv2
import pytest
import tifffile
from PIL import Image

from diffcolor.luminance import luma
from manifests.read import RecolorRequest
from pipelines.curation.recolor import Recolorer
from pipelines.curation.verify import verify, verify_pair
from pipelines.driver.run import run_job
from pipelines.images.formats.codecs import open_raster
from pipelines.images.gray import Source
from pipelines.job import OutputOptions
from pipelines.ledger.results import SCHEMA, Output
from pipelines.store.store import Store
from tests import scans
from tests.conftest import write_manifest
from tests.pipelines.jobs import request

MOUNTED = np.round(scans.mounted(scans.landscape(1), 0.9, (40, 30, 70, 50)) * 65535).astype(np.uint16)
SPECIAL = {
    "mounted": (scans.tiff(MOUNTED), {}),
    "neutral_mount": (scans.tiff(MOUNTED), {"color_points": [{"x": 5, "y": 5, "color": "neutral"}]}),
    "hinted_mount": (scans.tiff(MOUNTED), {"color_points": [{"x": 5, "y": 5, "color": "#804020"}]}),
    "described": (scans.described_tiff(scans.GRAY16), {}),
    "second_page": (scans.pages(scans.GRAY, scans.GRAY[::-1]), {"page": 1}),
    "sepia": (scans.encoded(scans.TONED), {"toned": "desaturate"}),
    "negative": (scans.tiff(255 - scans.GRAY), {"negative": True}),
    "regions": (scans.tiff(np.tile(scans.GRAY, (3, 3))), {"regions": [[10, 20, 80, 70], [100, 100, 64, 64]]}),
    "turned": (scans.png_file(scans.GRAY, exif=scans.exif_block(orientation=8)), {}),
    "profiled": (scans.tiff(scans.GRAY, iccprofile=scans.gamma_profile(1.8)), {}),
    "sidecar": (scans.encoded(scans.GRAY, "JPEG"), {}),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory, local_ray, base_folder, judge_folder):
    """A finished job over all of them, and the bad ones among them."""
    from pipelines.job import JobSpec
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("archive")
    table = []
    for name, (content, more) in {**{k: (c, {}) for k, (c, _) in scans.GOOD.items()}, **SPECIAL}.items():
        (folder / name).write_bytes(content)
        table.append({"id": name, "image": name, "caption": "a photo of a barn", "prompt_writer": "M. Möller", **more})
    (folder / "sidecar.xmp").write_bytes(scans.XMP)
    for kind, content in scans.BAD.items():
        (folder / f"bad_{kind}").write_bytes(content)
        table.append({"id": f"bad_{kind}", "image": f"bad_{kind}", "caption": "a barn"})
    spec = JobSpec(
        output=str(folder / "out"),
        base_model=str(base_folder),
        judge=str(judge_folder),
        config=TINY,
        images_per_step=8,
        outputs=OutputOptions(access_copy="jpeg", access_size=64),
    )
    run_job(request(write_manifest(folder / "m.parquet", table), spec))
    rows = {row["id"]: row for row in pq.read_table(folder / "out" / "results").to_pylist()}
    return folder, spec, rows


def picture(archive, name: str) -> tuple[bytes, dict]:
    folder, _, rows = archive
    output = rows[name]["outputs"][0]
    return (folder / "out" / output["image"]).read_bytes(), output


def test_every_good_scan_is_ok_and_every_bad_one_has_its_reason(archive):
    _, _, rows = archive
    for name, row in rows.items():
        if name.startswith("bad_"):
            kind = name.removeprefix("bad_")
            assert (row["status"], row["error_kind"]) == ("skipped" if kind in scans.SKIPPED else "failed", kind)
            assert not row["outputs"]
        else:
            assert row["status"] == "ok", (name, row["error_message"])


@pytest.mark.parametrize("name", scans.GOOD)
def test_depth_size_and_luminance_are_the_scans(archive, name):
    content, output = picture(archive, name)
    raster = open_raster(io.BytesIO(content), 1 << 40)
    expected = scans.GOOD[name][1]
    pixels = np.zeros((*expected.shape, 3), expected.dtype)
    for y, x, block in raster.blocks():
        pixels[y : y + block.shape[0], x : x + block.shape[1]] = block
    assert np.array_equal(luma(pixels), expected)
    assert output["format"] == raster.kind
    assert output["chroma_reduced"] < 1
    assert archive[2][name]["luminance_mismatches"] == 0


def test_everything_verifies_from_the_files_alone(archive):
    found = verify(archive[1].output)
    assert found.differences == []
    assert found.luminance_mismatches == 0
    assert found.pictures == found.against_input == 2 * (len(scans.GOOD) + len(SPECIAL))
    few = verify(archive[1].output, sample=5)
    assert 0 < few.rows < found.rows


def test_metadata_reaches_the_picture(archive):
    content, _ = picture(archive, "described")
    with pyexiv2.ImageData(content) as image:
        exif, xmp, iptc = image.read_exif(), image.read_xmp(), image.read_iptc()
    assert exif["Exif.Image.ImageDescription"] == "Scheune, März 1940"
    assert (exif["Exif.Image.XResolution"], exif["Exif.Image.YResolution"]) == ("300/1", "400/1")
    assert exif["Exif.Photo.ExposureTime"] == "1/60"
    assert iptc["Iptc.Application2.Caption"] in ("Barn", ["Barn"])
    assert xmp["Xmp.iptcExt.DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert b"AIPromptWriterName>M. M\xc3\xb6ller<" in content
    with pyexiv2.ImageData(picture(archive, "sidecar")[0]) as image:
        assert "Scheune" in str(image.read_xmp()["Xmp.dc.title"])


def test_the_page_the_regions_and_the_view_are_those_asked_for(archive):
    folder, _, rows = archive
    colours = np.asarray(Image.open(io.BytesIO(picture(archive, "second_page")[0])))
    assert np.array_equal(luma(colours), scans.GRAY[::-1])
    page = np.asarray(Image.open(io.BytesIO(picture(archive, "regions")[0])))
    inside = np.zeros(page.shape[:2], bool)
    for x, y, width, height in rows["regions"]["regions"]:
        inside[y : y + height, x : x + width] = True
    assert (page[~inside].max(-1) == page[~inside].min(-1)).all()
    assert (page[inside].max(-1) != page[inside].min(-1)).mean() > 0.5
    with Image.open(folder / "out" / rows["turned"]["preview"]) as shown:
        assert shown.size == scans.GRAY.shape, "upright: height and width changed places"


def test_access_copies_say_how_far_they_are_off(archive):
    folder, _, _ = archive
    for name in ("tiff16", "jpeg"):
        _, output = picture(archive, name)
        with Image.open(folder / "out" / output["access"]) as copy:
            assert copy.format == "JPEG"
            assert max(copy.size) == 64
        assert 0 < output["access_luma_mean"] < 2
        assert output["access_luma_max"] >= 1


def test_the_results_have_a_column_for_every_fact():
    """Arrow would drop a field that its schema does not know, without a word."""
    assert SCHEMA.field("source").type.names == [item.name for item in fields(Source)]
    outputs = SCHEMA.field("outputs").type.value_type.names
    assert set(outputs) == {item.name for item in fields(Output)}


def test_the_record_beside_a_picture_has_what_an_archive_asks(archive):
    import json

    folder, _, rows = archive
    _, output = picture(archive, "described")
    record = json.loads((folder / "out" / (output["image"] + ".json")).read_text())
    assert record["digital_source_type"].endswith("compositeWithTrainedAlgorithmicMedia")
    given, method, outcome = record["input"], record["method"], record["outcome"]
    assert given["sha256"] == rows["described"]["input_sha256"]
    assert (given["depth"], given["dpi_x"], given["dpi_y"], given["orientation"]) == (16, 300, 400, 6)
    assert given["profile_sha256"]
    assert given["not_carried"] == ["tag 34665/37500"]
    assert method["target_prompt"] == "a photo of a barn"
    assert method["prompt_writer"] == "M. Möller"
    assert method["settings"]["fit"]["lora_rank"] == 2
    assert method["libraries"]["torch"]
    assert outcome["sha256"] == output["sha256"]
    assert outcome["luminance_mismatches"] == 0


def test_a_16_bit_scan_is_recolored_without_its_file(archive):
    folder, spec, _ = archive
    original = folder / "described"
    moved = original.rename(folder / "gone")
    try:
        recolorer = Recolorer(spec.output)
        ((_, outputs),) = recolorer.recolor_all([RecolorRequest(id="described", prompts=("a green barn",))])
    finally:
        moved.rename(original)
    output = outputs[0]
    check = verify_pair(str(original), f"{spec.output}/{output.image}")
    assert (check.mismatches, output.format) == (0, "tiff")
    with pyexiv2.Image(f"{spec.output}/{output.image}") as image:
        assert image.read_exif()["Exif.Photo.ExposureTime"] == "1/60"
    assert Store(spec.output).exists(output.image + ".json")


def test_only_the_photograph_on_a_mount_gets_colour(archive):
    folder, spec, rows = archive
    x, y, width, height = rows["mounted"]["picture_box"]
    assert max(abs(x - 30), abs(y - 40), abs(width - 320), abs(height - 240)) <= 6
    asked = RecolorRequest(id="mounted", prompts=("a red barn",))
    found = dict(Recolorer(spec.output).recolor_all([asked]))["mounted"]
    assert isinstance(found, list), found
    recolored = found[0]
    for key in (rows["mounted"]["outputs"][0]["image"], recolored.image):
        raster = open_raster(io.BytesIO((folder / "out" / key).read_bytes()), 1 << 40)
        page = np.concatenate([block for _, _, block in raster.blocks()])
        assert np.array_equal(luma(page), MOUNTED)
        outside = np.ones(MOUNTED.shape, bool)
        outside[y : y + height, x : x + width] = False
        colored = page.max(-1) != page.min(-1)
        assert not colored[outside].any()
        assert colored[~outside].mean() > 0.5
    assert rows["neutral_mount"]["picture_box"] == rows["mounted"]["picture_box"], "it stays neutral anyway"
    assert rows["neutral_mount"]["outputs"][0]["hints_kept"] == [1.0]
    assert not any(row["picture_box"] for name, row in rows.items() if name not in ("mounted", "neutral_mount"))


def test_the_same_rows_in_another_format_train_nothing(archive, tmp_path):
    folder, spec, _ = archive
    again = replace(spec, outputs=OutputOptions(format="png", mark=False))
    table = [{"id": "described", "image": "described", "caption": "a photo of a barn"}]
    run_job(request(write_manifest(folder / "one.parquet", table), again))
    (row,) = pq.read_table(folder / "out" / "results").to_pylist()
    assert row["trained_steps"] == 0
    content = (folder / "out" / row["outputs"][0]["image"]).read_bytes()
    raster = open_raster(io.BytesIO(content), 1 << 40)
    assert (raster.kind, raster.dtype) == ("png", np.uint16)
    assert raster.metadata.xmp == scans.XMP, "unmarked, as it was asked for, and otherwise untouched"
    assert verify(spec.output).differences == []


def test_one_code_of_difference_is_found_by_verify(archive):
    folder, _, _ = archive
    pixels = np.asarray(Image.open(io.BytesIO(scans.GOOD["tiff8"][0]))).copy()
    (folder / "changed.tif").write_bytes(scans.tiff(np.stack([pixels] * 3, -1), photometric="rgb"))
    assert verify_pair(str(folder / "tiff8"), str(folder / "changed.tif")).mismatches == 0
    pixels[5, 7] += 1
    (folder / "changed.tif").write_bytes(scans.tiff(np.stack([pixels] * 3, -1), photometric="rgb"))
    check = verify_pair(str(folder / "tiff8"), str(folder / "changed.tif"))
    assert (check.mismatches, check.largest, check.first) == (1, 1, (7, 5))
    with pytest.raises(ValueError, match="size is"):
        verify_pair(str(folder / "regions"), str(folder / "changed.tif"))


def test_a_negative_gives_its_picture_and_verify_knows(archive):
    raster = open_raster(io.BytesIO(picture(archive, "negative")[0]), 1 << 40)
    pixels = np.concatenate([block for _, _, block in raster.blocks()])
    assert np.array_equal(luma(pixels), scans.GRAY)
    assert archive[2]["negative"]["source"]["negative"]
    assert not archive[2]["described"]["source"]["negative"]


def test_a_known_colour_on_the_mount_means_that_the_sheet_is_the_picture(archive):
    raster = open_raster(io.BytesIO(picture(archive, "hinted_mount")[0]), 1 << 40)
    page = np.concatenate([block for _, _, block in raster.blocks()])
    assert page[5, 5].max() > page[5, 5].min()


def test_the_whole_sheet_gets_colour_on_request(archive, tmp_path):
    folder, spec, _ = archive
    table = write_manifest(
        tmp_path / "m.parquet", [{"id": "sheet", "image": str(folder / "mounted"), "caption": "a barn"}]
    )
    job = replace(spec, output=str(tmp_path / "out"))
    run_job(replace(request(table, job), whole_sheet=True))
    (row,) = pq.read_table(tmp_path / "out" / "results").to_pylist()
    page = tifffile.imread(tmp_path / "out" / row["outputs"][0]["image"])
    assert row["picture_box"] is None
    assert (page[:40].max(-1) != page[:40].min(-1)).mean() > 0.5
