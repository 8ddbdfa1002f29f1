"""Catalogue records: Dublin Core, MARCXML and EAD become rows as spreadsheets do."""

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from manifests.build import build
from manifests.errors import ManifestError
from manifests.sources.tables import read_table
from tests.conftest import write_picture

DC = """<?xml version="1.0" encoding="UTF-8"?>
<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><ListRecords>
<record><metadata><oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/"
    xmlns:dc="http://purl.org/dc/elements/1.1/">
  <dc:title>A barn  at
     the road</dc:title><dc:identifier>http://example.org/1</dc:identifier><dc:identifier>p1.png</dc:identifier>
  <dc:source>box 7</dc:source><dc:subject/>
</oai_dc:dc></metadata></record>
<record><metadata><oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/"
    xmlns:dc="http://purl.org/dc/elements/1.1/">
  <dc:title>Müller &amp; Söhne</dc:title><dc:identifier>http://example.org/2</dc:identifier>
  <dc:identifier>p2.png</dc:identifier>
</oai_dc:dc></metadata></record>
</ListRecords></OAI-PMH>"""

MARC = """<collection xmlns="http://www.loc.gov/MARC21/slim"><record>
  <leader>00000nkm</leader><controlfield tag="001">77</controlfield>
  <datafield tag="245" ind1="1" ind2="0"><subfield code="a">A barn /</subfield>
    <subfield code="c">N. N.</subfield></datafield>
  <datafield tag="650" ind1=" " ind2="0"><subfield code="a">Barns</subfield></datafield>
  <datafield tag="650" ind1=" " ind2="0"><subfield code="a">Roads</subfield></datafield>
  <datafield tag="856" ind1="4" ind2="1"><subfield code="u">p1.png</subfield></datafield>
</record></collection>"""

EAD = """<ead xmlns="urn:isbn:1-931666-22-9" xmlns:xlink="http://www.w3.org/1999/xlink"><archdesc><dsc>
<c01 level="series"><did><unittitle>Farms</unittitle></did>
  <c02 level="item"><did><unitid>F 1</unitid><unittitle>A barn, <unitdate>1931</unitdate></unittitle>
     <dao xlink:href="p1.png"/></did><scopecontent><p>Seen from the road.</p></scopecontent></c02>
  <c02 level="item"><did><unitid>F 2</unitid><unittitle>A mill</unittitle></did></c02>
</c01></dsc></archdesc></ead>"""


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "scans").mkdir()
    for number in (1, 2):
        write_picture(tmp_path / "scans" / f"p{number}.png", number)
    return tmp_path / "scans"


def table(tmp_path, text):
    (tmp_path / "records.xml").write_text(text, encoding="utf-8")
    return read_table(str(tmp_path / "records.xml"))


def test_dublin_core(tmp_path):
    headings, (first, second), _ = table(tmp_path, DC)
    assert headings == ["dc:title", "dc:identifier", "dc:identifier.2", "dc:source"]
    assert first.cells["dc:title"] == "A barn at the road"
    assert (first.number, first.cells["dc:identifier.2"]) == (4, "p1.png")
    assert second.cells["dc:title"] == "Müller & Söhne"


def test_marc(tmp_path):
    _, (one,), _ = table(tmp_path, MARC)
    assert one.cells == {
        "001": "77",
        "245$a": "A barn /",
        "245$c": "N. N.",
        "650$a": "Barns",
        "650$a.2": "Roads",
        "856$u": "p1.png",
    }


@pytest.mark.parametrize(
    "namespace", [' xmlns="urn:isbn:1-931666-22-9"', ' xmlns="http://ead3.archivists.org/schema/"', ""]
)
def test_ead(tmp_path, namespace):
    """A component that is an item, with the titles of those above it; EAD 2002, EAD3, and without a namespace."""
    _, (barn, mill), _ = table(tmp_path, EAD.replace(' xmlns="urn:isbn:1-931666-22-9"', namespace))
    assert barn.cells == {
        "ead:unitid": "F 1",
        "ead:unittitle": "A barn, 1931",
        "ead:unitdate": "1931",
        "ead:dao": "p1.png",
        "ead:scopecontent": "Seen from the road.",
        "ead:series": "Farms",
    }
    assert mill.cells == {"ead:unitid": "F 2", "ead:unittitle": "A mill", "ead:series": "Farms"}


def test_records_become_rows_with_all_their_fields(scans, tmp_path):
    table(tmp_path, DC)
    records = str(tmp_path / "records.xml")
    columns = {"file": "dc:identifier.2", "caption": "dc:title"}
    built = build(str(scans), tmp_path / "m.parquet", {".png"}, records, columns)
    assert (built.rows, built.matched, built.uncaptioned) == (2, 2, ())
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert [row["caption"] for row in rows] == ["A barn at the road", "Müller & Söhne"]
    assert rows[0]["dc:source"] == "box 7"


def test_init_understands_records_that_it_is_given(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path, EAD)
    done = CliRunner().invoke(app, ["init", "scans", "--captions", "records.xml"])
    assert done.exit_code == 0, done.output
    assert "'ead:dao' is read as file; 'ead:unittitle' is read as caption" in done.stderr
    assert "1 of 2 records name no file" in done.stderr
    assert pq.read_table("scans.parquet")["caption"].to_pylist() == ["A barn, 1931", None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<a><b/></a>", "holds no record"),
        ("<a>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        ('<collection xmlns="http://www.loc.gov/MARC21/slim"><record/></collection>', "holds no record"),
    ],
)
def test_what_is_no_record_is_said(tmp_path, text, said):
    with pytest.raises(ManifestError, match=said):
        table(tmp_path, text)
