"""Colours at points and boxes, as people write them."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor

from manifests.build import build
from manifests.color_names import named_colors, parse_color
from manifests.color_places import MAX_PLACES, ColorPlace, distinct, parse_place, parse_places, place_of, read_places
from manifests.errors import ManifestError
from manifests.read import RecolorRequest, read_recolor_requests, read_rows
from tests.conftest import write_manifest, write_picture

POINT = {"x": 40, "y": 25, "color": "olive drab"}
BOX = {"x": 4, "y": 5, "width": 6, "height": 7, "color": "#0a0B0c"}


def test_every_css_name_is_known():
    for name, value in ImageColor.colormap.items():
        if isinstance(value, str):
            assert parse_color(name) == ImageColor.getrgb(value)


def test_every_name_of_the_table_is_had_as_it_is_written():
    for name, code in named_colors().items():
        assert parse_color(name) == ImageColor.getrgb(code)


def test_names_of_uniforms_and_of_the_iscc_nbs_system_are_known():
    assert len(named_colors()) > 700
    for name in ("olive drab", "Dark  Reddish-Brown", "field drab", "feldgrau", "old glory red", "GREY"):
        assert parse_color(name) is not None
    assert parse_color("dark blue") != parse_color("darkblue"), "the book's and the browser's"
    assert parse_color("#00FF7f") == (0, 255, 127)
    assert parse_color("neutral") is None


@pytest.mark.parametrize(
    ("text", "offered"), [("olive drap", "olive drab"), ("navi", "navy"), ("#12345", None), ("", None)]
)
def test_an_unknown_colour_is_named_and_the_nearest_offered(text, offered):
    with pytest.raises(ValueError, match="neither #rrggbb nor a known name") as caught:
        parse_color(text)
    assert repr(text) in str(caught.value)
    if offered:
        assert repr(offered) in str(caught.value)


@given(
    st.tuples(*[st.integers(0, 99999)] * 2, *[st.integers(1, 9999)] * 2),
    st.sampled_from(["navy", "#0a1b2c", "neutral"]),
)
def test_a_place_is_what_its_text_says(numbers, color):
    place = ColorPlace(**dict(zip(("x", "y", "width", "height"), numbers, strict=True)), color=color)
    assert place_of(str(place)) == place


def test_blanks_change_no_place():
    assert place_of("0, 0, 900, 180, light  blue") == ColorPlace(x=0, y=0, width=900, height=180, color="light blue")
    spaced = ColorPlace(x=1, y=2, color=" navy ")
    assert place_of(str(spaced)) == spaced


@pytest.mark.parametrize("text", ["40,25", "40,25,", "a,25,navy", "-4,25,navy", "4.5,25,navy", "40;25;navy", ""])
def test_a_place_that_cannot_be_read_is_quoted(text):
    with pytest.raises(ValueError, match="x,y,color"):
        parse_place(text, 2)


def test_a_cell_of_a_spreadsheet_is_text_or_json():
    assert parse_places(" 40,25,olive drab; 1,2,#0a0b0c ;", 2) == [POINT, {"x": 1, "y": 2, "color": "#0a0b0c"}]
    assert parse_places("4,5,6,7,#0a0B0c", 4) == [BOX]
    assert parse_places(json.dumps([BOX]), 4) == [BOX]
    assert parse_places("  ", 2) is parse_places(None, 2) is None


@pytest.mark.parametrize(
    "text", ['[{"x": 1}]', "[1, 2]", '[{"x": "1", "y": 2, "color": "red"}]', "[", '[{"x":1,"y":2,"color":3}]']
)
def test_a_cell_that_cannot_be_read_is_quoted(text):
    with pytest.raises(ValueError, match=r"is not|whole numbers"):
        parse_places(text, 2)


def test_one_place_has_one_colour():
    twice = distinct([ColorPlace(x=1, y=2, color="navy"), ColorPlace(x=1, y=2, color="#000080")])
    assert len(twice) == 1
    with pytest.raises(ValueError, match="1,2,red contradicts 1,2,navy"):
        read_places([{"x": 1, "y": 2, "color": "navy"}, {"x": 1, "y": 2, "color": "red"}], None)
    with pytest.raises(ValueError, match=f"at most {MAX_PLACES}"):
        read_places([{"x": k, "y": 2, "color": "navy"} for k in range(MAX_PLACES + 1)], None)


def row(**more) -> dict:
    return {"id": "a", "image": "a.png", "caption": "a barn", **more}


def test_a_manifest_holds_places(tmp_path):
    (read,) = read_rows(write_manifest(tmp_path / "m.parquet", [row(color_points=[POINT], color_boxes=[BOX])]))
    assert [str(place) for place in read.color_places] == ["40,25,olive drab", "4,5,6,7,#0a0B0c"]
    assert [place.rgb for place in read.color_places] == [parse_color("olive drab"), (10, 11, 12)]


def test_narrow_integers_are_read_and_others_are_not(tmp_path):
    import pyarrow.parquet as pq

    def table(kind: pa.DataType, value) -> str:
        points = pa.array([[{"x": value, "y": value, "color": "red"}]],
                          pa.list_(pa.struct([("x", kind), ("y", kind), ("color", pa.string())])))  # fmt: skip
        table = pa.table({"id": ["a"], "image": ["a.png"], "caption": ["a barn"], "color_points": points})
        pq.write_table(table, tmp_path / "m.parquet")
        return str(tmp_path / "m.parquet")

    (read,) = read_rows(table(pa.int16(), 7))
    assert str(read.color_places[0]) == "7,7,red"
    with pytest.raises(ManifestError, match="color_points"):
        list(read_rows(table(pa.float64(), 7.5)))


@pytest.mark.parametrize(
    "places",
    [
        {"color_points": [{"x": 1, "y": 2, "color": "blurple"}]},
        {"color_points": [{"x": -1, "y": 2, "color": "red"}]},
        {"color_points": [{"x": 1, "y": None, "color": "red"}]},
        {"color_boxes": [{**BOX, "width": 0}]},
        {"color_points": [None]},
    ],
)
def test_a_bad_place_is_the_rows_fault(tmp_path, places):
    with pytest.raises(ManifestError) as caught:
        list(read_rows(write_manifest(tmp_path / "m.parquet", [row(**places)])))
    assert [problem.kind for problem in caught.value.problems] == ["bad_place"]


def test_a_spreadsheet_brings_places(tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (tmp_path / "c.csv").write_text(
        'file,caption,color_points,color_boxes\na.png,a barn,"40,25,olive drab; 3,4,navy","4,5,6,7,#0a0B0c"\n'
    )
    build(str(tmp_path), tmp_path / "m.parquet", {".png"}, str(tmp_path / "c.csv"))
    (read,) = read_rows(str(tmp_path / "m.parquet"))
    assert [str(place) for place in read.color_places] == ["40,25,olive drab", "3,4,navy", "4,5,6,7,#0a0B0c"]
    (tmp_path / "c.csv").write_text('file,caption,color_points\na.png,a barn,"40,25,olive drap"\n')
    with pytest.raises(ManifestError, match="olive drab"):
        build(str(tmp_path), tmp_path / "m.parquet", {".png"}, str(tmp_path / "c.csv"))


def test_recolouring_may_ask_for_places_alone(tmp_path):
    rows = [{"id": "a", "color_points": [POINT]}, {"id": "b", "target_prompts": ["a red barn"]}]
    first, second = read_recolor_requests(write_manifest(tmp_path / "r.parquet", rows))
    assert first == RecolorRequest(id="a", places=(ColorPlace(**POINT),))
    assert second == RecolorRequest(id="b", prompts=("a red barn",))
    bad = write_manifest(tmp_path / "bad.parquet", [{"id": "a", "color_points": [{**POINT, "color": "blurple"}]}])
    with pytest.raises(ManifestError, match="blurple"):
        list(read_recolor_requests(bad))


def test_a_reference_is_read_beside_the_manifest(tmp_path):
    (read,) = read_rows(write_manifest(tmp_path / "m.parquet", [row(reference="b.jpg")]))
    assert read.reference == f"file://{tmp_path}/b.jpg"
    rows = [{"id": "a", "reference": "s3://archive/b.jpg"}]
    (asked,) = read_recolor_requests(write_manifest(tmp_path / "r.parquet", rows))
    assert asked == RecolorRequest(id="a", reference="s3://archive/b.jpg")
    for reader, one in (
        (read_rows, row(reference="../b.jpg")),
        (read_recolor_requests, {"id": "a", "reference": "../b"}),
    ):
        with pytest.raises(ManifestError, match="bad_reference"):
            list(reader(write_manifest(tmp_path / "bad.parquet", [one])))
    write_picture(tmp_path / "a.png", 1)
    (tmp_path / "c.csv").write_text("file,caption,reference\na.png,a barn,b.jpg\n")
    build(str(tmp_path), tmp_path / "m.parquet", {".png"}, str(tmp_path / "c.csv"))
    (read,) = read_rows(str(tmp_path / "m.parquet"))
    assert read.reference == f"file://{tmp_path}/b.jpg"
