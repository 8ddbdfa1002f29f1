"""Illustrations of newspaper pages and canvases of IIIF as manifest rows."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from manifests.errors import ManifestError
from manifests.sources.alto import Size, rows_of_page
from manifests.sources.iiif import rows_of_iiif
from manifests.sources.pages import Page, pages_of_folders, pages_of_mets
from pipelines.images.formats.table import SUFFIXES
from tests import scans

BOMB = b'<!DOCTYPE a [<!ENTITY x "yyyy"><!ENTITY z "&x;&x;&x;">]><alto>&z;</alto>'


def alto(unit: str, scale: float, page: str = 'WIDTH="{0:g}" HEIGHT="{1:g}"', namespace="v4") -> bytes:
    """A page of 1000 x 1400 pixels at 254 dpi: a picture with its caption inside, one with text below it, a rule."""

    def box(x, y, width, height) -> str:
        values = zip(("HPOS", "VPOS", "WIDTH", "HEIGHT"), (x, y, width, height), strict=True)
        return " ".join(f'{name}="{value * scale:g}"' for name, value in values)

    def text(x, y, width, height, *words) -> str:
        strings = "".join(f'<String CONTENT="{word}"/>' for word in words)
        return f"<TextBlock {box(x, y, width, height)}><TextLine>{strings}</TextLine></TextBlock>"

    body = f"""<alto xmlns="http://www.loc.gov/standards/alto/ns-{namespace}#">
    <Description><MeasurementUnit>{unit}</MeasurementUnit></Description>
    <Layout><Page ID="P1" {page.format(1000 * scale, 1400 * scale)}><PrintSpace>
      {text(50, 50, 900, 60, "THE", "DAILY", "NEWS")}
      <ComposedBlock ID="CB 1" TYPE="Illustration" {box(100, 200, 400, 300)}>
        <Illustration ID="I1" {box(100, 200, 400, 250)}/>
        {text(100, 460, 400, 40, "A", "barn", "in", "Ohio")}
      </ComposedBlock>
      <Illustration ID="I2" {box(550, 200, 400, 300)}/>
      {text(560, 510, 380, 30, "The", "mayor", "Mr", "M&#246;ller")}
      {text(560, 900, 380, 30, "Far", "below")}
      <Illustration ID="rule" {box(50, 700, 900, 5)}/>
    </PrintSpace></Page></Layout></alto>"""
    return body.encode()


ROWS = [
    ("p1-CB-1", "A barn in Ohio", [[100, 200, 400, 300]]),
    ("p1-I2", "The mayor Mr Möller", [[550, 200, 400, 300]]),
]


@pytest.mark.parametrize(
    ("unit", "scale", "page", "namespace"),
    [
        ("pixel", 1.0, 'WIDTH="{0:g}" HEIGHT="{1:g}"', "v4"),
        ("pixel", 1.0, "", "v2"),
        ("mm10", 1.0, 'WIDTH="{0:g}" HEIGHT="{1:g}"', "v3"),
        ("inch1200", 1200 / 254, 'WIDTH="{0:g}" HEIGHT="{1:g}"', "v2"),
        ("inch1200", 1200 / 254, "", "v4"),
    ],
)
def test_illustrations_become_rows_with_boxes_in_pixels(tmp_path, unit, scale, page, namespace):
    (tmp_path / "p1.xml").write_bytes(alto(unit, scale, page, namespace))
    found = list(rows_of_page(Page("p1.tif", str(tmp_path / "p1.xml")), "p1", lambda _: Size(1000, 1400, 254.0)))
    assert [(row["id"], row["caption"], row["regions"]) for row in found] == ROWS
    assert {row["group_id"] for row in found} == {"p1"}


def test_boxes_in_pixels_of_another_size_are_scaled(tmp_path):
    """ALTO is often made from a smaller copy of the scan."""
    (tmp_path / "p1.xml").write_bytes(alto("pixel", 1.0))
    found = list(rows_of_page(Page("p1.tif", str(tmp_path / "p1.xml")), "p1", lambda _: Size(2000, 2800, 508.0)))
    assert [row["regions"] for row in found] == [[[2 * side for side in row[2][0]]] for row in ROWS]


@pytest.mark.parametrize(("unit", "size"), [("pixel", Size(999, 700)), ("mm10", Size(1000, 1000, 254.0))])
def test_alto_of_another_image_is_refused(tmp_path, unit, size):
    (tmp_path / "p1.xml").write_bytes(alto(unit, 1.0))
    with pytest.raises(ManifestError) as caught:
        list(rows_of_page(Page("p1.tif", str(tmp_path / "p1.xml")), "p1", lambda _: size))
    assert caught.value.problems[0].kind == "alto_size"


def test_entity_bombs_are_refused_unread(tmp_path):
    (tmp_path / "bomb.xml").write_bytes(BOMB)
    with pytest.raises(ManifestError) as caught:
        list(rows_of_page(Page("p1.tif", str(tmp_path / "bomb.xml")), "p1", lambda _: Size(1, 1)))
    assert caught.value.problems[0].kind == "xml_unsafe"


METS = """<mets:mets xmlns:mets="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"><mets:fileSec>
<mets:fileGrp USE="Images"><mets:file ID="I1" MIMETYPE="image/tiff"><mets:FLocat LOCTYPE="URL" xlink:href="{image}"/>
</mets:file></mets:fileGrp><mets:fileGrp USE="Thumbnails"><mets:file ID="T1" MIMETYPE="image/jpeg"><mets:FLocat
LOCTYPE="URL" xlink:href="thumb/p1.jpg"/></mets:file></mets:fileGrp><mets:fileGrp USE="ALTO"><mets:file ID="A1"
MIMETYPE="text/xml"><mets:FLocat LOCTYPE="URL" xlink:href="./alto/p1.xml"/></mets:file></mets:fileGrp></mets:fileSec>
<mets:structMap TYPE="PHYSICAL"><mets:div TYPE="page"><mets:fptr FILEID="T1"/><mets:fptr><mets:par><mets:area
FILEID="I1"/><mets:area FILEID="A1"/></mets:par></mets:fptr></mets:div></mets:structMap></mets:mets>"""


def newspaper(folder):
    """A page's image, its ALTO and a METS file over both."""
    import numpy as np

    (folder / "alto").mkdir()
    (folder / "images").mkdir()
    page = np.tile(scans.GRAY, (20, 13))[:1400, :1000]
    (folder / "images" / "p1.tif").write_bytes(scans.tiff(page, resolution=(254, 254), resolutionunit=2))
    (folder / "alto" / "p1.xml").write_bytes(alto("mm10", 1.0))
    (folder / "mets.xml").write_text(METS.format(image="images/p1.tif"))
    return folder


def test_mets_pairs_images_with_their_alto(tmp_path):
    newspaper(tmp_path)
    (page,) = pages_of_mets(str(tmp_path / "mets.xml"), SUFFIXES)
    assert page.image == f"file://{tmp_path}/images/p1.tif"
    assert page.alto == f"file://{tmp_path}/alto/p1.xml"


def test_mets_may_not_point_out_of_its_folder(tmp_path):
    (tmp_path / "mets.xml").write_text(METS.format(image="../../etc/passwd.tif"))
    with pytest.raises(ManifestError) as caught:
        pages_of_mets(str(tmp_path / "mets.xml"), SUFFIXES)
    assert caught.value.problems[0].kind == "bad_image"


@pytest.mark.parametrize("way", ["mets", "alto"])
def test_build_makes_a_manifest_that_can_be_submitted(tmp_path, way):
    newspaper(tmp_path)
    manifest = tmp_path / "m.parquet"
    given = ["--mets", str(tmp_path / "mets.xml")] if way == "mets" else [str(tmp_path / "images")]
    given += ["--alto", str(tmp_path / "alto")] if way == "alto" else []
    assert CliRunner().invoke(app, ["manifest", "build", *given, "-o", str(manifest)]).exit_code == 0
    rows = pq.read_table(manifest).to_pylist()
    assert [(row["id"], row["caption"], row["regions"]) for row in rows] == ROWS
    assert CliRunner().invoke(app, ["manifest", "validate", str(manifest)]).exit_code == 0


def test_pages_of_several_issues_are_not_mixed_up(tmp_path):
    for issue in ("i1", "i2"):
        for kind in ("images", "alto"):
            (tmp_path / kind / issue).mkdir(parents=True)
        (tmp_path / "images" / issue / "0001.tif").write_bytes(b"x")
        (tmp_path / "alto" / issue / "0001_alto.xml").write_bytes(b"x")
    pages, alone = pages_of_folders(str(tmp_path / "images"), str(tmp_path / "alto"), SUFFIXES)
    assert [page.alto.split("/")[-2] for page in pages] == [page.image.split("/")[-2] for page in pages] == ["i1", "i2"]
    assert alone == ()
    (tmp_path / "alto" / "i1" / "0001_alto.xml").unlink()
    pages, alone = pages_of_folders(str(tmp_path / "images"), str(tmp_path / "alto"), SUFFIXES)
    assert [page.image.split("/")[-2] for page in pages] == ["i2"], "i1's page is not i2's"
    assert alone == ("i1/0001.tif",)


def test_a_page_that_cannot_be_read_is_left_out_and_said(tmp_path):
    newspaper(tmp_path)
    (tmp_path / "images" / "p2.tif").write_bytes(scans.BAD["bitonal"])
    (tmp_path / "alto" / "p2.xml").write_bytes(alto("pixel", 1.0))
    given = [str(tmp_path / "images"), "--alto", str(tmp_path / "alto"), "-o", str(tmp_path / "m.parquet")]
    result = CliRunner().invoke(app, ["manifest", "build", *given])
    assert result.exit_code == 0
    assert "bitonal" in result.output
    assert pq.read_table(tmp_path / "m.parquet").num_rows == 2


def test_iiif_canvases_become_rows(tmp_path):
    def canvas(label, body):
        return {"label": label, "items": [{"items": [{"body": body}]}]}

    image = {"type": "Image", "id": "https://example.org/iiif/a/full/max/0/default.jpg"}
    document = {
        "type": "Manifest",
        "id": "https://example.org/iiif/book 1/manifest",
        "label": {"de": ["Bauernhof"], "en": ["Farm in Ohio"]},
        "items": [
            canvas({"none": ["p. 1"]}, image),
            canvas({"en": ["A red barn behind a fence"]}, {"type": "Choice", "items": [image, {**image, "id": "x"}]}),
            canvas({"none": ["sound"]}, {"type": "Sound", "id": "y"}),
            canvas({"none": ["a bare URL"]}, "https://example.org/z.jpg"),
        ],
    }
    (tmp_path / "iiif.json").write_text(json.dumps(document))
    rows, left_out = rows_of_iiif(str(tmp_path / "iiif.json"))
    assert left_out == ["canvas 3: no image is painted on it", "canvas 4: no image is painted on it"]
    assert [row["caption"] for row in rows] == ["Farm in Ohio", "Farm in Ohio. A red barn behind a fence"]
    assert {row["image"] for row in rows} == {image["id"]}
    assert len({row["id"] for row in rows}) == 2


def test_iiif_presentation_2_is_read_and_nulls_are_left_out(tmp_path):
    def canvas(label, resource):
        return {"@type": "sc:Canvas", "label": label, "images": [{"resource": resource}]}

    image = {"@type": "dctypes:Image", "@id": "https://example.org/iiif/a/full/full/0/default.jpg"}
    canvases = [
        None,
        canvas("p. 1", image),
        canvas([{"@value": "Eine Scheune", "@language": "de"}, {"@value": "A red barn", "@language": "en"}], image),
        canvas({"@value": "A barn in snow"}, {"@type": "oa:Choice", "default": image, "item": [image]}),
    ]
    document = {"@type": "sc:Manifest", "@id": "https://example.org/book.json", "label": {"en": None}}
    (tmp_path / "iiif.json").write_text(json.dumps({**document, "sequences": [{"canvases": canvases}]}))
    rows, left_out = rows_of_iiif(str(tmp_path / "iiif.json"))
    assert [row["caption"] for row in rows] == [None, "A red barn", "A barn in snow"]
    assert {row["image"] for row in rows} == {image["@id"]}
    assert left_out == ["canvas 1: it is null"]
    collection = {"type": "Collection", "items": [{"type": "Manifest", "id": "https://example.org/1"}]}
    (tmp_path / "iiif.json").write_text(json.dumps(collection))
    with pytest.raises(ManifestError, match=r"a collection of 1 manifests.*https://example.org/1"):
        rows_of_iiif(str(tmp_path / "iiif.json"))


@pytest.mark.parametrize("content", ["[]", "{", '{"@type": "sc:Manifest"}', '{"type": "Manifest", "items": []}'])
def test_what_is_no_iiif_manifest_is_refused(tmp_path, content):
    (tmp_path / "iiif.json").write_text(content)
    with pytest.raises(ManifestError):
        rows_of_iiif(str(tmp_path / "iiif.json"))
