"""TIFF's image file directories: tags are copied byte by byte, so that no text or fraction is ever re-encoded.

EXIF blocks of JPEG, PNG, WebP and JP2 are small TIFF files; one reader and one writer serve them all.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

Buffer = bytes | memoryview | mmap
ByteOrder = Literal["<", ">"]
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
EXIF, GPS = 0x8769, 0x8825
MAX_BYTES = 64 << 20  # of all values of a directory


class BadDirectoryError(ValueError):
    """Not a TIFF structure, or one that points outside itself."""


@dataclass(frozen=True)
class Tag:
    """`raw` is the value in the file's byte order."""

    type: int
    count: int
    raw: bytes


Directory = dict[int, Tag]


@dataclass(frozen=True)
class Layout:
    """Byte order (little "<" or big ">") and whether offsets have 64 bits (BigTIFF)."""

    order: ByteOrder
    big: bool = False

    @property
    def entry(self) -> str:
        return f"{self.order}HH{'Q8s' if self.big else 'I4s'}"

    @property
    def offset(self) -> str:
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def count(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"


def layout_of(head: bytes) -> Layout:
    """Layout of a TIFF structure from its first 4 bytes."""
    orders: dict[bytes, ByteOrder] = {b"II": "<", b"MM": ">"}
    if len(head) < 4 or bytes(head[:2]) not in orders:
        raise BadDirectoryError("no TIFF header")
    order = orders[bytes(head[:2])]
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version not in (42, 43):
        raise BadDirectoryError(f"TIFF version {version}")
    return Layout(order, version == 43)


def read_directory(
    buffer: Buffer, offset: int, layout: Layout, wanted: Callable[[int], bool] = lambda _code: True
) -> tuple[Directory, list[int]]:
    """The directory at `offset`, and the codes of tags that are damaged.

    Values of tags that are not `wanted` are not read, and are b"".

    Raises:
        BadDirectoryError: the directory is outside the buffer, or its values exceed `MAX_BYTES`.
    """
    tags: Directory = {}
    damaged, total = [], 0
    size = struct.calcsize(layout.entry)
    try:
        count = struct.unpack_from(layout.count, buffer, offset)[0]
        first = offset + struct.calcsize(layout.count)
        if first + count * size > len(buffer):
            raise BadDirectoryError(f"{count} tags at {offset} do not fit into {len(buffer)} bytes")
        for number in range(count):
            code, kind, values, inline = struct.unpack_from(layout.entry, buffer, first + number * size)
            length = _SIZES.get(kind, 0) * values
            if not length or not wanted(code):
                tags[code] = Tag(kind, values, b"")
                continue
            if length <= len(inline):
                raw = inline[:length]
            else:
                start = struct.unpack(layout.offset, inline)[0]
                if start + length > len(buffer):
                    damaged.append(code)
                    continue
                total += length
                if total > MAX_BYTES:
                    raise BadDirectoryError(f"more than {MAX_BYTES >> 20} MB of tags")
                raw = bytes(buffer[start : start + length])
            tags[code] = Tag(kind, values, raw)
    except (struct.error, OverflowError) as error:
        raise BadDirectoryError(str(error)) from error
    return tags, damaged


def integer(tag: Tag, layout: Layout) -> int:
    """The first value of an unsigned tag (BYTE, SHORT, LONG, IFD, LONG8, IFD8)."""
    formats = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
    if tag.type not in formats or not tag.raw:
        raise BadDirectoryError(f"type {tag.type} is not an unsigned number")
    return struct.unpack_from(layout.order + formats[tag.type], tag.raw)[0]


def number(tag: Tag, layout: Layout) -> float:
    """The first value of a tag of any numeric type.

    Raises:
        BadDirectoryError, struct.error, ZeroDivisionError: it has none.
    """
    if tag.type in (5, 10):  # RATIONAL, SRATIONAL
        above, below = struct.unpack_from(layout.order + ("II" if tag.type == 5 else "ii"), tag.raw)
        return above / below
    formats = {6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 17: "q"}
    if tag.type in formats:
        return struct.unpack_from(layout.order + formats[tag.type], tag.raw)[0]
    return integer(tag, layout)


def write_directory(tags: Mapping[int, Tag], offset: int, layout: Layout) -> bytes:
    """A directory to be placed at `offset` (even), followed by its values; it links to no next directory."""
    entries, values = b"", b""
    inline = struct.calcsize(layout.offset)
    behind = offset + struct.calcsize(layout.count) + len(tags) * struct.calcsize(layout.entry) + inline
    for code, tag in sorted(tags.items()):
        if len(tag.raw) <= inline:
            field = tag.raw
        else:
            field = struct.pack(layout.offset, behind + len(values))
            values += tag.raw + b"\0" * (len(tag.raw) % 2)
        entries += struct.pack(layout.entry, code, tag.type, tag.count, field)
    return struct.pack(layout.count, len(tags)) + entries + bytes(inline) + values


def pointer(offset: int, layout: Layout) -> Tag:
    """The tag that points to a sub-directory at `offset`."""
    return Tag(18 if layout.big else 4, 1, struct.pack(layout.offset, offset))


def block_layout(block: bytes) -> tuple[Layout, int]:
    """Layout of an EXIF block, and where its main directory is.

    Raises:
        BadDirectoryError: not an EXIF block.
    """
    layout = layout_of(block)
    if layout.big or len(block) < 8:
        raise BadDirectoryError("an EXIF block has more than a TIFF header, and is never BigTIFF")
    return layout, struct.unpack_from(layout.offset, block, 4)[0]


def write_block(main: Directory, subs: Mapping[int, Directory], layout: Layout) -> bytes:
    """An EXIF block in `layout` (never BigTIFF)."""
    layout = Layout(layout.order)
    tags, block = dict(main), b"II*\0" if layout.order == "<" else b"MM\0*"
    block += struct.pack(layout.offset, 8)
    for code in subs:
        tags[code] = pointer(0, layout)
    behind = 8 + len(write_directory(tags, 8, layout))
    written = b""
    for code, directory in subs.items():
        tags[code] = pointer(behind + len(written), layout)
        written += write_directory(directory, behind + len(written), layout)
    return block + write_directory(tags, 8, layout) + written
