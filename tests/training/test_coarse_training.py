"""What the coarse colorizer is trained on: parts by shoot, recoloured things, scans; and the training, for seconds."""

import io
import shutil
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffcolor.coarse import CoarseConfig, CoarseNet
from training.__main__ import main
from training.colors import luma, name_pixels, paint
from training.pictures import Drawn, PictureSource
from training.scanning import age, mount
from training.shoots import PHOTOGRAPHS, pack, part_of, read_pack, shoots
from training.train_coarse import (
    BATCH_SIZE,
    Batch,
    Batches,
    Teachers,
    color_loss,
    export_coarse,
    load_trained,
    start,
    swap_captions,
    twin_loss,
)
from training.wording import NAMED, denial, describe, nonsense, recolor_named


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def picture(seed: int, size: tuple[int, int] = (150, 110)) -> Image.Image:
    cells = np.random.default_rng(seed).integers(60, 230, (5, 7, 3), np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    titles = [f"A {word} beside the {word} road near a {word} mill" for word in "abcdefgh"]
    titles = [title.replace(word, word * 4) for title, word in zip(titles, "abcdefgh", strict=True)]
    slides = [{"id": f"k{n}", "title": titles[n % 8], "image": jpeg(np.asarray(picture(n)))} for n in range(40)]
    said = [{"id": f"k{n}", "caption": f"a red barn number {n}, blue sky"} for n in range(40)]
    others = []
    for number in range(30):
        made = picture(100 + number // 2, (220, 170))  # two of each, one a little lighter
        pixels = np.clip(np.asarray(made, np.int16) + number % 2 * 6, 0, 255).astype(np.uint8)
        kind = ("various", "small", "clothing")[number // 2 % 3]
        others.append({"id": f"v{number}", "set": kind, "label": "a dress", "caption": "", "image": jpeg(pixels)})
    for name, rows in {"slides": slides, "said": said, "others": others}.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    pack(folder / "slides.parquet", folder / "said.parquet", folder / "others.parquet", folder / "pack.parquet")
    return folder / "pack.parquet"


def test_a_shoot_is_wholly_in_one_part(packed):
    rows = pq.read_table(packed).to_pylist()
    by_title, by_picture = defaultdict(set), defaultdict(set)
    for row in rows:
        if row["set"] == "kodachrome":
            by_title[row["title"]].add((row["shoot"], row["part"]))
        else:
            by_picture[int(row["id"][1:]) // 2].add((row["shoot"], row["part"]))
    assert all(len(found) == 1 for found in (*by_title.values(), *by_picture.values()))
    assert len({row["shoot"] for row in rows}) >= 12
    assert all(row["part"] == part_of(row["shoot"]) for row in rows)


def test_shoots_do_not_depend_on_the_order(packed):
    rows = pq.read_table(packed).to_pylist()
    order = np.random.default_rng(0).permutation(len(rows))
    again = shoots([rows[i] for i in order])
    assert {rows[i]["id"]: name for i, name in zip(order, again, strict=True)} == {
        row["id"]: row["shoot"] for row in rows
    }


def test_captions_and_titles_come_with_their_pictures(packed):
    found = [
        one for part in ("train", "validation", "test") for some in read_pack(packed, part).values() for one in some
    ]
    slides = [one for one in found if one.id.startswith("k")]
    assert slides
    for one in slides:
        assert one.caption == f"a red barn number {one.id[1:]}, blue sky"
        assert min(one.pixels.shape[:2]) <= 144
    assert PHOTOGRAPHS == ("kodachrome", "various", "small")


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a woman in a pale blue dress and white apron", ["blue", "white"]),
        ("reddish brown brick mill, deep blue sky", ["brown", "blue"]),
        ("a gray-blue plate", ["gray-blue"]),
        ("a man reading", []),
    ],
)
def test_colour_words_of_a_caption(caption, words):
    assert [found[1] for found in NAMED.finditer(caption)] == words


def test_the_named_thing_alone_is_repainted_at_its_own_luma():
    generator = np.random.default_rng(3)
    ground = paint(np.full((96, 96, 3), 0.55, np.float32), "brown", generator)
    ground[20:60, 30:70] = paint(np.full((40, 40, 3), 0.45, np.float32), "blue", generator)
    inside = np.zeros((96, 96), bool)
    inside[20:60, 30:70] = True
    for seed in range(12):
        said, changed, mask = recolor_named("a blue car on brown earth", ground, np.random.default_rng(seed))
        assert "blue" not in said
        assert said.endswith("car on brown earth")
        assert np.abs(luma(changed) - luma(ground)).max() < 1e-3
        assert np.abs(changed - ground)[~inside].max() < 0.5, "only its rim is softened"
        assert np.abs(changed - ground)[:15].max() == 0
        assert mask[40, 50] == 1
        assert np.abs(changed - ground)[40, 50].max() > 0.05


@pytest.mark.parametrize("caption", ["a car on brown earth", "a blue car, blue earth", "a car in gray blue"])
def test_nothing_is_repainted_where_it_is_not_certain(caption):
    ground = paint(np.full((64, 64, 3), 0.5, np.float32), "blue", np.random.default_rng(0))
    assert recolor_named(caption, ground, np.random.default_rng(0)) is None


def test_a_denial_names_a_colour_that_is_absent():
    red = paint(np.full((32, 32, 3), 0.45, np.float32), "red", np.random.default_rng(0))
    present = set(np.unique(name_pixels(red)).tolist())
    for seed in range(20):
        said = denial(red, np.random.default_rng(seed))
        assert said
        assert not any(said.endswith(name) for name in present)


def test_a_caption_is_one_of_what_is_known():
    pixels = np.asarray(picture(0), np.float32) / 255
    said = {describe("A barn", "a red barn, blue sky", pixels, np.random.default_rng(seed)) for seed in range(200)}
    assert "" in said
    assert any("red barn" in one for one in said)
    assert any("A barn" in one for one in said)
    assert all(nonsense(np.random.default_rng(seed)).isascii() for seed in range(5))


def test_age_keeps_the_size_and_mounts_have_no_colour():
    gray = luma(np.asarray(picture(1), np.float32) / 255)
    for seed in range(40):
        aged = age(gray, np.random.default_rng(seed))
        assert aged.shape == gray.shape
        assert aged.dtype == np.float32
        assert aged.min() >= 0
        assert aged.max() <= 1
    for seed in range(20):
        sheet, outside = mount(np.asarray(picture(1), np.float32) / 255, np.random.default_rng(seed))
        assert np.ptp(sheet[outside], axis=-1).max() < 1e-6
        assert np.ptp(sheet[~outside], axis=-1).max() > 0.1


def test_the_loss_prefers_colour_to_the_wash_of_both():
    """A vivid quarter of a picture counts for more than the gray rest: the mean of all is worse than the truth."""
    truth = torch.zeros(1, 2, 8, 8)
    truth[:, 0, :2] = 40.0
    none = torch.zeros(1, 1, 8, 8)
    wash, gray = torch.zeros_like(truth), torch.zeros_like(truth)
    wash[:, 0] = 10.0
    assert color_loss(truth, truth, none) < color_loss(wash, truth, none)
    assert color_loss(wash, truth, none) < color_loss(gray, truth, none)
    assert color_loss(wash, truth, none + 1) > color_loss(wash, truth, none)


def test_twins_are_alike_but_for_one_thing(packed):
    source = PictureSource(photographs=read_pack(packed, "train"), stamps=[], scenes=0, recolored=0, mounted=0)
    thing = np.zeros((64, 64), np.float32)
    thing[16:40, 16:40] = 1
    plain = Drawn(picture=np.full((64, 64, 3), 0.5, np.float32), caption="a red car", extra=thing)
    other = replace(plain, caption="a blue car", twin=plain)

    class Repainted(PictureSource):
        def draw(self, shape, generator):
            return other

    batches = Batches(source=Repainted(**vars(source)), seed=[0])
    batch = batches.draw(np.random.default_rng(0))
    assert batch.twins
    for first in batch.twins:
        assert (batch.captions[first], batch.captions[first + 1]) == ("a red car", "a blue car")
        assert torch.equal(batch.gray[first], batch.gray[first + 1]), "the very same scan, however aged"
    assert len(batch.captions) == len(batch.gray) == BATCH_SIZE


def test_twins_may_differ_in_the_thing_alone():
    extra = torch.zeros(2, 1, 8, 8)
    extra[..., 2:5, 2:5] = 1
    alike = torch.randn(1, 2, 8, 8).expand(2, -1, -1, -1).clone()
    inside, outside = alike.clone(), alike.clone()
    inside[1, :, 2:5, 2:5] += 30
    outside[1, :, 7] += 30
    assert twin_loss(inside, extra, [0]) == twin_loss(alike, extra, [0]) < 0.2
    assert twin_loss(outside, extra, [0]) > 3
    assert twin_loss(outside, extra, []) == 0


def test_a_colorizer_is_trained_and_exported(packed, tmp_path, monkeypatch):
    stamps = tmp_path / "stamps" / "household"
    stamps.mkdir(parents=True)
    for number in range(6):
        pixels = np.zeros((60, 50, 4), np.uint8)
        pixels[10:50, 10:40] = [200, 40 * number, 20, 255]
        Image.fromarray(pixels).save(stamps / f"{number}.png")
        (stamps / f"{number}.txt").write_text(f"Cup {'abcdef'[number]}.\n", encoding="utf-8")
    monkeypatch.setattr("training.train_coarse.BATCH_SIZE", 2)
    places = ["--pack", packed, "--stamps", tmp_path / "stamps", "--runs", tmp_path / "r", "--threads", "1"]
    main([str(one) for one in ["coarse", *places, "--decay-steps", "2", "--workers", "0"]])
    first = tmp_path / "r" / "coarse" / "coarse.pt"
    shutil.copy(first, tmp_path / "first.pt")
    more = ["--teachers", tmp_path / "first.pt", tmp_path / "first.pt", "--decay-steps", "3", "--workers", "0"]
    main([str(one) for one in ["coarse", *places, *more]])
    monkeypatch.setattr("training.train_text.DRAWN", 20)
    main([str(one) for one in ["text", *places, "--tower", tmp_path / "first.pt", "--decay-steps", "2"]])
    export_coarse(tmp_path / "r", tmp_path / "out")
    said = load_trained(tmp_path / "r" / "coarse" / "coarse.pt").text.state_dict()
    exported = load_file(tmp_path / "out" / "coarse" / "model.safetensors")
    assert any(not torch.equal(exported[f"text.{name}"], value.half()) for name, value in said.items())
    net = CoarseNet(CoarseConfig.read(tmp_path / "out" / "coarse"))
    weights = load_file(tmp_path / "out" / "coarse" / "model.safetensors")
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("num_batches_tracked" in name for name in missing)
    assert (tmp_path / "out" / "coarse" / "model.safetensors").stat().st_size < 20e6


def test_teachers_say_the_mean_of_what_each_says_of_a_picture_and_of_its_mirror_image(tmp_path):
    torch.manual_seed(0)
    paths = [tmp_path / f"{k}.pt" for k in range(2)]
    for path in paths:
        net = start()
        torch.nn.init.normal_(net.out[-1].weight, std=0.1)
        torch.save({"average": net.state_dict()}, path)
    gray, ids, padding = torch.rand(1, 1, 64, 96), torch.tensor([[1, 5, 2]]), torch.zeros(1, 3, dtype=torch.bool)
    one, other = (load_trained(path).eval() for path in paths)
    with torch.no_grad():
        expected = (one(gray, ids, padding) + other(gray.flip(-1), ids, padding).flip(-1)) / 2
    assert torch.allclose(Teachers(paths, torch.device("cpu")).colors(gray, ids, padding), expected, atol=1e-4)


def test_some_pictures_get_anothers_caption_and_twins_keep_theirs():
    captions = [f"caption {k}" for k in range(12)]
    nothing = torch.zeros(1)
    batch = Batch(gray=nothing, captions=captions, ab=nothing, extra=nothing, twins=[2, 7])
    swapped = set()
    for seed in range(30):
        given, kept = swap_captions(batch, np.random.default_rng(seed))
        assert [one == own for one, own in zip(given, captions, strict=True)] == kept.tolist()
        assert set(given) <= set(captions)
        swapped |= set(np.flatnonzero(~kept).tolist())
    assert swapped == set(range(12)) - {2, 3, 7, 8}
