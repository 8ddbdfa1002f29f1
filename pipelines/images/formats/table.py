"""The one table of image file formats. Plain data, quick to import; `codecs.py` has the code that reads and writes."""

import posixpath
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Format:
    """One image file format.

    Attributes:
        suffixes: lower case, the usual one first.
        signatures: how its files begin.
        mime: media type (IANA).
        pronom: PUID in The National Archives' registry, of the files that we write; "" where we write none.
        output: name of the lossless format that the colour pictures of such a scan are stored in by default.
        is_signable: whether C2PA defines a place for a signature in it.
    """

    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...]
    mime: str
    pronom: str = ""
    output: str
    is_signable: bool = True


_ROWS = (
    Format(
        name="tiff",
        suffixes=(".tif", ".tiff", ".btf", ".tf8"),
        signatures=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        mime="image/tiff",
        pronom="fmt/353",
        output="tiff",
    ),
    Format(
        name="png",
        suffixes=(".png",),
        signatures=(b"\x89PNG\r\n\x1a\n",),
        mime="image/png",
        pronom="fmt/13",
        output="png",
    ),
    Format(
        name="jp2",
        suffixes=(".jp2", ".j2k", ".jpx", ".j2c", ".jpf", ".jpc"),
        signatures=(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # a JP2 file, a bare codestream
        mime="image/jp2",
        pronom="x-fmt/392",
        output="jp2",
        is_signable=False,
    ),
    Format(
        name="webp",
        suffixes=(".webp",),
        signatures=(b"RIFF",),
        mime="image/webp",
        pronom="fmt/568",
        output="webp",
    ),
    # JPEG cannot hold exact luminance, and BMP has no place for metadata.
    Format(
        name="jpeg",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
        signatures=(b"\xff\xd8\xff",),
        mime="image/jpeg",
        output="tiff",
    ),
    Format(
        name="bmp",
        suffixes=(".bmp", ".dib"),
        signatures=(b"BM",),
        mime="image/bmp",
        output="png",
        is_signable=False,
    ),
)
FORMATS = {row.name: row for row in _ROWS}
SUFFIXES = frozenset(suffix for row in _ROWS for suffix in row.suffixes)
ACCEPTED = "PNG, JPEG, TIFF, JPEG 2000, WebP and BMP"


class OutputFormat(StrEnum):
    """What `submit --format` takes; "input" is the scan's own format, or its `output`."""

    input = "input"
    tiff = "tiff"
    png = "png"
    jp2 = "jp2"
    webp = "webp"


def format_of_name(uri: str) -> Format | None:
    """The format by a file name's suffix, None if it is none of ours."""
    suffix = posixpath.splitext(urlsplit(uri).path)[1].lower()
    return next((row for row in _ROWS if suffix in row.suffixes), None)


def format_of_content(head: bytes) -> Format | None:
    """The format by a file's first bytes, None if they match no signature of ours."""
    return next((row for row in _ROWS if head.startswith(row.signatures)), None)
