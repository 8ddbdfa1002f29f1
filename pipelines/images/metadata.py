"""A scan's own metadata, and which of it an output carries on."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipelines.images import ifd
from pipelines.images.ifd import BadDirectoryError, Buffer, Directory, Layout

ORIENTATION = 0x0112
# DocumentName, ImageDescription, Make, Model, Orientation, PageName, DateTime, Artist, HostComputer, Copyright
CARRIED_TAGS = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, ORIENTATION, 0x011D, 0x0132, 0x013B, 0x013C, 0x8298},
)
SOFTWARE, XMP, IPTC, ICC, PHOTOSHOP = 0x0131, 0x02BC, 0x83BB, 0x8773, 0x8649
MAKER_NOTE, INTEROPERABILITY = 0x927C, 0xA005
# Tags of the layout and the resolution, and tags with a field of their own in `Metadata`: not reported as dropped.
_STRUCTURE = frozenset(
    {
        *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 286, 287),
        *(290, 291, 292, 293, 296, 297, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 336, 338, 339, 340, 341),
        *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 0xC4A5, 0xEA1C),
        *(ifd.EXIF, ifd.GPS, SOFTWARE, XMP, IPTC, ICC, PHOTOSHOP),
    }
)
# These hold file offsets, which are wrong in another file.
_REFUSED_IN_SUB: dict[int, set[int]] = {ifd.EXIF: {MAKER_NOTE, INTEROPERABILITY}, ifd.GPS: set()}
_RESOLUTION = (0x011A, 0x011B, 0x0128)
_LITTLE_ENDIAN = Layout("<")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A scan's own metadata; each part is kept as its bytes and never re-encoded.

    Attributes:
        dpi: pixels per inch across and down.
        icc: the source's ICC profile.
        gamma: where there is none, the exponent that made its code values from light (PNG's gAMA).
        layout, tags, sub: descriptive tags, and the EXIF and GPS directories, in the source's byte order.
        software: the source's Software tag; outputs name this program instead.
        dropped: names of the parts that an output cannot carry.
    """

    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    gamma: float | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    layout: Layout = _LITTLE_ENDIAN
    tags: Directory = field(default_factory=dict)
    sub: Mapping[int, Directory] = field(default_factory=dict)
    software: str | None = None
    dropped: tuple[str, ...] = ()

    @property
    def orientation(self) -> int:
        """1 .. 8 as EXIF numbers them; 1 if the tag is missing or invalid."""
        try:
            value = ifd.integer(self.tags[ORIENTATION], self.layout)
        except (KeyError, BadDirectoryError):
            return 1
        return value if 1 <= value <= 8 else 1

    @property
    def exif(self) -> bytes:
        """An EXIF block of all tags, b"" where there are none."""
        return ifd.write_block(self.tags, self.sub, self.layout) if self.tags or self.sub else b""


def read_tags(buffer: Buffer, offset: int, layout: Layout, known: Metadata | None = None) -> Metadata:
    """`known` completed by the directory at `offset` and its sub-directories; damaged parts are reported as dropped.

    Args:
        known: dpi, icc, xmp, iptc and dropped as read from other places of the file. Of the first four, those that are
            None are taken from the tags.
    """
    known = known or Metadata()
    read = CARRIED_TAGS | {SOFTWARE, XMP, IPTC, ICC, ifd.EXIF, ifd.GPS, *_RESOLUTION}
    try:
        main, damaged = ifd.read_directory(buffer, offset, layout, read.__contains__)
    except BadDirectoryError as error:
        return replace(known, dropped=(*known.dropped, f"tags (damaged: {error})"))
    dropped = [*known.dropped, *(f"tag {code} (damaged)" for code in damaged)]
    dropped += [f"tag {code}" for code in main if code not in CARRIED_TAGS | _STRUCTURE]
    if PHOTOSHOP in main:
        dropped.append(f"tag {PHOTOSHOP} (Photoshop)")
    sub = {}
    for code, refused in _REFUSED_IN_SUB.items():
        if code not in main:
            continue

        def wanted(inner: int, refused: set[int] = refused) -> bool:
            return inner not in refused

        try:
            directory, broken = ifd.read_directory(buffer, ifd.integer(main[code], layout), layout, wanted)
        except BadDirectoryError as error:
            dropped.append(f"tag {code} (damaged: {error})")
            continue
        dropped += [f"tag {code}/{inner} (damaged)" for inner in broken]
        dropped += [f"tag {code}/{inner}" for inner in directory if inner in refused]
        if kept := {inner: tag for inner, tag in directory.items() if inner not in refused and tag.raw}:
            sub[code] = kept

    def value(code: int) -> bytes | None:
        return main[code].raw if code in main else None

    software = main[SOFTWARE].raw.rstrip(b"\0").decode("utf-8", "replace") if SOFTWARE in main else None
    return Metadata(
        dpi=_resolution(main, layout) if known.dpi is None else known.dpi,
        icc=value(ICC) if known.icc is None else known.icc,
        gamma=known.gamma,
        xmp=value(XMP) if known.xmp is None else known.xmp,
        iptc=value(IPTC) if known.iptc is None else known.iptc,
        layout=Layout(layout.order),
        tags={code: tag for code, tag in main.items() if code in CARRIED_TAGS and tag.raw},
        sub=sub,
        software=software,
        dropped=tuple(dropped),
    )


def _resolution(main: Directory, layout: Layout) -> tuple[float, float] | None:
    """Pixels per inch as the tags give them; None if they are missing, or have no unit of length."""
    try:
        across, down = (ifd.number(main[code], layout) for code in _RESOLUTION[:2])
        unit = ifd.integer(main[_RESOLUTION[2]], layout) if _RESOLUTION[2] in main else 2
        scale = {2: 1.0, 3: 2.54}[unit]
        return sane_dpi(across * scale, down * scale)
    except (KeyError, struct.error, ZeroDivisionError, BadDirectoryError):
        return None


def from_exif(block: bytes, known: Metadata) -> Metadata:
    """`known` completed by an EXIF block (with or without its `Exif\\0\\0`); see `read_tags`."""
    block = block.removeprefix(b"Exif\0\0")
    if not block:
        return known
    try:
        layout, offset = ifd.block_layout(block)
    except BadDirectoryError as error:
        return replace(known, dropped=(*known.dropped, f"EXIF (damaged: {error})"))
    return read_tags(block, offset, layout, known)


def sane_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Pixels per inch across and down; None if they make no sense (0/0 is common)."""
    return (float(across), float(down)) if 0 < across < 1e6 and 0 < down < 1e6 else None
