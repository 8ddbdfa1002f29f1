"""What a scan says about itself, and what of it an output carries on."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.images import ifd
from pipelines.images.ifd import BadDirectoryError, Directory, Layout

ORIENTATION = 0x0112
# DocumentName, ImageDescription, Make, Model, Orientation, PageName, DateTime, Artist, HostComputer, Copyright
CARRIED_TAGS = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, ORIENTATION, 0x011D, 0x0132, 0x013B, 0x013C, 0x8298},
)
SOFTWARE, XMP, IPTC, ICC, PHOTOSHOP = 0x0131, 0x02BC, 0x83BB, 0x8773, 0x8649
MAKER_NOTE, INTEROPERABILITY = 0x927C, 0xA005
# Layout, resolution, and what has a field of its own below: their loss is none.
_STRUCTURE = frozenset(
    {
        *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 286, 287),
        *(290, 291, 292, 293, 296, 297, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 336, 338, 339, 340, 341),
        *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 0xC4A5, 0xEA1C),
        *(ifd.EXIF, ifd.GPS, SOFTWARE, XMP, IPTC, ICC, PHOTOSHOP),
    }
)
_REFUSED_IN_SUB = {ifd.EXIF: {MAKER_NOTE, INTEROPERABILITY}, ifd.GPS: set()}  # they hold file offsets
_RESOLUTION = (0x011A, 0x011B, 0x0128)
_LITTLE_ENDIAN = Layout("<")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A scan's own metadata; each part as its bytes, for it is not ours to re-code.

    Attributes:
        dpi: pixels per inch across and down.
        icc: the source's ICC profile.
        layout, tags, sub: descriptive tags, and the EXIF and GPS directories, in the source's byte order.
        software: what the source says it was made with; outputs say ours instead.
        dropped: names of what an output cannot carry.
    """

    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    layout: Layout = _LITTLE_ENDIAN
    tags: Directory = field(default_factory=dict)
    sub: Mapping[int, Directory] = field(default_factory=dict)
    software: str | None = None
    dropped: tuple[str, ...] = ()

    @property
    def orientation(self) -> int:
        """1 .. 8 as EXIF numbers them; 1 where it is not said, or nonsense."""
        try:
            value = ifd.integer(self.tags[ORIENTATION], self.layout)
        except (KeyError, BadDirectoryError):
            return 1
        return value if 1 <= value <= 8 else 1

    @property
    def exif(self) -> bytes:
        """An EXIF block of all tags, b"" where there are none."""
        return ifd.write_block(self.tags, self.sub, self.layout) if self.tags or self.sub else b""


def read_tags(buffer, offset: int, layout: Layout, dropped: tuple[str, ...] = (), **parts) -> Metadata:
    """Metadata of the directory at `offset` and of its sub-directories; what is damaged there is named as dropped.

    Args:
        dropped: what was found damaged before.
        parts: dpi, icc, xmp, iptc where the file says them elsewhere, too; what is None there is looked for here.
    """
    read = CARRIED_TAGS | {SOFTWARE, XMP, IPTC, ICC, ifd.EXIF, ifd.GPS, *_RESOLUTION}
    try:
        main, damaged = ifd.read_directory(buffer, offset, layout, read.__contains__)
    except BadDirectoryError as error:
        return Metadata(**parts, dropped=(*dropped, f"tags (damaged: {error})"))
    dropped = [*dropped, *(f"tag {code} (damaged)" for code in damaged)]
    dropped += [f"tag {code}" for code in main if code not in CARRIED_TAGS | _STRUCTURE]
    if PHOTOSHOP in main:
        dropped.append(f"tag {PHOTOSHOP} (Photoshop)")
    sub = {}
    for code, refused in _REFUSED_IN_SUB.items():
        if code not in main:
            continue
        try:
            directory, broken = ifd.read_directory(
                buffer, ifd.integer(main[code], layout), layout, lambda inner, refused=refused: inner not in refused
            )
        except BadDirectoryError as error:
            dropped.append(f"tag {code} (damaged: {error})")
            continue
        dropped += [f"tag {code}/{inner} (damaged)" for inner in broken]
        dropped += [f"tag {code}/{inner}" for inner in directory if inner in refused]
        if kept := {inner: tag for inner, tag in directory.items() if inner not in refused and tag.raw}:
            sub[code] = kept
    software = main[SOFTWARE].raw.rstrip(b"\0").decode("utf-8", "replace") if SOFTWARE in main else None
    found = {
        "dpi": _resolution(main, layout),
        "icc": main[ICC].raw if ICC in main else None,
        "xmp": main[XMP].raw if XMP in main else None,
        "iptc": main[IPTC].raw if IPTC in main else None,
    }
    found |= {name: value for name, value in parts.items() if value is not None}
    return Metadata(
        layout=Layout(layout.order),
        tags={code: tag for code, tag in main.items() if code in CARRIED_TAGS and tag.raw},
        sub=sub,
        software=software,
        dropped=tuple(dropped),
        **found,
    )


def _resolution(main: Directory, layout: Layout) -> tuple[float, float] | None:
    """Pixels per inch by the tags; a resolution without a unit is none."""
    try:
        across, down = (struct.unpack(f"{layout.order}II", main[code].raw) for code in _RESOLUTION[:2])
        unit = ifd.integer(main[_RESOLUTION[2]], layout) if _RESOLUTION[2] in main else 2
        scale = {2: 1.0, 3: 2.54}[unit]
        return sane_dpi(across[0] / across[1] * scale, down[0] / down[1] * scale)
    except (KeyError, struct.error, ZeroDivisionError, BadDirectoryError):
        return None


def from_exif(block: bytes, dropped: tuple[str, ...] = (), **parts) -> Metadata:
    """Metadata of an EXIF block (with or without its `Exif\\0\\0`) and of `parts`, fields of Metadata."""
    block = block.removeprefix(b"Exif\0\0")
    if not block:
        return Metadata(**parts, dropped=dropped)
    try:
        layout, offset = ifd.block_layout(block)
    except BadDirectoryError as error:
        return Metadata(**parts, dropped=(*dropped, f"EXIF (damaged: {error})"))
    return read_tags(block, offset, layout, dropped, **parts)


def sane_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Pixels per inch, None if it is nonsense (0/0 is a common one)."""
    return (float(across), float(down)) if 0 < across < 1e6 and 0 < down < 1e6 else None
