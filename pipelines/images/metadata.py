"""What a scan says about itself, and what of it an output carries on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
_CARRIED_IN_SUB = {ifd.EXIF: {MAKER_NOTE, INTEROPERABILITY}, ifd.GPS: set()}  # all but these: they hold file offsets
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


def from_directories(main: Directory, sub: Mapping[int, Directory], layout: Layout) -> Metadata:
    """Of a main directory and its sub-directories, what is carried, and the names of what is not."""
    dropped = [f"tag {code}" for code in main if code not in CARRIED_TAGS | _STRUCTURE]
    carried_sub = {}
    for code, directory in sub.items():
        refused = _CARRIED_IN_SUB[code]
        dropped += [f"tag {code}/{inner}" for inner in directory if inner in refused]
        if kept := {inner: tag for inner, tag in directory.items() if inner not in refused}:
            carried_sub[code] = kept
    software = main[SOFTWARE].raw.rstrip(b"\0").decode("utf-8", "replace") if SOFTWARE in main else None
    return Metadata(
        layout=layout,
        tags={code: tag for code, tag in main.items() if code in CARRIED_TAGS},
        sub=carried_sub,
        software=software,
        dropped=tuple(dropped),
    )


def from_exif(block: bytes, **parts) -> Metadata:
    """Metadata of an EXIF block (with or without its `Exif\\0\\0`) and of `parts`, fields of Metadata."""
    block = block.removeprefix(b"Exif\0\0")
    if not block:
        return Metadata(**parts)
    try:
        layout, main, sub = ifd.read_block(block)
    except BadDirectoryError as error:
        return Metadata(**parts, dropped=(f"EXIF (damaged: {error})",))
    return replace(from_directories(main, sub, layout), **parts)


def sane_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Pixels per inch, None if it is nonsense (0/0 is a common one)."""
    return (float(across), float(down)) if 0 < across < 1e6 and 0 < down < 1e6 else None
