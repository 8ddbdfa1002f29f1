"""One table of formats: what is read, written and named agrees everywhere."""

import io

import pytest
from typer.testing import CliRunner

from cli import app
from manifests.read import read_rows
from manifests.schema import Defaults
from pipelines.images.formats.codecs import CODECS, open_raster
from pipelines.images.formats.table import FORMATS, SUFFIXES, OutputFormat, format_of_content, format_of_name
from tests import scans

SAMPLES = {"tiff": "tiff8", "png": "png8", "jp2": "jp2", "webp": "webp", "jpeg": "jpeg", "bmp": "bmp"}


def test_every_format_has_a_reader_and_every_output_format_a_writer():
    assert CODECS.keys() == FORMATS.keys()
    written = {name for name, codec in CODECS.items() if codec.write}
    assert written == {row.output for row in FORMATS.values()} | {"jp2", "webp"}
    assert written == {member.value for member in OutputFormat} - {"input"}
    assert all(FORMATS[name].pronom for name in written)


def test_no_suffix_belongs_to_two_formats():
    assert sum(len(row.suffixes) for row in FORMATS.values()) == len(SUFFIXES)
    assert {".jpe", ".jpx", ".j2c", ".jpf", ".jpc", ".dib", ".btf", ".tf8"} <= SUFFIXES


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_what_its_content_is(name):
    content = scans.GOOD[next(key for key in scans.GOOD if key.startswith(SAMPLES[name]))][0]
    assert format_of_content(content[:16]).name == name
    assert open_raster(io.BytesIO(content), 10**9).kind == name


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_build_finds_what_submit_reads_and_says_what_it_left_out(tmp_path, suffix):
    (tmp_path / f"a{suffix.upper()}").write_bytes(b"x")
    (tmp_path / "notes.docx").write_bytes(b"x")
    result = CliRunner().invoke(app, ["manifest", "build", str(tmp_path), "-o", str(tmp_path / "m.parquet")])
    assert [row.id for row in read_rows(str(tmp_path / "m.parquet"), defaults=Defaults(caption="x"))] == ["a"]
    assert "left out: 1 x .docx" in result.stderr
    assert format_of_name(f"s3://archive/a{suffix}?x=.png").suffixes
